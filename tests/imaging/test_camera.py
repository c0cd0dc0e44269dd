"""Pictures as cameras and phones store them, HEIC and raw: against libheif's own reading and known raw samples."""

from pathlib import Path

import colour
import imagecodecs
import numpy as np
import pillow_heif
import pytest
import tifffile
import torch
from PIL import ExifTags, Image

from components.imaging.photo import Photo, decode, read_header, read_photo, write_photo
from tests.imaging.test_photo import as_uint8, exif_block, picture
from tests.raw_files import write_dng


@pytest.mark.parametrize("deep", [False, True])
def test_heic_is_read_and_written_with_what_it_carries(tmp_path: Path, deep: bool) -> None:
    samples = picture(48, 64)
    profile = imagecodecs.cms_profile("adobergb")
    heif = pillow_heif.from_bytes(
        "RGB;16" if deep else "RGB", (64, 48), (samples.astype(np.uint16) * 257 if deep else samples).tobytes()
    )
    heif.info["icc_profile"] = profile
    heif.save(tmp_path / "a.heic", quality=95, exif=exif_block(6).tobytes())
    photo = read_photo(tmp_path / "a.heic")
    assert (photo.width, photo.height, photo.format) == (24 * 2, 32 * 2, "HEIF")  # turned by libheif
    assert photo.bit_depth == (16 if deep else 8)
    assert photo.icc == profile
    write_photo(photo, tmp_path / "b.heic")
    again = pillow_heif.open_heif(tmp_path / "b.heic", convert_hdr_to_8bit=False)
    assert again.size == (48, 64) and again.info["bit_depth"] == (10 if deep else 8)
    assert again.info["icc_profile"] == profile
    kept = Image.Exif()
    kept.load(again.info["exif"])
    assert kept[ExifTags.Base.Make] == "Contax"
    assert (read_photo(tmp_path / "b.heic").pixels - photo.pixels).abs().mean() < 0.03
    if deep:
        white = pillow_heif.from_bytes("RGB;16", (16, 16), b"\xff" * (16 * 16 * 6))
        white.save(tmp_path / "white.heic", quality=100)
        assert read_photo(tmp_path / "white.heic").pixels.min() > 0.995


def test_a_heic_without_suffix_is_known_by_its_content(tmp_path: Path) -> None:
    write_photo(Photo(torch.rand(3, 16, 16)), tmp_path / "a.heic")
    (tmp_path / "photo").write_bytes((tmp_path / "a.heic").read_bytes())
    assert read_header(tmp_path / "photo").format == "HEIF"


@pytest.mark.parametrize("orientation", [1, 6])
def test_raw_is_developed_as_shot(tmp_path: Path, orientation: int) -> None:
    linear = write_dng(tmp_path / "a.dng", orientation)
    photo = read_photo(tmp_path / "a.dng")
    assert (photo.format, photo.bit_depth) == ("RAW", 16)
    assert read_header(tmp_path / "a.dng").width == photo.width
    pixels = photo.pixels.numpy()
    if orientation == 6:
        pixels = np.rot90(pixels, 1, axes=(1, 2))
    expected = colour.cctf_encoding(linear, function="sRGB").transpose(2, 0, 1)
    centre = (slice(None), slice(8, -8), slice(8, -8))  # away from the border of the demosaicking
    assert np.abs(pixels[centre] - expected[centre]).mean() < 0.02
    exif = Image.Exif()
    exif.load(photo.exif)
    assert exif[ExifTags.Base.Make] == "Contax"
    write_photo(photo, tmp_path / "b.tif")
    assert tifffile.imread(tmp_path / "b.tif").dtype == np.uint16
    write_photo(photo, tmp_path / "b.jpg")
    assert Image.open(tmp_path / "b.jpg").getexif()[ExifTags.Base.Make] == "Contax"


def test_the_white_balance_of_raw_is_known(tmp_path: Path) -> None:
    write_dng(tmp_path / "a.dng", 1)
    assert decode(tmp_path / "a.dng").white_kelvin == pytest.approx(6504, rel=0.02)  # grey in D65: see write_dng


def test_a_dng_is_raw_by_any_name(tmp_path: Path) -> None:
    write_dng(tmp_path / "a.tif", 1)
    assert read_header(tmp_path / "a.tif").format == "RAW"


RATIONAL_ORIGIN, SHORT_ORIGIN = (50719, "2I", 2, (4, 1, 6, 1), True), (50719, "H", 2, (4, 6), True)
"""DefaultCropOrigin: left, top."""
RATIONAL_SIZE, LONG_SIZE = (50720, "2I", 2, (50, 1, 38, 1), True), (50720, "I", 2, (50, 38), True)
"""DefaultCropSize: width, height."""


@pytest.mark.parametrize(
    ("orientation", "crop"),
    [
        (1, [RATIONAL_ORIGIN, RATIONAL_SIZE]),
        (6, [RATIONAL_ORIGIN, RATIONAL_SIZE]),
        (1, [RATIONAL_ORIGIN, LONG_SIZE]),
        (1, [SHORT_ORIGIN, RATIONAL_SIZE]),
        (1, [SHORT_ORIGIN, LONG_SIZE]),
    ],
)
def test_a_dng_is_shown_as_its_maker_frames_it(tmp_path: Path, orientation: int, crop: list[tuple]) -> None:
    write_dng(tmp_path / "whole.dng", orientation)
    write_dng(tmp_path / "cropped.dng", orientation, tags=crop)
    whole, cropped = (as_uint8(read_photo(tmp_path / name).pixels) for name in ("whole.dng", "cropped.dng"))
    turns = 1 if orientation == 6 else 0
    expected = np.rot90(np.rot90(whole, turns)[6 : 6 + 38, 4 : 4 + 50], -turns)
    assert np.array_equal(cropped, expected)
    header = read_header(tmp_path / "cropped.dng")
    assert (header.height, header.width) == cropped.shape[:2]


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("depth", [np.uint8, np.uint16])
def test_a_bigtiff_is_a_tiff_in_either_order_of_bytes(tmp_path: Path, order: str, depth: type) -> None:
    samples = picture(48, 64).astype(depth) * (1 if depth is np.uint8 else 257)
    tags = [(271, "s", 0, "Canon", True)]
    options = {"photometric": "rgb", "extratags": tags, "software": False, "metadata": None}
    tifffile.imwrite(tmp_path / "big.tif", samples, bigtiff=True, byteorder=order, **options)
    photo = read_photo(tmp_path / "big.tif")
    assert np.array_equal(as_uint8(photo.pixels), picture(48, 64)) and photo.format == "TIFF"
    kept = Image.Exif()
    kept.load(photo.exif)
    assert kept[271] == "Canon"
    assert read_header(tmp_path / "big.tif").bit_depth == 8 * samples.itemsize


def test_the_preview_of_a_raw_file_is_never_taken_for_the_photo(tmp_path: Path) -> None:
    """Neither its tags nor its name say DNG: a picture comes first, and a sensor's samples lie within it."""
    with tifffile.TiffWriter(tmp_path / "photo") as tiff:
        tiff.write(picture(8, 12), photometric="rgb", subfiletype=1, subifds=1, metadata=None, software=False)
        tiff.write(np.zeros((48, 64), np.uint16), photometric=32803, metadata=None, software=False)
    header, photo = read_header(tmp_path / "photo"), read_photo(tmp_path / "photo")
    assert (header.format, photo.width, photo.height) == ("RAW", 64, 48)
