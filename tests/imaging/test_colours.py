"""Colours that a file tells by number: against colour-science, Little CMS and the standards' own figures."""

import struct
import zlib
from pathlib import Path

import colour
import imagecodecs
import numpy as np
import pillow_heif
import pytest
import tifffile
from PIL import ExifTags, Image

from components.imaging import profiles
from components.imaging.originals import read_original, write_original
from components.imaging.photo import UnreadablePhoto, read_header, read_photo
from tests.imaging.test_photo import exif_block, picture


def with_chunks(content: bytes, **chunks: bytes) -> bytes:
    """A PNG with chunks put before its pixels."""
    made = b"".join(
        struct.pack(">I", len(data)) + name.encode() + data + struct.pack(">I", zlib.crc32(name.encode() + data))
        for name, data in chunks.items()
    )
    return content[:33] + made + content[33:]


def png(path: Path, samples: np.ndarray, **chunks: bytes) -> Path:
    path.write_bytes(with_chunks(imagecodecs.png_encode(samples), **chunks))
    return path


def heic(path: Path, samples: np.ndarray, primaries: int, transfer: int) -> Path:
    height, width = samples.shape[:2]
    mode = "RGB;16" if samples.dtype == np.uint16 else "RGB"
    heif = pillow_heif.from_bytes(mode, (width, height), samples.tobytes())
    heif.save(path, quality=100, chroma=444, color_primaries=primaries, transfer_characteristics=transfer)
    return path


def test_display_p3_by_number_is_read_and_written_as_display_p3(tmp_path: Path) -> None:
    path = png(tmp_path / "a.png", picture(), cICP=bytes((12, 13, 0, 1)))
    original = read_original(path)
    inside = np.full((4, 4, 3), (0.5, 0.45, 0.4), np.float32)
    expected = colour.RGB_to_RGB(inside, "Display P3", "sRGB", apply_cctf_decoding=True, apply_cctf_encoding=True)
    assert np.abs(profiles.to_extended(inside, original.icc) - expected).max() < 1e-3
    write_original(original.edited(lambda strip, top: strip), tmp_path / "b.png")
    again = read_original(tmp_path / "b.png")
    assert again.icc == original.icc and np.array_equal(again.samples, picture())
    assert abs(read_photo(path).pixels.permute(1, 2, 0).numpy() - picture() / 255).max() > 0.02


@pytest.mark.parametrize("suffix", ["heic", "avif"])
def test_heic_and_avif_tell_display_p3_as_well(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    if suffix == "heic":
        heic(path, picture(48, 64), 12, 13)
    else:
        path.write_bytes(imagecodecs.avif_encode(picture(48, 64), level=100, primaries=12, transfer=13))
    assert read_original(path).icc == profiles.profile_of(12, 13)


def test_srgb_by_number_needs_no_profile(tmp_path: Path) -> None:
    assert read_original(png(tmp_path / "a.png", picture(), cICP=bytes((1, 13, 0, 1)))).icc is None
    assert read_original(heic(tmp_path / "a.heic", picture(48, 64), 1, 13)).icc is None


def test_curves_and_primaries_that_no_profile_tells_are_refused_with_the_reason(tmp_path: Path) -> None:
    for name, points, reason in (
        ("curve", (1, 11, 0, 1), "curve number 11"),
        ("primaries", (22, 13, 0, 1), "number 22"),
    ):
        with pytest.raises(UnreadablePhoto, match=reason):
            read_original(png(tmp_path / f"{name}.png", picture(), cICP=bytes(points)))


@pytest.mark.parametrize("gamma", [1.0, 1 / 1.8])
def test_gamma_is_shown_as_a_browser_shows_it(tmp_path: Path, gamma: float) -> None:
    original = read_original(png(tmp_path / "a.png", picture(), gAMA=struct.pack(">I", round(gamma * 100_000))))
    linear = (picture() / 255) ** (1 / gamma)
    expected = colour.cctf_encoding(linear, function="sRGB").transpose(2, 0, 1)
    assert np.abs(original.srgb(0, 24).numpy() - expected).max() < 2e-3


def test_a_gamma_like_srgbs_and_an_srgb_chunk_change_nothing(tmp_path: Path) -> None:
    linear = struct.pack(">I", 100_000)
    assert read_original(png(tmp_path / "a.png", picture(), gAMA=struct.pack(">I", 45_455))).icc is None
    assert read_original(png(tmp_path / "b.png", picture(), sRGB=b"\0", gAMA=linear)).icc is None


def test_chromaticities_are_the_primaries(tmp_path: Path) -> None:
    points = struct.pack(">8I", *(round(value * 100_000) for value in profiles.DISPLAY_P3))
    original = read_original(png(tmp_path / "a.png", picture(), gAMA=struct.pack(">I", 45_455), cHRM=points))
    red = np.float32([[[1, 0, 0]]])
    expected = profiles.to_extended(red, profiles.profile_of(12, 4))
    assert np.abs(profiles.to_extended(red, original.icc) - expected).max() < 1e-3


@pytest.mark.parametrize("suffix", ["jpg", "tif"])
def test_adobe_rgb_by_exif_alone(tmp_path: Path, suffix: str) -> None:
    exif = exif_block()
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.ColorSpace] = 2
    Image.fromarray(picture()).save(tmp_path / f"a.{suffix}", quality=95, exif=exif.tobytes())
    found = read_original(tmp_path / f"a.{suffix}").icc
    grid = np.random.default_rng(0).random((4, 5, 3)).astype(np.float32)
    expected = profiles.to_extended(grid, imagecodecs.cms_profile("adobergb"))
    assert np.abs(profiles.to_extended(grid, found) - expected).max() < 1e-3


@pytest.mark.parametrize(("transfer", "white"), [(16, 0.58068888), (18, 0.75)])
def test_hdr_becomes_sdr_by_the_standard(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, transfer: int, white: float
) -> None:
    """203 cd/m2 is HDR's reference white: 58% of PQ, 75% of HLG (ITU-R BT.2408, table 1)."""
    levels = np.array([0, white, 1.0])
    samples = np.rint(np.repeat(levels, 16)[None, :, None] * np.full((16, 1, 3), 65535)).astype(np.uint16)
    shown = []
    for path in (
        png(tmp_path / "a.png", samples, cICP=bytes((9, transfer, 0, 1))),
        heic(tmp_path / "a.heic", samples, 9, transfer),
    ):
        original = read_original(path)
        assert "HDR picture" in caplog.text
        assert original.icc == profiles.profile_of(9, 16)
        shown.append(original.samples[8, [8, 24, 40], 1] / 65535)
    for black, middle, top in shown:
        assert black < 0.01 and top > 0.99
        assert 0.88 < middle < 0.92  # BT.2390 keeps a fifth of the light for what is brighter than white


def test_hdr_that_is_dark_is_as_bright_as_it_was() -> None:
    """Below the knee of BT.2390's curve the light stays: 50 cd/m2 are 50 of SDR's 203."""
    level = colour.models.eotf_inverse_ST2084(50)
    samples = np.full((1, 1, 3), round(level * 65535), np.uint16)
    assert profiles.to_sdr(samples, 16)[0, 0, 0] / 65535 == pytest.approx(colour.cctf_encoding(50 / 203), abs=1e-3)


def test_hlg_is_shown_as_on_a_display() -> None:
    grey = np.full((1, 1, 3), round(0.4 * 65535), np.uint16)
    nits = 1000 * colour.models.oetf_inverse_BT2100_HLG(0.4) ** 1.2
    assert profiles.to_sdr(grey, 18)[0, 0, 0] / 65535 == pytest.approx(colour.cctf_encoding(nits / 203), abs=2e-3)


@pytest.mark.parametrize("points", [(12, 13), (9, 13), (11, 13), (1, 8), (12, 4)])
def test_the_profiles_are_sound_and_work_both_ways(points: tuple[int, int]) -> None:
    profile = profiles.profile_of(*points)
    imagecodecs.cms_profile_validate(profile)
    assert profiles.is_two_way(profile) and not profiles.is_srgb(profile)


def test_associated_alpha_of_16_bits_is_divided_out(tmp_path: Path) -> None:
    straight = picture().astype(np.uint16) * 257
    alpha = np.linspace(0, 65535, 36).astype(np.uint16)[None, :].repeat(24, 0)
    multiplied = np.rint(straight * (alpha[..., None] / 65535)).astype(np.uint16)
    samples = np.concatenate([multiplied, alpha[..., None]], axis=-1)
    tifffile.imwrite(tmp_path / "a.tif", samples, photometric="rgb", extrasamples=["assocalpha"])
    original = read_original(tmp_path / "a.tif")
    assert np.array_equal(original.alpha, alpha)
    seen = alpha > 6000
    assert np.abs(original.samples.astype(int) - straight)[seen].max() <= 65535 // 6000
    assert np.abs(original.samples.astype(int) - straight)[:, -1].max() == 0


def test_a_palette_of_8_bits_in_a_format_of_16_is_no_black_picture(tmp_path: Path) -> None:
    palette = np.random.default_rng(0).integers(0, 256, (3, 256))
    grey = picture()[..., 0]
    for name, scale in (("short.tif", 1), ("long.tif", 257)):
        tifffile.imwrite(tmp_path / name, grey, photometric="palette", colormap=(palette * scale).astype(np.uint16))
        assert np.array_equal(read_original(tmp_path / name).samples, palette.T[grey])


@pytest.mark.parametrize("bits", [8, 10])
def test_grey_avif_of_limited_range_has_its_levels(tmp_path: Path, bits: int) -> None:
    ramp = np.tile(np.linspace(0, 1, 64), (48, 1))
    scale = 2 ** (bits - 8)
    luma = np.rint((16 + 219 * ramp) * scale).astype(np.uint16 if bits > 8 else np.uint8)
    content = bytearray(imagecodecs.avif_encode(luma, level=100, bitspersample=bits, pixelformat=4))
    content[content.index(b"nclx") + 10] = 0  # full_range_flag
    (tmp_path / "a.avif").write_bytes(content)
    original = read_original(tmp_path / "a.avif")
    top = np.iinfo(original.samples.dtype).max
    assert np.abs(original.samples[..., 1] / top - ramp).max() < (0.01 if bits == 8 else 0.001)


@pytest.mark.parametrize("bits", [10, 12])
@pytest.mark.parametrize("with_alpha", [False, True])
def test_avif_of_10_and_12_bits_keeps_them(tmp_path: Path, bits: int, with_alpha: bool) -> None:
    """Values between the levels of 8 bits, in a format of 16, are there again in a PNG."""
    top, channels = 2**bits - 1, 4 if with_alpha else 3
    values = np.random.default_rng(0).integers(0, top + 1, (48, 64, channels)).astype(np.uint16)
    (tmp_path / "a.avif").write_bytes(imagecodecs.avif_encode(values, level=100, bitspersample=bits))
    decoded = imagecodecs.avif_decode((tmp_path / "a.avif").read_bytes())
    assert np.array_equal(decoded, values), "the file is lossless"
    assert read_header(tmp_path / "a.avif").bit_depth == 16
    write_original(read_original(tmp_path / "a.avif"), tmp_path / "b.png")
    written = imagecodecs.png_decode((tmp_path / "b.png").read_bytes())
    assert np.abs(written - values / top * 65535).max() < 1
