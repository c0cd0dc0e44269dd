"""The trial by kills itself: a killed run is found out where it differs, and the real stage survives."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from benchmarks.training_kills import (
    KillInputs,
    StageKills,
    differing,
    kill_rows,
    left_behind,
    run_kill_trial,
    trial_settings,
)
from components.training.checkpoints import Checkpoint, CheckpointStore
from tests.tiny_data import write_annotations
from tests.tiny_models import write_base

pytestmark = pytest.mark.slow


def test_the_critic_killed_at_random_ends_in_the_same_bits(tmp_path: Path) -> None:
    write_annotations(tmp_path / "annotations", tmp_path / "photos", each=1)
    base = write_base(tmp_path / "base")
    inputs = KillInputs(base, tmp_path / "annotations", tmp_path / "photos", tmp_path / "pairs")
    work, settings = tmp_path / "work", trial_settings(steps=4)
    (found,) = run_kill_trial(inputs, work, kills=1, seed=0, settings=settings, stages=("train_critic",))
    assert found.stage == "train_critic" and len(found.moments) == 1
    assert found.differing == 0 and found.tensors > 20
    names = left_behind(work / "whole", "train_critic")
    assert {part for part in ("average.", "exp_avg_sq.", "generator", "lora_A") if any(part in n for n in names)} == {
        "average.",
        "exp_avg_sq.",
        "generator",
        "lora_A",
    }


def test_what_a_stage_leaves_is_its_adapters_and_its_newest_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "reinforce" / "artist").mkdir(parents=True)
    save_file({"a": torch.ones(2)}, tmp_path / "reinforce" / "artist" / "adapter_model.safetensors")
    store = CheckpointStore(tmp_path / "checkpoints" / "reinforce")
    for step in (1, 2):
        store.save(Checkpoint(step, {"b": torch.full((2,), float(step))}, {}))
    found = left_behind(tmp_path, "reinforce")
    assert {name.rpartition(" ")[2]: tensor.tolist() for name, tensor in found.items()} == {"a": [1, 1], "b": [2, 2]}


def test_every_bit_and_every_name_counts() -> None:
    one = {"a": torch.tensor([0.0, 1.0]), "b": torch.tensor([torch.nan]), "c": torch.arange(3)}
    assert differing(one, {name: tensor.clone() for name, tensor in one.items()}) == 0
    assert differing(one, one | {"a": torch.tensor([-0.0, 1.0])}) == 1
    assert differing(one, one | {"c": torch.arange(3, dtype=torch.int32), "d": torch.ones(1)}) == 2
    assert differing(one, {"a": one["a"]}) == 2


def test_a_difference_misses_the_target() -> None:
    rows = kill_rows([StageKills("train_critic", (0, 3), 7, 0), StageKills("reinforce", (1,), 9, 2)])
    assert [row.ok for row in rows] == [True, False]
    assert "2 of 3 kill -9 (steps kept at each: 0, 3)" in rows[0].name


def test_every_stage_is_killed(tmp_path: Path) -> None:
    inputs = KillInputs(tmp_path, tmp_path, tmp_path, tmp_path)
    with pytest.raises(ValueError, match="at least one kill a stage, 4 in all, found 3"):
        run_kill_trial(inputs, tmp_path, kills=3, seed=0)
