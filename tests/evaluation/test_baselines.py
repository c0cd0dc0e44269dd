"""The classical corrections: each against its definition, and all of them for range and shape."""

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor

from components.evaluation.baselines import (
    BASELINES,
    auto_contrast,
    clahe,
    grey_world,
    histogram_equalisation,
    unsharp_mask,
)
from components.photometry.colour import srgb_to_lab, srgb_to_linear
from components.photometry.operations import Operation, apply_operations


@pytest.mark.parametrize("name", BASELINES)
def test_every_baseline_keeps_shape_range_and_input(name: str, photo: Tensor) -> None:
    before = photo.clone()
    result = BASELINES[name](photo)
    assert result.shape == photo.shape and result.dtype == torch.float32
    assert result.min() >= 0 and result.max() <= 1
    assert torch.equal(photo, before)
    assert not torch.equal(result, photo)


@pytest.mark.parametrize("name", BASELINES)
@pytest.mark.parametrize("level", [0.0, 0.5, 1.0])
def test_every_baseline_survives_a_flat_picture(name: str, level: float) -> None:
    assert BASELINES[name](torch.full((3, 32, 48), level)).isfinite().all()


def test_auto_contrast_stretches_the_quantiles_to_the_whole_range(photo: Tensor) -> None:
    result = auto_contrast(photo)
    for before, after in zip(photo, result, strict=True):
        levels = (before * 255).round().numpy()
        low, high = np.quantile(levels, [0.005, 0.995])
        expected = np.clip((levels - low) / (high - low), 0, 1)
        assert np.abs(expected - after.numpy()).mean() < 0.01


def test_grey_world_makes_the_mean_of_linear_light_grey(photo: Tensor) -> None:
    cast = apply_operations(photo, [Operation(name="temperature", amount=40)])
    means = srgb_to_linear(grey_world(cast)).mean((-2, -1))
    torch.testing.assert_close(means, means.mean().expand(3), rtol=5e-3, atol=0)
    torch.testing.assert_close(means.mean(), srgb_to_linear(cast).mean(), rtol=5e-3, atol=0)


def test_equalisation_flattens_the_histogram_of_luma(photo: Tensor) -> None:
    luma = torch.tensor([0.299, 0.587, 0.114]) @ histogram_equalisation(photo).flatten(1)
    quantiles = torch.quantile(luma, torch.linspace(0.1, 0.9, 9))
    torch.testing.assert_close(quantiles, torch.linspace(0.1, 0.9, 9), rtol=0, atol=0.05)


def test_clahe_raises_local_contrast(photo: Tensor) -> None:
    flat = apply_operations(photo, [Operation(name="contrast", amount=-1.0)])
    spread = [srgb_to_lab(picture)[0, :16, :16].std() for picture in (flat, clahe(flat))]
    assert spread[1] > 1.2 * spread[0]


def test_unsharp_mask_adds_what_blurring_takes_away(photo: Tensor) -> None:
    detail = photo[0].numpy() - gaussian_filter(photo[0].numpy(), 2)
    added = (unsharp_mask(photo)[0] - photo[0]).numpy()
    clear = np.abs(detail) > 5 / 255  # the mask's threshold is 3 levels
    assert clear.sum() > 50
    assert np.corrcoef(detail[clear], added[clear])[0, 1] > 0.95
