"""EXIF of raw files by their makers' ways, in files made by hand around blocks that Pillow wrote."""

import io
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image

from components.imaging.metadata import EXIF_PREFIX, made_block
from components.imaging.photo import Photo, read_photo, write_photo
from components.imaging.raw_metadata import raw_exif
from components.imaging.source import MemoryFile, Source
from tests.imaging.test_photo import exif_block, picture
from tests.raw_files import write_dng

DATE = "2026:05:01 10:11:12"


def block() -> bytes:
    exif = exif_block()
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.DateTimeOriginal] = DATE
    return exif.tobytes()


def source(content: bytes) -> Source:
    return Source(MemoryFile("a.raw", content))


def check(found: bytes | None) -> None:
    exif = Image.Exif()
    exif.load(found)
    assert exif[ExifTags.Base.Make] == "Contax"
    assert exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.DateTimeOriginal] == DATE
    assert exif.get_ifd(ExifTags.IFD.GPSInfo)[1] == "N"


@pytest.mark.parametrize("magic", [b"IIRO", b"IIRS", b"IIU\0"])
def test_panasonic_and_olympus_are_tiff_but_for_their_first_bytes(magic: bytes) -> None:
    stream = io.BytesIO()
    Image.fromarray(picture()).save(stream, "TIFF", exif=block())
    check(raw_exif(source(magic + stream.getvalue()[4:]), None))


@pytest.mark.parametrize("start", [b"FUJIFILMCCD-RAW ", b"FOVb" + bytes(12), b"II\x1a\0\0\0HEAPCCDR\2\0"])
def test_others_have_a_preview_that_tells(start: bytes) -> None:
    stream = io.BytesIO()
    Image.fromarray(picture()).save(stream, "JPEG", exif=block())
    check(raw_exif(source(start + bytes(50)), stream.getvalue()))
    assert raw_exif(source(start), None) is None
    assert raw_exif(source(start), b"no JPEG") is None


@pytest.mark.filterwarnings("ignore:Corrupt EXIF", "ignore:Truncated File")
def test_canons_boxes_have_a_block_for_each_directory() -> None:
    def box(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I4s", 8 + len(data), kind) + data

    parts = {
        b"CMT1": made_block({ExifTags.Base.Make: "Contax", ExifTags.Base.ImageWidth: 9}, {}),
        b"CMT2": made_block({ExifTags.Base.DateTimeOriginal: DATE}, {}),
        b"CMT4": made_block({1: "N"}, {}),
    }
    uuid = bytes.fromhex("85c0b687820f11e08111f4ce462b6a48")
    moov = box(b"moov", box(b"uuid", uuid + b"".join(box(kind, data) for kind, data in parts.items())))
    content = box(b"ftyp", b"crx " + bytes(8)) + moov
    check(raw_exif(source(content), None))
    for end in range(20, len(content), 7):
        raw_exif(source(content[:end]), None)


def test_what_is_developed_to_srgb_does_not_say_adobe_rgb(tmp_path: Path) -> None:
    exif = exif_block()
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.ColorSpace] = 2
    photo = Photo(read_photo(write_and_name(tmp_path)).pixels, exif=exif.tobytes().removeprefix(EXIF_PREFIX))
    write_photo(photo, tmp_path / "a.jpg", quality=100)
    assert np.abs((read_photo(tmp_path / "a.jpg").pixels - photo.pixels).numpy()).mean() < 0.01
    written = Image.open(tmp_path / "a.jpg")
    assert written.getexif().get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.ColorSpace] == 1


def write_and_name(folder: Path) -> Path:
    write_dng(folder / "a.dng", 1)
    return folder / "a.dng"
