"""What all tests share: threads for workers, and synthetic photos, so that tests need no data beside the code."""

import os
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from components.photometry.colour import linear_to_srgb


def pytest_configure(config: pytest.Config) -> None:
    """A worker of pytest-xdist computes with one thread, as does what it starts: each has its core."""
    if hasattr(config, "workerinput"):  # only workers have it
        os.environ["OMP_NUM_THREADS"] = "1"
        torch.set_num_threads(1)


def make_photo(height: int = 64, width: int = 96, seed: int = 0) -> Tensor:
    """A natural-looking float32 photo (3, H, W) in sRGB: smooth illumination, coloured surfaces, fine texture.

    Spectra of natural photos fall as 1/f, so the surfaces are random grids enlarged from coarse to fine with falling
    weight. Linear light stays in about [0.03, 0.6] and the mean is near grey, so moderate retouching does not clip.
    """
    generator = torch.Generator().manual_seed(seed)
    light, colour = torch.zeros(1, height, width), torch.zeros(3, height, width)
    for cells in (2, 4, 8, 16, 32):
        shape = (1, 4, min(cells, height), min(cells, width))
        grid = torch.randn(shape, generator=generator)
        layer = functional.interpolate(grid, size=(height, width), mode="bilinear", align_corners=False)[0] / cells**0.7
        light, colour = light + layer[:1], colour + layer[1:]
    colour = colour - colour.mean(0, keepdim=True) - (colour - colour.mean(0, keepdim=True)).mean((-2, -1), True)
    ev = (0.8 * light / light.std().clamp(min=1e-6)).clamp(-1.8, 1.4)
    return linear_to_srgb((0.18 * torch.exp2(ev) * torch.exp2(0.25 * colour.clamp(-1.5, 1.5))).clamp(0.02, 0.7))


@pytest.fixture
def photo_factory() -> Callable[..., Tensor]:
    """``make_photo(height=64, width=96, seed=0)``: as many different synthetic photos as a test wants."""
    return make_photo


@pytest.fixture
def photo() -> Tensor:
    """One synthetic photo, float32 (3, 64, 96), sRGB in [0, 1]."""
    return make_photo()
