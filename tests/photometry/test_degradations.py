"""Degradations, against scipy's convolution, the noise model's own variance, Pillow's decoder and the haze equation."""

import io

import numpy as np
import pytest
import scipy.ndimage
import torch
from PIL import Image

from components.photometry.attributes import difference
from components.photometry.colour import linear_to_srgb, srgb_to_linear
from components.photometry.degradations import (
    convolve,
    defocus_blur,
    depth_cue,
    disc_kernel,
    haze,
    jpeg,
    low_light,
    motion_blur,
    noise,
    trajectory_kernel,
)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def grey(level: float, size: int = 256) -> torch.Tensor:
    """A flat patch of linear light ``level``."""
    return linear_to_srgb(torch.full((3, size, size), level))


@pytest.mark.parametrize("radius", [1, 4, 40])
def test_convolution_agrees_with_scipy_also_where_the_kernel_exceeds_the_picture(radius):
    image = torch.rand(2, 3, 19, 31, generator=seeded(), dtype=torch.float64)
    kernel = torch.rand(2 * radius + 1, 2 * radius + 1, generator=seeded(1), dtype=torch.float64)
    kernel /= kernel.sum()
    expected = scipy.ndimage.convolve(image.numpy(), kernel.numpy()[None, None], mode="reflect")
    np.testing.assert_allclose(convolve(image, kernel), expected, atol=1e-12)


@pytest.mark.parametrize("radius", [1.0, 2.5, 7.3])
def test_disc_covers_its_area(radius):
    kernel = disc_kernel(radius)
    assert kernel.sum().item() == pytest.approx(1.0)
    assert 1 / kernel.max().item() == pytest.approx(np.pi * radius**2, rel=0.07)
    # Area coverage of each pixel by 32 x 32 samples of the exact disc.
    reach = kernel.shape[0] // 2
    samples = (np.arange((2 * reach + 1) * 32) + 0.5) / 32 - reach - 0.5
    inside = (np.hypot(samples[:, None], samples[None, :]) <= radius).reshape(2 * reach + 1, 32, -1, 32).mean((1, 3))
    assert np.abs(kernel.numpy() - inside / inside.sum()).sum() < 0.05


def test_disc_of_no_radius_is_a_delta():
    kernel = disc_kernel(0.0)
    assert kernel[1, 1] == 1 and kernel.sum() == 1


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("length", [3.0, 20.0])
def test_trajectory_is_a_centred_path_of_its_length(seed, length):
    kernel = trajectory_kernel(length, seeded(seed)).numpy()
    assert kernel.sum() == pytest.approx(1.0) and (kernel >= 0).all()
    offsets = np.arange(kernel.shape[0]) - kernel.shape[0] // 2
    assert abs((kernel.sum(0) * offsets).sum()) < 1e-6 and abs((kernel.sum(1) * offsets).sum()) < 1e-6
    rows, columns = np.nonzero(kernel > 0)
    extent = np.hypot(np.ptp(rows), np.ptp(columns))
    assert extent <= length + 4, "no path reaches farther than its length"
    assert (kernel > 0.2 * kernel.max()).sum() >= 0.5 * length, "the path is drawn along its whole length"
    assert scipy.ndimage.label(kernel > 0, structure=np.ones((3, 3)))[1] == 1, "the path is connected"


def test_trajectories_differ_by_seed():
    assert trajectory_kernel(12.0, seeded(1)).shape != trajectory_kernel(12.0, seeded(2)).shape or not torch.equal(
        trajectory_kernel(12.0, seeded(1)), trajectory_kernel(12.0, seeded(2))
    )


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
