"""Files that end too early are refused, and those that lack nothing but a mark or are merely unusual are read."""

import io
import re
import struct
import zlib
from pathlib import Path

import imagecodecs
import numpy as np
import pillow_heif
import pytest
import tifffile
from PIL import ExifTags, Image

from components.imaging.originals import read_original
from components.imaging.photo import UnreadablePhoto, read_header, read_photo
from components.imaging.png import read_chunks
from components.imaging.source import decoding
from tests.imaging.test_colours import png, with_chunks
from tests.imaging.test_photo import exif_block, picture


def tiled_heic(monkeypatch: pytest.MonkeyPatch, **more: bytes) -> bytes:
    monkeypatch.setattr(pillow_heif.options, "GRID_TILE_SIZE", 64)
    heif = pillow_heif.from_bytes("RGB", (256, 192), picture(192, 256).tobytes())
    stream = io.BytesIO()
    heif.save(stream, quality=90, **more)
    return stream.getvalue()


@pytest.mark.parametrize("share", [0.6, 0.7, 0.9, 0.99, 0.9999])
def test_a_heic_that_ends_too_early_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, share: float) -> None:
    content = tiled_heic(monkeypatch)
    assert b"grid" in content
    (tmp_path / "a.heic").write_bytes(content)
    assert np.abs(read_original(tmp_path / "a.heic").samples.astype(int) - picture(192, 256)).mean() < 5
    (tmp_path / "b.heic").write_bytes(content[: int(len(content) * share)])
    with pytest.raises(UnreadablePhoto, match="truncated: the file ends after"):
        read_original(tmp_path / "b.heic")


def test_an_avif_that_ends_too_early_is_refused(tmp_path: Path) -> None:
    content = imagecodecs.avif_encode(picture(96, 128), level=90)
    for share in (0.5, 0.9, 0.99):
        (tmp_path / "a.avif").write_bytes(content[: int(len(content) * share)])
        with pytest.raises(UnreadablePhoto):
            read_original(tmp_path / "a.avif")


def test_an_avif_whose_boxes_break_the_rules_is_not_called_unknown(tmp_path: Path) -> None:
    content = imagecodecs.avif_encode(picture(96, 128), level=90)
    (tmp_path / "a.avif").write_bytes(content.replace(b"ispe", b"free"))
    with pytest.raises(UnreadablePhoto, match="its boxes break the rules of AVIF"):
        read_original(tmp_path / "a.avif")


def test_a_heic_is_turned_by_exif_where_it_has_no_rotation_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heif = pillow_heif.from_bytes("RGB", (64, 48), picture(48, 64).tobytes())
    heif.save(tmp_path / "own.heic", quality=100, chroma=444, exif=exif_block(6).tobytes())
    assert read_original(tmp_path / "own.heic").samples.shape == (64, 48, 3)
    content = (tmp_path / "own.heic").read_bytes()
    assert b"irot" in content
    (tmp_path / "exif.heic").write_bytes(content.replace(b"irot", b"free"))
    turned = read_original(tmp_path / "exif.heic")
    assert np.abs(turned.samples.astype(int) - np.rot90(picture(48, 64), -1)).mean() < 5
    assert (turned.width, turned.height) == (48, 64)


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_rows": 1}], ids=str)
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_a_jpeg_without_end_marker_is_read_if_all_its_data_is_there(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, options: dict, mode: str
) -> None:
    stream = io.BytesIO()
    Image.fromarray(picture(200, 300)).convert(mode).save(stream, "JPEG", quality=90, **options)
    whole, path = tmp_path / "whole.jpg", tmp_path / "a.jpg"
    whole.write_bytes(stream.getvalue())
    path.write_bytes(stream.getvalue()[:-2])
    assert np.array_equal(read_original(path).samples, read_original(whole).samples)
    assert "no end marker" in caplog.text
    length = len(stream.getvalue())
    for kept in (length - 12, length * 9 // 10, length // 2, *(_marks(stream.getvalue())[-2:] if options else ())):
        path.write_bytes(stream.getvalue()[:kept])
        with pytest.raises(UnreadablePhoto, match="truncated"):
            read_original(path)


def _marks(content: bytes) -> list[int]:
    """Where restart markers and scans begin: files that break off there have no scan that is cut."""
    return [found.start() for found in re.finditer(rb"\xff[\xd0-\xd7\xda\xc4]", content)]


@pytest.mark.parametrize("is_known", [True, False])
def test_a_makers_trailer_takes_the_place_of_no_data(tmp_path: Path, is_known: bool) -> None:
    stream = io.BytesIO()
    Image.fromarray(picture(200, 300)).save(stream, "JPEG", quality=90)
    block = b"\x00\x00\x01\x0a" + bytes(200)
    entries = struct.pack("<4sII HHII", b"SEFH", 107, 1, 0, 0x0A01, len(block), len(block))
    trailer = block + entries + struct.pack("<I4s", len(entries), b"SEFT") if is_known else bytes(300) + b"SEFTX"
    (tmp_path / "a.jpg").write_bytes(stream.getvalue()[:-2] + trailer)
    assert np.array_equal(read_original(tmp_path / "a.jpg").samples, np.asarray(Image.open(stream)))
    (tmp_path / "b.jpg").write_bytes(stream.getvalue()[:-2][: len(stream.getvalue()) // 2] + trailer)
    if is_known:
        with pytest.raises(UnreadablePhoto, match="truncated"):
            read_original(tmp_path / "b.jpg")


@pytest.mark.parametrize("name", ["a.gif", "a.png", "a.webp", "a.avif", "a.tif"])
def test_of_several_pictures_the_first_is_taken_and_said_to_be(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    first, *others = (Image.fromarray(picture(40, 60, seed=seed)) for seed in range(3))
    first.save(tmp_path / name, save_all=True, append_images=others, **({"lossless": True} if name == "a.webp" else {}))
    assert read_header(tmp_path / name).pictures == 3
    assert np.abs(read_original(tmp_path / name).samples.astype(int) - picture(40, 60)).mean() < 12
    assert "it holds 3 pictures" in caplog.text


def test_unusual_files_that_are_sound(tmp_path: Path) -> None:
    samples = picture()
    tifffile.imwrite(tmp_path / "big.tif", samples, photometric="rgb", bigtiff=True)
    assert np.array_equal(read_original(tmp_path / "big.tif").samples, samples)
    tifffile.imwrite(tmp_path / "a.tif", samples, photometric="rgb", metadata=None)
    content = bytearray((tmp_path / "a.tif").read_bytes())
    tag = content.index(struct.pack("<HHI", 262, 3, 1))
    content[tag : tag + 2] = struct.pack("<H", 60_000)  # no PhotometricInterpretation any more
    (tmp_path / "a.tif").write_bytes(content)
    assert np.array_equal(read_original(tmp_path / "a.tif").samples, samples)
    text = b"Description\0\0" + zlib.compress(b"long " * 500_000)
    assert np.array_equal(read_original(png(tmp_path / "text.png", samples, zTXt=text)).samples, samples)
    bad = b"Raw profile type exif\0\0" + zlib.compress(b"\nexif\n  8\nnot hexadecimal")
    assert np.array_equal(read_original(png(tmp_path / "hex.png", samples, zTXt=bad)).samples, samples)
    stream = io.BytesIO()
    Image.fromarray(samples).save(stream, "JPEG")
    whole = stream.getvalue()
    size = 2 + int.from_bytes(whole[4:6], "big")
    (tmp_path / "jfif.jpg").write_bytes(whole[:2] + b"\xff\xe0\x00\x07JFIF\0" + whole[2 + size :])
    assert np.array_equal(read_original(tmp_path / "jfif.jpg").samples, np.asarray(Image.open(stream)))


def test_an_old_text_with_exif_turns_a_png(tmp_path: Path) -> None:
    block = exif_block(6).tobytes()
    raw = f"\nexif\n{len(block):8d}\n{block.hex()}\n".encode()
    content = with_chunks(imagecodecs.png_encode(picture()), zTXt=b"Raw profile type exif\0\0" + zlib.compress(raw))
    (tmp_path / "a.png").write_bytes(content)
    photo = read_photo(tmp_path / "a.png")
    assert (photo.width, photo.height) == (24, 36)
    exif = Image.Exif()
    exif.load(photo.exif)
    assert exif[ExifTags.Base.Make] == "Contax"


def test_reasons_are_words_and_nobodys_inside(tmp_path: Path) -> None:
    (tmp_path / "a.nef").write_bytes(b"II*\x00" + bytes(100))
    (tmp_path / "a.heic").write_bytes(struct.pack(">I8s4s", 16, b"ftypheic", bytes(4)) + bytes(50))
    (tmp_path / "a.tif").write_bytes(b"II*\x00\x08\0\0\0\xff\xff" + bytes(64))
    (tmp_path / "a.gif").write_bytes(b"GIF89a\x05\0\x05\0\xff")
    (tmp_path / "a.webp").write_bytes(b"RIFF\x20\0\0\0WEBPVP8 " + bytes(20))
    for path in sorted(tmp_path.iterdir()):
        with pytest.raises(UnreadablePhoto) as caught:
            read_original(path)
        assert not re.search(r"b'|0x|object at|argument|unpack|attribute|NoneType|Error", caught.value.reason)
        assert len(caught.value.reason) > 20


def test_an_error_of_python_is_not_told_as_it_is(tmp_path: Path) -> None:
    with pytest.raises(UnreadablePhoto, match="its parts do not fit together"), decoding(tmp_path / "a"):
        bytes.fromhex("xyz")
    with pytest.raises(UnreadablePhoto, match="its parts do not fit together"), decoding(tmp_path / "a"):
        raise OSError("decoder error -2")
    with pytest.raises(UnreadablePhoto, match="of a kind that is not read here: Unsupported"), decoding(Path("a")):
        raise OSError("Unsupported BMP compression (6)")
    with pytest.raises(UnreadablePhoto, match="truncated: image file is truncated"), decoding(tmp_path / "a"):
        raise OSError("image file is truncated (3 bytes not processed)")


def test_a_chunk_that_is_longer_than_its_file_takes_no_memory() -> None:
    class Counting(io.BytesIO):
        most = 0

        def read(self, size: int | None = -1) -> bytes:
            self.most = max(self.most, size or 0)
            return super().read(size)

    content = imagecodecs.png_encode(picture())
    file = Counting(content[:33] + struct.pack(">I4s", 2**31 - 1, b"tEXt") + content[33:])
    assert read_chunks(file).texts == []
    assert file.most < 100
