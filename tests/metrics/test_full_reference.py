"""The error measures against independent implementations, and LPIPS for what it must satisfy."""

import math
from functools import partial
from pathlib import Path

import lpips
import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from skimage.color import deltaE_ciede2000, rgb2lab
from torch import Tensor

from components.metrics.full_reference import (
    LOWER_IS_BETTER,
    UNITS,
    Lpips,
    ciede2000,
    measure_case,
    photometric_errors,
    psnr,
    ssim,
)
from components.photometry.operations import Operation, apply_operations


@pytest.fixture
def noisy(photo: Tensor) -> Tensor:
    return (photo + 0.05 * torch.randn(photo.shape, generator=torch.Generator().manual_seed(0))).clamp(0, 1)


def array(picture: Tensor) -> np.ndarray:
    return picture.permute(1, 2, 0).double().numpy()


def test_ciede2000_agrees_with_scikit_image(photo: Tensor, noisy: Tensor) -> None:
    reference = deltaE_ciede2000(rgb2lab(array(noisy)), rgb2lab(array(photo))).mean()
    assert ciede2000(noisy, photo) == pytest.approx(reference, rel=2e-3)
    assert ciede2000(photo, photo) == 0


def test_psnr_is_its_definition(photo: Tensor, noisy: Tensor) -> None:
    expected = -10 * math.log10(((array(noisy) - array(photo)) ** 2).mean())
    assert psnr(noisy, photo) == pytest.approx(expected, rel=1e-6)
    assert psnr(photo, photo) == 100


def test_ssim_is_that_of_wang_et_al(photo: Tensor, noisy: Tensor) -> None:
    """Formula 13 of Wang et al. (2004) with scipy's Gaussian filter, away from the border."""
    values = []
    for x, y in zip(noisy.double().numpy(), photo.double().numpy(), strict=True):
        blur = partial(gaussian_filter, sigma=1.5, truncate=3.5)
        mx, my = blur(x), blur(y)
        vx, vy, cxy = blur(x * x) - mx**2, blur(y * y) - my**2, blur(x * y) - mx * my
        c1, c2 = 0.01**2, 0.03**2
        index = ((2 * mx * my + c1) * (2 * cxy + c2)) / ((mx**2 + my**2 + c1) * (vx + vy + c2))
        values.append(index[5:-5, 5:-5].mean())
    assert ssim(noisy, photo) == pytest.approx(np.mean(values), abs=1e-4)
    assert ssim(photo, photo) == pytest.approx(1)


def test_photometric_errors_are_the_amounts_of_the_fault(photo: Tensor) -> None:
    faulty = apply_operations(photo, [Operation(name="exposure", amount=-0.4)])
    assert photometric_errors(faulty, photo)["exposure_error"] == pytest.approx(0.4, abs=1e-3)
    assert all(value == 0 for value in photometric_errors(photo, photo).values())


@pytest.mark.slow
def test_lpips_is_that_of_the_package_with_the_weights_of_the_file(
    backbone: Path, photo: Tensor, noisy: Tensor
) -> None:
    ours = Lpips(backbone)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        theirs = lpips.LPIPS(net="alex", pnet_rand=True, verbose=False).eval()
    expected = theirs(noisy[None] * 2 - 1, photo[None] * 2 - 1)
    torch.testing.assert_close(ours(noisy[None], photo[None]), expected.flatten(), rtol=2e-3, atol=1e-4)
    assert ours(photo[None], photo[None]).item() == 0
    torch.testing.assert_close(
        ours(torch.stack([photo, noisy]), torch.stack([photo, photo]))[1], ours(noisy[None], photo[None])[0]
    )


@pytest.mark.slow
def test_lpips_takes_small_pictures_and_gives_gradients(backbone: Path) -> None:
    small = torch.rand(1, 3, 16, 24, generator=torch.Generator().manual_seed(0)).requires_grad_()
    Lpips(backbone)(small, torch.zeros(1, 3, 16, 24)).sum().backward()
    assert small.grad.abs().sum() > 0


@pytest.mark.slow
def test_lpips_does_not_touch_the_global_generator(backbone: Path) -> None:
    torch.manual_seed(7)
    expected = torch.rand(1)
    torch.manual_seed(7)
    Lpips(backbone)
    assert torch.equal(torch.rand(1), expected)


def test_a_missing_backbone_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="dvc pull"):
        Lpips(tmp_path / "none.safetensors")


@pytest.mark.slow
def test_a_case_has_every_measure(backbone: Path, photo: Tensor, noisy: Tensor) -> None:
    measured = measure_case(noisy, photo, Lpips(backbone))
    assert list(measured) == list(LOWER_IS_BETTER) == list(UNITS)
    assert all(math.isfinite(value) for value in measured.values())


def test_pictures_of_other_shapes_are_refused(backbone: Path, photo: Tensor) -> None:
    with pytest.raises(ValueError, match=r"same shape .* \(3, 64, 95\)"):
        measure_case(photo[..., 1:], photo, Lpips(backbone))
