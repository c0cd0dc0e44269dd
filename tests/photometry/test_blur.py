"""Kernels and convolution, against scipy, areas by sampling, and the model of camera shake step by step."""

import numpy as np
import pytest
import scipy.ndimage
import torch

from components.photometry.blur import Convolver, convolve, disc_kernel, shake_trajectory, trajectory_kernel


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


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
@pytest.mark.parametrize("extent", [3.0, 20.0])
def test_trajectory_is_a_centred_path_of_its_extent(seed, extent):
    kernel = trajectory_kernel(extent, seeded(seed)).numpy()
    assert kernel.sum() == pytest.approx(1.0) and (kernel >= 0).all()
    offsets = np.arange(kernel.shape[0]) - kernel.shape[0] // 2
    assert abs((kernel.sum(0) * offsets).sum()) < 1e-6 and abs((kernel.sum(1) * offsets).sum()) < 1e-6
    rows, columns = np.nonzero(kernel > 1e-9)
    points = np.stack((rows, columns), axis=-1)
    farthest = np.linalg.norm(points[:, None] - points[None], axis=-1).max()
    assert extent - 1.5 <= farthest <= extent + 3, "from end to end, but for the pixels that a point is spread over"
    assert scipy.ndimage.label(kernel > 0, structure=np.ones((3, 3)))[1] == 1, "the path is connected"


def test_trajectories_differ_by_seed():
    assert trajectory_kernel(12.0, seeded(1)).shape != trajectory_kernel(12.0, seeded(2)).shape or not torch.equal(
        trajectory_kernel(12.0, seeded(1)), trajectory_kernel(12.0, seeded(2))
    )


@pytest.mark.parametrize("seed", range(4))
def test_shake_follows_the_published_process(seed):
    """The reference is DeblurGAN's loop in numpy's complex numbers, given the same draws."""
    generator = seeded(seed)
    explosive, centripetal, big_shake, gaussian, angle = torch.rand(5, generator=generator, dtype=torch.float64).numpy()
    explosive, centripetal, big_shake, gaussian = 0.1 * explosive, 0.7 * centripetal, 0.2 * big_shake, 10 * gaussian
    chances = torch.rand((2, 2000), generator=generator, dtype=torch.float64).numpy()
    normals = torch.randn((2000, 2), generator=generator, dtype=torch.float64).numpy()
    step = 60 / 1999
    x = np.zeros(2000, dtype=complex)
    v = np.exp(2j * np.pi * angle) * step
    for t in range(1999):
        next_direction = 0
        if chances[0, t + 1] < big_shake * explosive:
            next_direction = 2 * v * np.exp(1j * (np.pi + (chances[1, t + 1] - 0.5)))
        dv = next_direction + explosive * (gaussian * complex(*normals[t + 1]) - centripetal * x[t]) * step
        v = (v + dv) / abs(v + dv) * step
        x[t + 1] = x[t] + v
    x -= x.mean()
    path = shake_trajectory(seeded(seed)).numpy()
    scale = np.linalg.norm(path, axis=-1).max() / np.abs(x).max()
    np.testing.assert_allclose(path, scale * np.stack((x.real, x.imag), axis=-1), atol=1e-9)
    distances = np.linalg.norm(path[::10, None] - path[None, ::10], axis=-1)
    assert distances.max() == pytest.approx(1, abs=0.02)
    steps = np.linalg.norm(np.diff(path, axis=0), axis=-1)
    assert steps.max() == pytest.approx(steps.min()), "one speed"


def test_shakes_range_from_steady_to_nervous():
    """Straight drifts and tangled shakes both occur: extent over length spreads widely."""
    lengths = [np.linalg.norm(np.diff(shake_trajectory(seeded(s)).numpy(), axis=0), axis=-1).sum() for s in range(12)]
    assert min(lengths) < 2.5 and max(lengths) > 4, lengths


@pytest.mark.parametrize("size", [(19, 31), (64, 97)])
def test_one_spectrum_serves_kernels_of_every_size(size):
    image = torch.rand(2, *size, generator=seeded(), dtype=torch.float64)
    gather = Convolver(image, 9)
    for radius in (0.0, 3.3, 8.4):
        kernel = disc_kernel(radius)
        expected = scipy.ndimage.convolve(image.numpy(), kernel.numpy()[None], mode="reflect")
        np.testing.assert_allclose(gather(kernel), expected, atol=1e-12)
