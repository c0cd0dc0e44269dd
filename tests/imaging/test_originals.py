"""Photos in their file's own samples, against the same work on float pixels and against Little CMS."""

from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
import torch
from PIL import Image, ImageCms

from components.imaging import originals
from components.imaging.originals import Original, read_original, write_original
from components.imaging.photo import Photo, read_photo, resize, write_photo
from components.inference.transfer import FieldEdit, apply_field, fit_field
from tests.conftest import make_photo


@pytest.fixture
def narrow_strips(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a small picture has many."""
    monkeypatch.setattr(originals, "_STRIP_SAMPLES", 3 * 70 * 7)


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif"])
@pytest.mark.parametrize("bit_depth", [8, 16])
def test_strips_give_what_the_whole_gives(narrow_strips, tmp_path: Path, suffix: str, bit_depth: int) -> None:
    write_photo(Photo(make_photo(50, 70), bit_depth=bit_depth), tmp_path / f"a.{suffix}")
    photo, original = read_photo(tmp_path / f"a.{suffix}"), read_original(tmp_path / f"a.{suffix}")
    assert len(list(original.strips())) > 5
    assert torch.equal(original.srgb(0, 50), photo.pixels)
    for size, reduced in zip(
        [(20, 28), (50, 70), (13, 9)], original.reduced([(20, 28), (50, 70), (13, 9)]), strict=True
    ):
        torch.testing.assert_close(reduced, resize(photo.pixels, size), rtol=0, atol=1e-5)
    small = resize(photo.pixels, (20, 28))
    field = fit_field(small, small * 0.7)
    for in_place in (False, True):
        edited = original.edited(FieldEdit(field, 50), in_place)
        top_level = 2**original.bit_depth - 1
        expected = (apply_field(photo.pixels, field) * top_level).round().permute(1, 2, 0).numpy()
        assert np.abs(edited.samples - expected).max() <= (0 if original.bit_depth == 8 else 1)


@pytest.mark.parametrize("shape", [(50, 70), (1, 9), (90, 1), (2, 2)])
@pytest.mark.parametrize("rows", [1, 7, 90])
def test_reduced_is_resized_in_strips_of_any_height(
    monkeypatch: pytest.MonkeyPatch, shape: tuple[int, int], rows: int
) -> None:
    monkeypatch.setattr(originals, "_STRIP_SAMPLES", 3 * shape[1] * rows)
    samples = np.random.default_rng(0).integers(0, 65536, (*shape, 3)).astype(np.uint16)
    whole = torch.from_numpy(samples.astype(np.float32) / 65535).permute(2, 0, 1)
    sizes = [(20, 28), (13, 9), (1, 1), (64, 80)]
    for size, reduced in zip(sizes, Original(samples, bit_depth=16).reduced(sizes), strict=True):
        torch.testing.assert_close(reduced, resize(whole, size), rtol=0, atol=1e-5)


@pytest.mark.slow
def test_a_picture_of_a_million_rows_is_reduced() -> None:
    (small,) = Original(np.full((1_000_000, 1, 3), 51, np.uint8)).reduced([(40, 8)])
    torch.testing.assert_close(small, torch.full((3, 40, 8), 0.2), rtol=0, atol=1e-4)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_original_is_upright(narrow_strips, tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    samples = (make_photo(30, 44) * 255).byte().permute(1, 2, 0).numpy()
    Image.fromarray(samples).save(tmp_path / "a.png", exif=exif)
    original = read_original(tmp_path / "a.png")
    assert torch.equal(original.srgb(0, original.height), read_photo(tmp_path / "a.png").pixels)
    write_original(original.edited(lambda strip, top: strip), tmp_path / "b.png")
    assert np.array_equal(np.asarray(Image.open(tmp_path / "b.png")), original.samples)


@pytest.mark.parametrize("kind", ["srgb", "adobergb"])
@pytest.mark.parametrize("deep", [False, True])
def test_colours_outside_of_srgb_survive(narrow_strips, tmp_path: Path, kind: str, deep: bool) -> None:
    profile = imagecodecs.cms_profile(kind)
    samples = np.random.default_rng(0).integers(0, 65536 if deep else 256, (40, 70, 3))
    samples = samples.astype(np.uint16 if deep else np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", samples, photometric="rgb", iccprofile=profile)
    original = read_original(tmp_path / "a.tif")
    outside = original.srgb(0, 40)
    assert (outside.min() < 0) == (kind == "adobergb")
    unchanged = original.edited(lambda strip, top: strip)
    assert np.abs(unchanged.samples.astype(int) - samples).max() <= (16 if deep else 0)
    write_original(unchanged, tmp_path / "b.tif")
    assert tifffile.TiffFile(tmp_path / "b.tif").pages[0].iccprofile == profile
    assert tifffile.imread(tmp_path / "b.tif").dtype == samples.dtype


def test_an_edit_in_a_wide_profile_is_the_edit_that_was_meant(tmp_path: Path) -> None:
    photo = Photo(make_photo(40, 60), icc=imagecodecs.cms_profile("adobergb"), bit_depth=16)
    write_photo(photo, tmp_path / "a.tif")
    original = read_original(tmp_path / "a.tif")
    write_original(original.edited(lambda strip, top: strip * 0.8), tmp_path / "b.tif")
    torch.testing.assert_close(read_photo(tmp_path / "b.tif").pixels, photo.pixels * 0.8, rtol=0, atol=2e-3)


def test_grey_cmyk_and_one_way_profiles_become_srgb(tmp_path: Path) -> None:
    picture = Image.fromarray((make_photo(30, 40) * 255).byte().permute(1, 2, 0).numpy())
    picture.convert("L").save(tmp_path / "grey.png")
    picture.convert("CMYK").save(tmp_path / "cmyk.jpg")
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    picture.save(tmp_path / "lab.png", icc_profile=lab)
    for name in ("grey.png", "cmyk.jpg", "lab.png"):
        original = read_original(tmp_path / name)
        assert original.samples.shape == (30, 40, 3)
        torch.testing.assert_close(original.srgb(0, 30), read_photo(tmp_path / name).pixels, rtol=0, atol=1e-6)


def test_alpha_and_depth_are_kept_where_the_format_has_them(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    samples = generator.integers(0, 65536, (20, 30, 3)).astype(np.uint16)
    alpha = generator.integers(0, 65536, (20, 30)).astype(np.uint16)
    original = Original(samples, alpha, bit_depth=16)
    for suffix in ("png", "tif"):
        write_original(original, tmp_path / f"a.{suffix}")
        again = read_original(tmp_path / f"a.{suffix}")
        assert np.array_equal(again.samples, samples) and np.array_equal(again.alpha, alpha)
    write_original(original, tmp_path / "a.webp", quality=100)
    with Image.open(tmp_path / "a.webp") as written:
        assert written.mode == "RGBA"
        assert np.array_equal(np.asarray(written)[..., 3], np.rint(alpha / 257).astype(np.uint8))
    with pytest.raises(ValueError, match="transparency"):
        write_original(original, tmp_path / "a.jpg")
