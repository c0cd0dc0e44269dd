"""A tiny random Artist whose latents are not already normal, and reasoning latents of different lengths."""

from pathlib import Path

import pytest
import torch

from components.artist.model import Artist
from components.critic.model import ReasoningLatent
from tests.tiny_models import WIDTH, write_base


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of untrained base models, `critic/` and `artist/`."""
    return write_base(tmp_path_factory.mktemp("base"))


@pytest.fixture
def artist(base: Path) -> Artist:
    loaded = Artist.load(base / "artist")
    channels = loaded.vae.config.z_dim
    loaded.vae.register_to_config(
        latents_mean=[0.1 * channel - 0.3 for channel in range(channels)],
        latents_std=[0.5 + 0.2 * channel for channel in range(channels)],
    )
    return Artist(loaded.transformer, loaded.vae, loaded.scheduler, loaded.area)


@pytest.fixture
def latent() -> ReasoningLatent:
    """Three latents of 9, 5 and 7 positions, right-padded with zeros."""
    states = torch.randn(3, 9, WIDTH, generator=torch.Generator().manual_seed(1))
    mask = torch.arange(9) < torch.tensor([9, 5, 7])[:, None]
    return ReasoningLatent(states * mask[..., None], mask)
