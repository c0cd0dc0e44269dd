"""Stage III after stages that trained weights in full: it trains adapters on top of them."""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from components.models.artist import Artist
from components.models.critic import Critic
from components.models.weights import WEIGHTS_FILE
from components.reinforcement.coordinated import reinforce
from tests.recording import RecordingTracker
from tests.stage_three import SETTINGS, Inputs, reading_by_hash

PARTS = {"critic": "model.language_model.layers.", "artist": "transformer_blocks."}


def with_whole_weights(inputs: Inputs, factor: float, out: Path) -> Inputs:
    """The adapters with a file of weights beside each: those of the base model times ``factor``."""
    models = {
        "critic": Critic.load(inputs.base / "critic").model,
        "artist": Artist.load(inputs.base / "artist").transformer,
    }
    for name, adapter in (("critic", inputs.critic_adapter), ("artist", inputs.artist_adapter)):
        shutil.copytree(adapter, out / name)
        weights = {
            key: value * factor for key, value in models[name].state_dict().items() if key.startswith(PARTS[name])
        }
        save_file(weights, out / name / WEIGHTS_FILE)
    return inputs._replace(critic_adapter=out / "critic", artist_adapter=out / "artist")


def trained(inputs: Inputs, out: Path) -> dict[str, dict[str, torch.Tensor]]:
    """Adapters after an iteration."""
    with reading_by_hash():
        reinforce(*inputs, out, SETTINGS.model_copy(update={"iterations": 1}), RecordingTracker(), out / "checkpoints")
    return {name: load_file(out / name / "adapter_model.safetensors") for name in PARTS}


@pytest.mark.slow
def test_the_weights_act_stay_as_they_are_and_are_handed_on(inputs: Inputs, tmp_path: Path) -> None:
    plain = trained(inputs, tmp_path / "plain")
    same = with_whole_weights(inputs, 1.0, tmp_path / "same")
    other = with_whole_weights(inputs, 1.05, tmp_path / "other")
    on_same, on_other = trained(same, tmp_path / "on_same"), trained(other, tmp_path / "on_other")
    for name in PARTS:
        for given, out in ((same, "on_same"), (other, "on_other")):
            folder = given.critic_adapter if name == "critic" else given.artist_adapter
            assert (tmp_path / out / name / WEIGHTS_FILE).read_bytes() == (folder / WEIGHTS_FILE).read_bytes()
        assert all(torch.equal(on_same[name][key], value) for key, value in plain[name].items())
        assert any(not torch.equal(on_other[name][key], value) for key, value in plain[name].items())
