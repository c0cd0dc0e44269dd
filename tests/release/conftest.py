"""Trained-looking adapters of the tiny base models, for tests of the release's layout."""

from pathlib import Path

import pytest
import torch

from components.models.artist import Artist
from components.models.critic import Critic
from components.models.lora import LoraSettings, adapter_tensors


@pytest.fixture(scope="session")
def adapters(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`artist` (rank 8, alpha 4) and `critic` (rank 4, alpha 8), every tensor of them random."""
    out = tmp_path_factory.mktemp("adapters")
    for name, model, lora in (
        ("artist", Artist.load(base / "artist"), LoraSettings(rank=8, alpha=4)),
        ("critic", Critic.load(base / "critic"), LoraSettings(rank=4, alpha=8)),
    ):
        model.add_adapter(lora)
        module = model.transformer if name == "artist" else model.model
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for tensor in adapter_tensors(module).values():
                tensor.normal_(std=0.2, generator=generator)
        model.save_adapter(out / name)
    return out
