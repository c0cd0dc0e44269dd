"""What all tests share: threads for workers, synthetic photos, tiny models; no test needs data beside the code."""

import functools
import importlib.metadata
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from components.photometry.colour import linear_to_srgb

if TYPE_CHECKING:  # tests of photos and files load no models
    from components.models.artist import Artist
    from components.models.critic import Critic, ReasoningLatent
    from tests.stage_three import Inputs


def pytest_configure(config: pytest.Config) -> None:
    """A worker of pytest-xdist computes with one thread, as does what it starts: each has its core.

    Three libraries read the records of all installed distributions when they are imported; here it is done once.
    """
    importlib.metadata.packages_distributions = functools.cache(importlib.metadata.packages_distributions)
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


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository, where processes that the tests start find the packages."""
    return Path(__file__).parent.parent


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of untrained base models, `critic/` and `artist/`."""
    from tests.tiny_models import write_base

    return write_base(tmp_path_factory.mktemp("base"))


@pytest.fixture
def critic(base: Path) -> "Critic":
    """A tiny random Critic."""
    from components.models.critic import Critic

    return Critic.load(base / "critic")


@pytest.fixture(scope="session")
def photos() -> list[Tensor]:
    """Three photos whose prompts differ in length."""
    return [make_photo(64, 96, seed=0), make_photo(112, 112, seed=1), make_photo(56, 60, seed=2)]


@pytest.fixture
def artist(base: Path) -> "Artist":
    """A tiny random Artist whose latents are not already normal."""
    from components.models.artist import Artist

    loaded = Artist.load(base / "artist")
    channels = loaded.vae.config.z_dim
    loaded.vae.register_to_config(
        latents_mean=[0.1 * channel - 0.3 for channel in range(channels)],
        latents_std=[0.5 + 0.2 * channel for channel in range(channels)],
    )
    return Artist(loaded.transformer, loaded.vae, loaded.scheduler, loaded.area)


@pytest.fixture
def latent() -> "ReasoningLatent":
    """Three reasoning latents of 9, 5 and 7 positions, right-padded with zeros."""
    from components.models.critic import ReasoningLatent
    from tests.tiny_models import WIDTH

    states = torch.randn(3, 9, WIDTH, generator=torch.Generator().manual_seed(1))
    mask = torch.arange(9) < torch.tensor([9, 5, 7])[:, None]
    return ReasoningLatent(states * mask[..., None], mask)


@pytest.fixture(scope="session")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> "Inputs":
    """What stage III starts from: tiny models, adapters that already know something, pairs."""
    from tests.stage_three import write_inputs

    return write_inputs(tmp_path_factory.mktemp("inputs"))
