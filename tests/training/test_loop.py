"""The loop: schedule and optimiser against torch's own, and interrupted runs that end bit for bit like whole ones."""

import math
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from components.training.checkpoints import CheckpointStore
from components.training.divergence import DivergenceError
from components.training.loop import Optimiser, OptimiserSettings, fit, learning_rate_at
from components.training.observer import ObserverSettings
from components.training.tracker import NullTracker
from components.training.watchdog import EXIT_STALLED
from tests.recording import RecordingTracker
from tests.training import processes
from tests.training.processes import SETTINGS, build_model, train


def state(model: nn.Module, folder: Path) -> dict[str, Tensor]:
    """Weights of the model, and all tensors of the newest checkpoint."""
    return {**model.state_dict(), **CheckpointStore(folder).latest().tensors}


def assert_same(a: dict[str, Tensor], b: dict[str, Tensor]) -> None:
    assert a.keys() == b.keys()
    assert [name for name in a if not torch.equal(a[name], b[name])] == []


def test_the_learning_rate_warms_up_linearly_and_decays_as_a_cosine() -> None:
    settings = OptimiserSettings(learning_rate=2.0, steps=110, warmup_steps=10, final_fraction=0.1)
    rates = [learning_rate_at(step, settings) for step in range(111)]
    assert rates[:10] == pytest.approx([0.2 * (step + 1) for step in range(10)])
    for step in range(10, 111):
        share = 0.5 * (1 + math.cos(math.pi * (step - 10) / 100))
        assert rates[step] == pytest.approx(0.2 + 1.8 * share)
    assert rates[10] == 2.0 and rates[60] == pytest.approx(1.1) and rates[110] == pytest.approx(0.2)
    assert learning_rate_at(10_000, settings) == pytest.approx(0.2)
    constant = OptimiserSettings(learning_rate=2.0, steps=5, warmup_steps=0, final_fraction=1.0)
    assert [learning_rate_at(step, constant) for step in range(6)] == [2.0] * 6


def test_updates_are_those_of_adamw_with_clipping_and_an_average() -> None:
    settings = OptimiserSettings(
        learning_rate=0.1, steps=20, warmup_steps=2, weight_decay=0.3, beta_2=0.95, max_grad_norm=0.5, ema_decay=0.8
    )
    ours, theirs = build_model().double(), build_model().double()
    optimiser = Optimiser(ours.named_parameters(), settings)
    reference = torch.optim.AdamW(theirs.parameters(), betas=(0.9, 0.95), weight_decay=0.3)
    average = [parameter.detach().clone() for parameter in theirs.parameters()]
    generator = torch.Generator().manual_seed(0)
    for step in range(20):
        inputs = torch.randn(16, 4, generator=generator, dtype=torch.float64)
        for model in (ours, theirs):
            (model(inputs) - inputs[:, :1]).square().mean().mul(10).backward()
        norm = torch.cat([parameter.grad.flatten() for parameter in theirs.parameters()]).norm()
        for parameter in theirs.parameters():
            parameter.grad *= min(1.0, 0.5 / float(norm))
        reference.param_groups[0]["lr"] = learning_rate_at(step, settings)
        reference.step()
        reference.zero_grad()
        decay = min(0.8, (step + 1) / (step + 10))
        average = [decay * a + (1 - decay) * p.detach() for a, p in zip(average, theirs.parameters(), strict=True)]
        report = optimiser.update(step)
        assert report["gradient_norm"] == pytest.approx(float(norm))
        assert report["learning_rate"] == learning_rate_at(step, settings)
        assert all(parameter.grad is None for parameter in ours.parameters())
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-8)
    optimiser.use_average()
    for a, b in zip(ours.parameters(), average, strict=True):
        torch.testing.assert_close(a.detach(), b, rtol=1e-5, atol=1e-8)


def test_orthogonalised_matrices_are_updated_by_muon_and_the_rest_by_adamw() -> None:
    settings = OptimiserSettings(learning_rate=0.05, steps=8, warmup_steps=0, weight_decay=0.3, max_grad_norm=1e9)
    ours, theirs = build_model(), build_model()
    matrices = [name for name, parameter in ours.named_parameters() if parameter.ndim == 2]
    assert matrices
    optimiser = Optimiser(ours.named_parameters(), settings, matrices)
    both = dict(theirs.named_parameters())
    rest = [parameter for name, parameter in both.items() if name not in matrices]
    rules = [
        torch.optim.Muon([both[name] for name in matrices], weight_decay=0.3, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(rest, betas=(0.9, settings.beta_2), weight_decay=0.3),
    ]
    generator = torch.Generator().manual_seed(0)
    for step in range(8):
        if step == 4:  # a checkpoint in the middle changes nothing
            tensors = {name: tensor.clone() for name, tensor in optimiser.tensors().items()}
            ours = build_model()
            optimiser = Optimiser(ours.named_parameters(), settings, matrices)
            optimiser.restore(tensors)
        inputs = torch.randn(16, 4, generator=generator)
        for model in (ours, theirs):
            (model(inputs) - inputs[:, :1]).square().mean().backward()
        for rule in rules:
            rule.param_groups[0]["lr"] = learning_rate_at(step, settings)
            rule.step()
            rule.zero_grad()
        optimiser.update(step)
    assert_same(ours.state_dict(), theirs.state_dict())


def test_without_an_average_the_weights_stay_as_they_are() -> None:
    model = build_model()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    Optimiser(model.named_parameters(), OptimiserSettings(learning_rate=0.1, steps=1)).use_average()
    assert_same(model.state_dict(), before)


@pytest.mark.parametrize("die_after", [0, 1, 2, 5, 11])
def test_a_run_interrupted_by_an_exception_ends_like_a_whole_one(tmp_path: Path, die_after: int) -> None:
    whole, resumed = build_model(), build_model()
    tracker, again = RecordingTracker(), RecordingTracker()
    train(whole, tmp_path / "whole", tracker=tracker)
    with pytest.raises(KeyboardInterrupt):
        train(build_model(), tmp_path / "resumed", die_after)
    train(resumed, tmp_path / "resumed", tracker=again)
    assert_same(state(resumed, tmp_path / "resumed"), state(whole, tmp_path / "whole"))
    assert again.series("test/loss")[-1][0] == SETTINGS.steps
    assert again.series("test/loss")[-1] == tracker.series("test/loss")[-1]


@pytest.mark.slow
def test_a_killed_run_ends_like_a_whole_one(root: Path, tmp_path: Path) -> None:
    arguments = [sys.executable, "-m", "tests.training.processes", "kill", str(tmp_path / "resumed"), "7"]
    process = subprocess.run(arguments, cwd=root, capture_output=True, text=True, timeout=300)
    assert process.returncode == -signal.SIGKILL, process.stderr
    assert CheckpointStore(tmp_path / "resumed").latest().step == 6
    whole, resumed = build_model(), build_model()
    train(whole, tmp_path / "whole")
    train(resumed, tmp_path / "resumed")
    assert_same(state(resumed, tmp_path / "resumed"), state(whole, tmp_path / "whole"))


def test_a_finished_run_is_not_run_again(tmp_path: Path) -> None:
    whole, again = build_model(), build_model()
    closing = train(whole, tmp_path)
    assert set(closing) == {"loss", "bias", "gradient_norm", "learning_rate", "seconds"}
    assert train(again, tmp_path) == {}
    assert_same(again.state_dict(), whole.state_dict())


def test_training_lowers_the_loss_and_reports_means(tmp_path: Path) -> None:
    tracker, model = RecordingTracker(), build_model()
    seen: list[float] = []
    finished: list[int] = []

    def losses(step: int, generator: torch.Generator) -> dict[str, Tensor]:
        inputs = torch.randn(64, 4, generator=generator)
        loss = (model(inputs) - inputs.sum(dim=1, keepdim=True)).square().mean()
        seen.append(float(loss.detach()))
        return {"loss": loss}

    settings = OptimiserSettings(learning_rate=0.05, steps=42, warmup_steps=2)
    closing = fit(
        "test",
        model.named_parameters(),
        losses,
        settings,
        tracker,
        CheckpointStore(tmp_path),
        0,
        50,
        10,
        after_step=finished.append,
    )
    assert seen[-1] < 0.2 * seen[0]
    assert finished == list(range(1, 43))
    series = tracker.series("test/loss")
    assert [step for step, _ in series] == [10, 20, 30, 40, 42]
    assert [value for _, value in series[:4]] == pytest.approx([sum(seen[i : i + 10]) / 10 for i in range(0, 40, 10)])
    assert closing["loss"] == pytest.approx(sum(seen[-4:]) / 4)
    assert CheckpointStore(tmp_path).latest().step == 42


def test_data_come_from_the_seed_alone(tmp_path: Path) -> None:
    models = [build_model(), build_model()]
    for index, model in enumerate(models):
        torch.manual_seed(index)
        before = torch.get_rng_state()
        train(model, tmp_path / str(index))
        assert torch.equal(torch.get_rng_state(), before)
    assert_same(models[0].state_dict(), models[1].state_dict())


@pytest.mark.parametrize("broken", ["loss", "gradient"])
def test_divergence_stops_the_run_before_it_is_kept(tmp_path: Path, broken: str) -> None:
    model = build_model()

    def losses(step: int, generator: torch.Generator) -> dict[str, Tensor]:
        loss = model(torch.ones(2, 4)).square().mean()
        if step == 3:
            loss = loss * math.nan if broken == "loss" else loss + (model[0].bias.sum() * 0).sqrt()
        return {"loss": loss}

    settings = OptimiserSettings(learning_rate=0.01, steps=6)
    message = "loss is nan" if broken == "loss" else r"gradient of step 3 is not finite, first in \['0.bias'\]"
    with pytest.raises(DivergenceError, match=rf"test, step 3: .*{message}") as error:
        fit("test", model.named_parameters(), losses, settings, NullTracker(), CheckpointStore(tmp_path), 0, 1)
    for part in ("all 4 are finite", "step 2: loss ", "gradient_norm", f"good checkpoint: {tmp_path}/step-00000003;"):
        assert part in str(error.value)
    checkpoint = CheckpointStore(tmp_path).latest()
    assert checkpoint.step == 3 and all(tensor.isfinite().all() for tensor in checkpoint.tensors.values())


def test_a_loss_that_leaves_its_range_stops_the_run_and_is_not_kept(tmp_path: Path) -> None:
    """Checkpoints of steps after which the loss was out of range are not written, so that the last one is good."""
    model = build_model()

    def losses(step: int, generator: torch.Generator) -> dict[str, Tensor]:
        return {"loss": model(torch.ones(2, 4)).square().mean() * 0 + 1 + 0.01 * (step % 3) + 9 * (step >= 14)}

    watching = ObserverSettings(spike_deviations=6, spike_patience=4, spike_window=10)
    settings = OptimiserSettings(learning_rate=1e-3, steps=30, observer=watching)
    with pytest.raises(DivergenceError, match=r"test, step 17: loss is 10.* for 4 steps"):
        fit("test", model.named_parameters(), losses, settings, NullTracker(), CheckpointStore(tmp_path), 0, 1)
    assert CheckpointStore(tmp_path).latest().step == 14


def test_observing_changes_nothing_that_is_learnt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = []
    for name, observer in (
        ("on", ObserverSettings(spike_deviations=50)),
        ("off", ObserverSettings(watchdog_seconds=0)),
    ):
        runs.append(build_model())
        monkeypatch.setattr(processes, "SETTINGS", SETTINGS.model_copy(update={"observer": observer}))
        train(runs[-1], tmp_path / name)
    assert_same(state(runs[0], tmp_path / "on"), state(runs[1], tmp_path / "off"))


@pytest.mark.slow
def test_a_loop_that_hangs_is_ended_and_goes_on_afterwards(root: Path, tmp_path: Path) -> None:
    arguments = [sys.executable, "-m", "tests.training.processes", "hang", str(tmp_path / "resumed"), "7"]
    process = subprocess.run(arguments, cwd=root, capture_output=True, text=True, timeout=300)
    assert process.returncode == EXIT_STALLED, process.stderr
    (stacks,) = (tmp_path / "resumed").glob("stalled-*.txt")
    assert "since step 7" in stacks.read_text() and "in losses" in stacks.read_text()
    whole, resumed = build_model(), build_model()
    train(whole, tmp_path / "whole")
    train(resumed, tmp_path / "resumed")
    assert_same(state(resumed, tmp_path / "resumed"), state(whole, tmp_path / "whole"))


def test_there_must_be_something_to_train() -> None:
    with pytest.raises(ValueError, match="nothing to train"):
        Optimiser([], OptimiserSettings(learning_rate=0.1, steps=1))


def test_a_checkpoint_of_another_model_is_refused() -> None:
    settings = OptimiserSettings(learning_rate=0.1, steps=1)
    saved = Optimiser(nn.Linear(2, 2).named_parameters(), settings).tensors()
    with pytest.raises(KeyError, match="parameter"):
        Optimiser(build_model().named_parameters(), settings).restore(saved)
