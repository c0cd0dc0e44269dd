"""Degradations, against scipy's convolution and noise statistics, the JPEG of Pillow and OpenCV, the haze equation."""

import io

import cv2
import numpy as np
import pytest
import scipy.ndimage
import torch
from PIL import Image

from components.photometry.attributes import difference
from components.photometry.blur import disc_kernel
from components.photometry.colour import linear_to_srgb, srgb_to_linear
from components.photometry.degradations import (
    defocus_blur,
    depth_cue,
    haze,
    jpeg,
    low_light,
    motion_blur,
    noise,
)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def grey(level: float, size: int = 256) -> torch.Tensor:
    """A flat patch of linear light ``level``."""
    return linear_to_srgb(torch.full((3, size, size), level))


def test_blur_happens_in_linear_light(photo):
    radius = 0.05
    kernel = disc_kernel(radius * 64).numpy()
    linear = scipy.ndimage.convolve(srgb_to_linear(photo.double()).numpy(), kernel[None], mode="reflect")
    np.testing.assert_allclose(defocus_blur(photo, radius), linear_to_srgb(torch.tensor(linear)), atol=1e-5)


@pytest.mark.parametrize("blur", [defocus_blur, lambda x, amount: motion_blur(x, amount, seeded(3))])
def test_blur_keeps_light_and_removes_detail_with_its_amount(photo, blur):
    def detail(image):
        return image.diff(dim=-1).abs().mean()

    assert detail(blur(photo, 0.1)) < detail(blur(photo, 0.03)) < detail(photo)
    mean = srgb_to_linear(photo).mean()
    assert srgb_to_linear(blur(photo, 0.1)).mean().item() == pytest.approx(mean.item(), rel=0.03)
    torch.testing.assert_close(blur(photo, 0.0), photo, rtol=0, atol=2e-5)


def test_blur_scales_with_the_picture(photo_factory):
    """The same operation on a picture twice the size looks the same once both have one size."""
    large = photo_factory(128, 192, seed=5)
    small = torch.nn.functional.avg_pool2d(srgb_to_linear(large)[None], 2)[0]
    for blur in (defocus_blur, lambda x, amount: motion_blur(x, amount, seeded(3))):
        shrunk = torch.nn.functional.avg_pool2d(srgb_to_linear(blur(large, 0.08))[None], 2)[0]
        blurred = srgb_to_linear(blur(linear_to_srgb(small), 0.08))
        assert (shrunk - blurred).abs().mean() < 0.15 * (blurred - small).abs().mean()


@pytest.mark.parametrize("level", [0.05, 0.18, 0.5])
@pytest.mark.parametrize("read_share", [0.0, 0.25, 1.0])
def test_noise_has_the_variance_of_the_poisson_gaussian_model(level, read_share):
    sigma = 0.008
    noisy = srgb_to_linear(noise(grey(level), sigma, seeded(), read_share)).double()
    expected = sigma**2 * ((1 - read_share) * level / 0.18 + read_share)
    assert noisy.mean().item() == pytest.approx(level, rel=2e-3)
    assert noisy.var().item() == pytest.approx(expected, rel=0.03)


def test_shot_noise_is_skewed_as_poisson_is():
    noisy = srgb_to_linear(noise(grey(0.1), 0.05, seeded(), read_share=0.0)).double().numpy()
    photons = 0.1 / (0.05**2 / 0.18)
    skewness = ((noisy - noisy.mean()) ** 3).mean() / noisy.std() ** 3
    assert skewness == pytest.approx(photons**-0.5, rel=0.05)


def test_no_noise_changes_nothing(photo):
    torch.testing.assert_close(noise(photo, 0.0, seeded()), photo, rtol=0, atol=2e-6)


@pytest.mark.parametrize("loss", [10.0, 85.0])
def test_jpeg_is_what_pillow_writes(photo_factory, loss):
    photos = torch.stack([photo_factory(seed=s) for s in range(2)])
    for photo, compressed in zip(photos, jpeg(photos, loss), strict=True):
        codes = (photo.numpy() * 255).round().astype(np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(np.moveaxis(codes, 0, -1)).save(buffer, "JPEG", quality=round(100 - loss))
        expected = np.moveaxis(np.asarray(Image.open(buffer)), -1, 0)
        assert np.array_equal((compressed.numpy() * 255).round(), expected)


@pytest.mark.parametrize("loss", [20.0, 70.0])
def test_jpeg_loses_what_opencv_loses(photo_factory, loss):
    photo = photo_factory(96, 128, seed=3)
    codes = np.moveaxis((photo.numpy() * 255).round().astype(np.uint8), 0, -1)
    options = [cv2.IMWRITE_JPEG_QUALITY, round(100 - loss), cv2.IMWRITE_JPEG_SAMPLING_FACTOR, 0x221111]
    _, encoded = cv2.imencode(".jpg", codes[..., ::-1], options)
    expected = np.moveaxis(cv2.imdecode(encoded, cv2.IMREAD_COLOR)[..., ::-1], -1, 0) / 255.0
    compressed = jpeg(photo, loss).numpy()
    assert np.abs(compressed - expected).mean() < 0.15 * np.abs(compressed - photo.numpy()).mean()


def test_depth_relief_is_bicubic_interpolation():
    grid = torch.rand((4, 4), generator=seeded(4), dtype=torch.float64)
    relief = torch.nn.functional.interpolate(grid[None, None], size=(50, 70), mode="bicubic", align_corners=False)[0, 0]
    rows = (torch.arange(50, dtype=torch.float64) + 0.5) / 50
    expected = (0.15 + 0.6 * (1 - rows)[:, None] + 0.5 * (relief - 0.5)).clamp(0, 1)
    torch.testing.assert_close(depth_cue(50, 70, seeded(4)), expected, rtol=0, atol=1e-12)


def test_haze_is_the_scattering_model(photo):
    depth = depth_cue(*photo.shape[-2:], seeded(4))
    transmission = np.exp(-1.2 * depth.numpy())
    expected = srgb_to_linear(photo.double()).numpy() * transmission + 0.7 * (1 - transmission)
    hazy = srgb_to_linear(haze(photo, 1.2, seeded(4), airlight=0.7))
    np.testing.assert_allclose(hazy, expected, atol=1e-5)
    torch.testing.assert_close(haze(photo, 0.0, seeded(4)), photo, rtol=0, atol=2e-6)


@pytest.mark.parametrize("seed", range(5))
def test_depth_is_far_at_the_top_and_the_same_at_every_size(seed):
    depth = depth_cue(60, 90, seeded(seed))
    assert depth.min() >= 0 and depth.max() <= 1
    assert depth[:20].mean() > depth[-20:].mean() + 0.1
    half = torch.nn.functional.avg_pool2d(depth[None], 2)[0]
    assert (half - depth_cue(30, 45, seeded(seed))).abs().max() < 0.03


def test_low_light_darkens_by_its_stops_and_keeps_the_noise_of_the_sensor(photo):
    dark = low_light(photo, 2.0, seeded(), sigma=0.0005)
    assert difference(photo, dark)["exposure"].item() == pytest.approx(-2.0, abs=0.05)
    codes = low_light(photo, 2.0, seeded()) * 255
    assert (codes - codes.round()).abs().max() < 1e-4, "8-bit code values"
    level, sigma = 0.4, 0.004
    noisy = srgb_to_linear(low_light(grey(level), 1.0, seeded(), sigma=sigma, read_share=0.25)).double()
    expected = sigma**2 * (0.75 * level / 2 / 0.18 + 0.25)
    step = 1 / 255 * 2.4 / 1.055 * ((linear_to_srgb(torch.tensor(level / 2)).item() + 0.055) / 1.055) ** 1.4
    assert noisy.var().item() == pytest.approx(expected + step**2 / 12, rel=0.05)


@pytest.mark.parametrize(
    "degrade",
    [
        lambda x: motion_blur(x, 0.2, seeded()),
        lambda x: defocus_blur(x, 0.1),
        lambda x: noise(x, 0.1, seeded()),
        lambda x: jpeg(x, 80.0),
        lambda x: haze(x, 2.0, seeded()),
        lambda x: low_light(x, 3.0, seeded()),
    ],
)
@pytest.mark.parametrize("size", [(1, 1), (1, 7), (40, 3)])
@pytest.mark.parametrize("value", [0.0, 1.0])
def test_every_size_and_extreme_stays_a_picture(degrade, size, value):
    degraded = degrade(torch.full((2, 3, *size), value))
    assert degraded.shape == (2, 3, *size) and degraded.dtype == torch.float32
    assert degraded.isfinite().all() and degraded.min() >= 0 and degraded.max() <= 1
