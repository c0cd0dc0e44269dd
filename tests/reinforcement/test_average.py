"""Stage III that ends with the average of its weights: other adapters than the last ones, the same after a resume."""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from components.reinforcement.coordinated import reinforce
from tests.recording import RecordingTracker
from tests.stage_three import SETTINGS, Inputs, reading_by_hash

pytestmark = pytest.mark.slow


def trained(inputs: Inputs, out: Path, average_decay: float) -> dict[str, Tensor]:
    """Both adapters of a stage III."""
    settings = SETTINGS.model_copy(update={"average_decay": average_decay})
    with reading_by_hash():
        reinforce(*inputs, out, settings, RecordingTracker(), out / "checkpoints")
    return {
        f"{module}.{name}": tensor
        for module in ("critic", "artist")
        for name, tensor in load_file(out / module / "adapter_model.safetensors").items()
    }


def test_a_stage_may_end_with_the_average_of_its_weights(inputs: Inputs, tmp_path: Path) -> None:
    last, averaged = (trained(inputs, tmp_path / str(decay), decay) for decay in (0.0, 0.5))
    shutil.copytree(tmp_path / "0.5" / "checkpoints", tmp_path / "again" / "checkpoints")
    again = trained(inputs, tmp_path / "again", 0.5)
    for module in ("critic", "artist"):
        names = [name for name in last if name.startswith(module)]
        assert not all(torch.equal(last[name], averaged[name]) for name in names)
        assert all(torch.equal(averaged[name], again[name]) for name in names)
