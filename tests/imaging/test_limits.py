"""Limits before decoding: what would work or take memory without end is refused, or left out, by what is counted."""

import io
import logging
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import ExifTags, Image

from components.data.facts import read_facts
from components.imaging import boxes, metadata, png, profiles, xmp
from components.imaging.directories import check_directories
from components.imaging.formats import MAX_PROFILE, FormatError, check_size
from components.imaging.originals import read_original
from components.imaging.photo import UnreadablePhoto, read_header
from components.imaging.source import MemoryFile
from tests import attacks
from tests.hostile_files import exif_block, sound_files


def refusal(name: str, content: bytes) -> str:
    with pytest.raises(UnreadablePhoto) as caught:
        read_header(MemoryFile(name, content))
    return caught.value.reason


def test_a_jpeg_of_many_scans_is_refused_by_its_header() -> None:
    assert "more than 200 scans" in refusal("a.jpg", attacks.jpeg_of_scans(40_000))
    assert read_original(MemoryFile("a.jpg", attacks.jpeg_of_scans(150))).width == 64


def test_scans_are_told_from_the_bytes_of_a_film_behind_the_picture() -> None:
    content = attacks.jpeg_of_scans(1) + b"\xff\xda" * 1000
    assert read_original(MemoryFile("a.jpg", content)).width == 64


@pytest.mark.parametrize("bits", [8, 16])
def test_a_tile_much_larger_than_its_picture_is_refused(bits: int) -> None:
    assert "a tile of 65536x65536" in refusal("a.tif", attacks.tiff_of_one_tile(65536, bits))


def test_usual_tiles_are_read(tmp_path: Path) -> None:
    samples = np.full((48, 64, 3), 7, np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", samples, photometric="rgb", tile=(1024, 1024), compression="zlib")
    assert (read_original(tmp_path / "a.tif").samples == samples).all()


@pytest.mark.parametrize("file_format", ["PNG", "WEBP"])
def test_exif_that_points_to_the_same_bytes_is_left_out(
    tmp_path: Path, file_format: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    bomb = attacks.exif_of_pointers(5000, 80_000)
    path = tmp_path / f"a.{file_format.lower()}"
    path.write_bytes(attacks.with_exif(bomb, file_format))
    loaded = []
    monkeypatch.setattr(Image.Exif, "load", lambda self, data: loaded.append(len(data)))
    monkeypatch.setattr(Image.Image, "getexif", lambda self: loaded.append("getexif"))
    assert read_original(path).width == 64
    assert read_facts(path, 2**28).reason is None
    assert not loaded


def test_exif_of_a_camera_passes_the_check() -> None:
    check_directories(io.BytesIO(exif_block()))
    assert metadata.loaded_exif(exif_block())[ExifTags.Base.Make] == "Contax"


def test_a_tiff_of_endless_directories_is_refused() -> None:
    page = b"\x00\x08" + bytes(12 * 0x800)
    pages = b"".join(page + (8 + (index + 1) * (len(page) + 4)).to_bytes(4, "little") for index in range(50))
    assert "more than 20,000 entries" in refusal("a.tif", b"II*\0\x08\0\0\0" + pages)


@pytest.mark.parametrize(("width", "height"), [(4_000_000, 16), (16, 4_000_000), (100_001, 500)])
def test_extreme_shapes_are_refused(width: int, height: int) -> None:
    with pytest.raises(FormatError, match="cut it into parts"):
        check_size(width, height, 2**28)


@pytest.mark.parametrize(("width", "height"), [(15_000, 60), (2000, 1), (1, 500), (65_535, 100)])
def test_panoramas_are_read(width: int, height: int) -> None:
    original = read_original(MemoryFile("a.png", attacks.grey_png(width, height)))
    assert (original.width, original.height) == (width, height)


def test_profiles_are_judged_and_not_kept() -> None:
    length = MAX_PROFILE // 4
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for more in range(4):
            original = read_original(MemoryFile("a.png", attacks.with_profile(length + 4 * more)))
            assert original.icc is not None and len(original.icc) == length + 4 * more
            del original
        kept = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert kept < length, "not one of the four"


def test_a_profile_without_end_is_not_used(caplog: pytest.LogCaptureFixture) -> None:
    profile = bytes(MAX_PROFILE + 1)
    assert not profiles.is_two_way(profile)
    with pytest.raises(ValueError, match="at most"):
        profiles.to_srgb(np.zeros((2, 2, 3), np.uint8), "RGB", profile)


def test_texts_are_inflated_up_to_a_limit(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        chunks = png.read_chunks(io.BytesIO(attacks.png_of_texts(50)))
    assert len(chunks.texts) == 3
    assert "the rest is left out" in caplog.text


def test_many_chunks_are_read_once_each() -> None:
    content = attacks.png_of_chunks(20_000)
    assert len(png.read_chunks(io.BytesIO(content)).head) > 20_000_000
    assert read_original(MemoryFile("a.png", content)).width == 8


def test_pieces_of_a_heic_are_counted(tmp_path: Path) -> None:
    content = attacks.heic_of_extents(sound_files(tmp_path)["a.heic"])
    with pytest.raises(FormatError, match="more than 100,000 pieces"):
        boxes.Boxes(content).check_whole()


@pytest.mark.parametrize("read", [lambda packet: xmp.without_claims(packet, False), xmp.promises_gain_map])
def test_xmp_is_read_in_one_pass(read: Callable[[bytes], object]) -> None:
    """Of 6 MB: a pattern that begins anew at each of 250,000 items would be at it for days."""
    read(attacks.xmp_of_lists(250_000))
