"""The diagnosis of a run that diverged, and the watch over losses that leave their range."""

import math
from pathlib import Path

import pytest
import torch
from torch import nn

from components.training.checkpoints import TENSOR_FILE, Checkpoint, CheckpointStore
from components.training.divergence import Diagnosis, DivergenceError, SpikeWatch, require_finite


def losses(count: int, mean: float, deviation: float, seed: int = 0) -> list[float]:
    noise = torch.randn(count, generator=torch.Generator().manual_seed(seed))
    return (mean + deviation * noise).tolist()


def test_terms_that_are_not_finite_are_named() -> None:
    require_finite({"loss": 1.0, "divergence": -3.0})
    with pytest.raises(DivergenceError, match="divergence is nan, entropy is -inf; lower the learning rate"):
        require_finite({"loss": 1.0, "divergence": math.nan, "entropy": -math.inf})


def test_the_diagnosis_says_how_things_stand(tmp_path: Path) -> None:
    model, store = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)), CheckpointStore(tmp_path, keep=9)
    diagnosis = Diagnosis("a stage", dict(model.named_parameters()), store)
    assert "all 4 are finite" in str(diagnosis) and f"none in {tmp_path}" in str(diagnosis)
    for step in range(8):
        diagnosis.record(step, {"loss": 2.0**-step, "learning_rate": 1e-3})
    for step in (3, 6):
        store.save(Checkpoint(step, {"weight": torch.ones(3)}, {}))
    (tmp_path / "step-00000006" / TENSOR_FILE).write_bytes(b"damaged")
    with torch.no_grad():
        model[1].weight[0, 0] = math.inf
    with pytest.raises(DivergenceError) as caught, diagnosis.of("step 8"):
        raise DivergenceError("loss is nan")
    message = str(caught.value)
    assert message.startswith("a stage, step 8: loss is nan\n")
    assert "1 of 4 are not finite, first 1.weight" in message
    assert "step 2:" not in message and "step 3: loss 0.125, learning_rate 0.001" in message
    assert "step 7: loss 0.007812" in message
    assert f"last good checkpoint: {tmp_path / 'step-00000003'};" in message, "the damaged one is none"


def test_other_errors_pass_as_they_are(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^something else$"), Diagnosis("x", {}, CheckpointStore(tmp_path)).of("y"):
        raise ValueError("something else")


@pytest.mark.parametrize("mean", [5.0, 0.0, -3.0])
def test_a_loss_that_stays_out_of_range_is_noticed(mean: float) -> None:
    """Also one around zero or below it, as losses of policy gradients are."""
    watch = SpikeWatch(deviations=6, patience=4, window=50)
    for loss in losses(60, mean, 0.1):
        watch.see("loss", loss)
    for loss in losses(3, mean + 2, 0.1, seed=1):
        watch.see("loss", loss)
    assert watch.streak == 3
    with pytest.raises(DivergenceError, match=r"loss is .* and was above .* for 4 steps"):
        watch.see("loss", mean + 2)


def test_single_spikes_and_falling_losses_are_no_divergence() -> None:
    watch = SpikeWatch(deviations=6, patience=2, window=50)
    streaks = []
    for step, loss in enumerate(losses(300, 5.0, 0.1)):
        watch.see("loss", loss * 0.99**step + (50.0 if step % 10 == 9 else 0.0))
        streaks.append(watch.streak)
    assert streaks[50:] == [int(step % 10 == 9) for step in range(50, 300)], "every spike is seen and forgotten"


def test_it_does_not_judge_before_it_has_seen_enough_or_when_it_is_off() -> None:
    early, off = SpikeWatch(deviations=3, patience=1, window=40), SpikeWatch(deviations=0, patience=1, window=4)
    for loss in [*losses(19, 1.0, 0.01), 100.0]:
        early.see("loss", loss)
    for loss in [1.0] * 20 + [1e9] * 20:
        off.see("loss", loss)
    assert early.streak == off.streak == 0


def test_a_constant_loss_may_waver_a_little() -> None:
    """Its deviation is zero, and any change would be infinitely far out of range."""
    watch = SpikeWatch(deviations=5, patience=1, window=10)
    for loss in [2.0] * 20 + [2.05]:
        watch.see("loss", loss)
    with pytest.raises(DivergenceError):
        watch.see("loss", 2.2)
