"""Stage III under observation: it stops with a diagnosis when a reward breaks, and when its reward is hacked."""

import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from components.models.critic import Critic
from components.models.lora import adapter_tensors
from components.reinforcement import coordinated
from components.reinforcement.alarm import RewardHackingError
from components.reinforcement.comparison import PolicyScores
from components.reinforcement.coordinated import reinforce
from components.reinforcement.rollouts import Round
from components.training.checkpoints import CheckpointStore
from components.training.divergence import DivergenceError
from tests.recording import RecordingTracker
from tests.stage_three import SETTINGS, Inputs, reading_by_hash

pytestmark = pytest.mark.slow


def fingerprint(critic: Critic) -> float:
    """A number that changes when the Critic's adapter does."""
    return float(torch.stack([p.detach().sum() for p in adapter_tensors(critic.model).values()]).sum())


def test_a_reward_that_is_not_finite_stops_the_stage_with_a_diagnosis(
    inputs: Inputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The perceptual distance breaks in the second iteration; the checkpoint of the first one stays."""
    lpips = coordinated.Lpips.__call__
    calls = []
    watched = []

    def breaking(self, pictures: Tensor, references: Tensor) -> Tensor:
        watched.append("watchdog of stage III" in {thread.name for thread in threading.enumerate()})
        distance = lpips(self, pictures, references)
        return distance * float("nan") if calls and calls[-1] == 1 else distance

    rewarding = coordinated.reward

    def counting(*arguments) -> Round:
        calls.append(len(calls))
        return rewarding(*arguments)

    monkeypatch.setattr(coordinated.Lpips, "__call__", breaking)
    monkeypatch.setattr(coordinated, "reward", counting)
    with reading_by_hash(), pytest.raises(DivergenceError) as error:
        reinforce(*inputs, tmp_path, SETTINGS, RecordingTracker(), tmp_path / "checkpoints")
    message = str(error.value)
    assert "stage III, iteration 2, gathering experience: " in message and "perceptual" in message
    assert "step 1: critic/reward " in message and "are finite" in message
    assert f"last good checkpoint: {tmp_path / 'checkpoints' / 'step-00000001'};" in message
    assert CheckpointStore(tmp_path / "checkpoints").latest().step == 1
    assert watched and all(watched)


def test_a_raised_alarm_can_stop_the_stage(inputs: Inputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Scores of nine photos are put in the place of those of the one that the test has; the rest is the stage's own."""
    photos = [f"photo {index}" for index in range(9)]
    better = torch.linspace(0.1, 0.2, 9)

    def scoring(critic: Critic, *rest: Any, progress: Any) -> PolicyScores:
        moved = fingerprint(critic) != start
        unrewarded = {"colour_error": 5 - better, "ssim": 0.9 - better * moved, "piqe_excess": better}
        return PolicyScores(photos, photos, {"total": 0.5 + better * moved}, unrewarded, torch.zeros(3, 4, 4))

    start = fingerprint(Critic.load(inputs.base / "critic", inputs.critic_adapter))
    monkeypatch.setattr(coordinated, "score_policy", scoring)
    warning = SETTINGS.model_copy(update={"validate_every": 1})
    stopping, tracker = warning.model_copy(update={"alarm": "stop"}), RecordingTracker()
    with reading_by_hash(), pytest.raises(RewardHackingError, match=r"after iteration 1 .* ssim got worse by 0\.15"):
        reinforce(*inputs, tmp_path, stopping, tracker, tmp_path / "checkpoints")
    assert tracker.series("reinforce/alarm") == [(0, 0.0), (1, 1.0)]
    assert not (tmp_path / "critic").exists()
    tracker = RecordingTracker()
    with reading_by_hash():
        closing = reinforce(*inputs, tmp_path, warning, tracker, tmp_path / "checkpoints")
    assert closing["alarm"] == 1.0 and "iteration 1: ssim got worse" in tracker.notes[-1]
    kept = CheckpointStore(tmp_path / "checkpoints").latest().values["validations"]
    assert [validation["iteration"] for validation in kept] == [0, 1]
    assert len(kept[1]["findings"]) == 1
