"""A trial of training: kill -9 at random moments of every stage, start again, and compare the weights bit for bit.

The stages are the real functions, each in a process of its own, on the inputs that are given. Each runs once
undisturbed and once with kills; what is compared is everything a stage leaves: its adapters and its last checkpoint,
which holds optimiser, averages, `old` policy and generator as well.
"""

import multiprocessing
import random
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file
from torch import Tensor

from benchmarks.main import BenchmarkRow
from components.models.lora import LoraSettings
from components.reinforcement.comparison import ComparisonSettings
from components.reinforcement.coordinated import ReinforceSettings, reinforce
from components.reinforcement.rollouts import RolloutSettings
from components.training.artist_sft import ArtistSftSettings, adapt_artist, train_artist
from components.training.checkpoints import CheckpointStore
from components.training.critic_sft import CriticSftSettings, train_critic
from components.training.loop import OptimiserSettings
from components.training.tracker import NullTracker

STAGES = ("train_critic", "train_artist", "adapt_artist", "reinforce")
_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "train_critic": train_critic,
    "train_artist": train_artist,
    "adapt_artist": adapt_artist,
    "reinforce": reinforce,
}
_CHECKPOINTS = "checkpoints"
_PATIENCE = 600.0
"""Seconds without a step after which a trial is given up; a busy machine may take minutes to import the libraries."""


class KillInputs(NamedTuple):
    """What the stages start from: base models, annotated views of photos, and pairs."""

    base: Path
    annotations: Path
    photos: Path
    pairs: Path


class StageKills(NamedTuple):
    """What a trial found about one stage.

    Attributes:
        moments: optimiser steps (stage III: iterations) that were kept at each kill that hit the process at work.
        tensors: that the undisturbed run left.
        differing: of those, how many the killed run left otherwise or not at all, and what only it left.
    """

    stage: str
    moments: tuple[int, ...]
    tensors: int
    differing: int


def trial_settings(steps: int = 8) -> dict[str, Any]:
    """Short runs of all stages with a checkpoint after every step, and every kind of state in it."""
    optimiser = OptimiserSettings(learning_rate=1e-3, steps=steps, warmup_steps=2, ema_decay=0.9)
    lora = LoraSettings(rank=4, alpha=8)
    supervised = {"lora": lora, "optimiser": optimiser, "batch_size": 2, "checkpoint_every": 1}
    artist = supervised | {"sampling_steps": 1, "pictures_every": 1000, "max_new_tokens": 24}
    return {
        "train_critic": CriticSftSettings(**supervised),
        "train_artist": ArtistSftSettings(**artist),
        "adapt_artist": ArtistSftSettings(**artist, kinds=("enhancement",)),
        "reinforce": ReinforceSettings(
            iterations=max(2, steps // 2),
            rollouts=RolloutSettings(photos=1, verdicts=2, edits=2, sampling_steps=1),
            critic_learning_rate=1e-3,
            artist_learning_rate=1e-3,
            smallest_deviation=0.0,
            validate_every=1000,
            comparison=ComparisonSettings(draws=1),
        ),
    }


def run_kill_trial(
    inputs: KillInputs,
    work: Path,
    kills: int,
    seed: int,
    settings: Mapping[str, Any] | None = None,
    stages: Sequence[str] = STAGES,
) -> list[StageKills]:
    """Run the stages undisturbed, then again with `kills` kills spread over them at random, at least one in each.

    A kill comes when a random number of the steps that are left has been kept, and a random time of up to a step after
    that: so kills fall while the process starts, computes and writes. One that comes after the process ended does not
    count, and the stage is run anew.

    Args:
        work: an empty folder.
        settings: of each stage; those of `trial_settings` by default.
        stages: in order; each starts from what the ones before it left.

    Raises:
        RuntimeError: a process ended by itself with an error, or kills came too late again and again.
        TimeoutError: a process made no progress for minutes.
    """
    if kills < len(stages):
        raise ValueError(f"expected at least one kill a stage, {len(stages)} in all, found {kills}")
    settings, moments = settings or trial_settings(), random.Random(seed)
    plan = [*stages, *moments.choices(stages, k=kills - len(stages))]
    threads = torch.get_num_threads()
    context = multiprocessing.get_context("forkserver")
    started = getattr(sys.modules["__main__"], "__spec__", None)  # which each process imports as well
    context.set_forkserver_preload([__name__, *([started.name] if started else [])])
    importing = context.Process(target=int)  # so that no stage's time includes that of importing the libraries
    importing.start()
    importing.join()

    def start(stage: str, folder: Path) -> BaseProcess:
        process = context.Process(target=run_stage, args=(stage, inputs, folder, settings[stage], threads))
        process.start()
        return process

    found = []
    for stage in stages:
        steps, began = _steps(settings[stage]), time.monotonic()
        _finish(start(stage, work / "whole"), stage, work / "whole")
        step_seconds = (time.monotonic() - began) / steps
        landed: list[int] = []
        for _ in range(4 * kills):
            if len(landed) == plan.count(stage):
                break
            done = _steps_kept(work / "killed", stage)
            wanted = moments.randrange(done, max(steps, done + 1))
            process = start(stage, work / "killed")
            _wait(process, lambda: _steps_kept(work / "killed", stage) >= wanted)  # noqa: B023 (used in this turn only)
            process.join(moments.uniform(0, step_seconds))
            process.kill()
            process.join()
            if process.exitcode == -signal.SIGKILL:
                landed.append(_steps_kept(work / "killed", stage))
            else:
                _finish(process, stage, work / "killed")
                CheckpointStore(work / "killed" / _CHECKPOINTS / stage).clear()
                landed.clear()  # kills of a run that is thrown away prove nothing
        if len(landed) < plan.count(stage):
            raise RuntimeError(f"{stage}: kills came after its end again and again: give it more steps")
        _finish(start(stage, work / "killed"), stage, work / "killed")
        whole, killed = (left_behind(work / folder, stage) for folder in ("whole", "killed"))
        found.append(StageKills(stage, tuple(landed), len(whole), differing(whole, killed)))
    return found


def run_stage(stage: str, inputs: KillInputs, folder: Path, settings: Any, threads: int) -> None:
    """What a process under trial does; its progress and its errors go to `<stage>.log`."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{stage}.log").open("a", encoding="utf-8") as log:
        sys.stderr = log
        torch.set_num_threads(threads)
        artist_before = folder / ("train_artist" if stage == "adapt_artist" else "adapt_artist")
        arguments = {
            "train_critic": (inputs.annotations, inputs.photos),
            "train_artist": (inputs.pairs,),
        }.get(stage, (folder / "train_critic", artist_before, inputs.pairs))
        _FUNCTIONS[stage](
            inputs.base, *arguments, folder / stage, settings, NullTracker(), folder / _CHECKPOINTS / stage
        )


def left_behind(folder: Path, stage: str) -> dict[str, Tensor]:
    """Every tensor that a stage left: of its adapters, and of its newest checkpoint."""
    newest = CheckpointStore(folder / _CHECKPOINTS / stage).newest_good()
    files = sorted((folder / stage).rglob("*.safetensors")) + sorted(newest.rglob("*.safetensors") if newest else [])
    return {f"{path.relative_to(folder)}: {name}": t for path in files for name, t in load_file(path).items()}


def differing(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> int:
    """Names whose tensors differ in a bit, in type or in shape, or that only one side has."""
    return len(expected.keys() ^ found.keys()) + sum(
        not _same(expected[name], found[name]) for name in expected.keys() & found.keys()
    )


def _same(one: Tensor, other: Tensor) -> bool:
    if one.dtype != other.dtype or one.shape != other.shape:
        return False
    return torch.equal(*(tensor.contiguous().flatten().view(torch.uint8) for tensor in (one, other)))


def kill_rows(found: Sequence[StageKills]) -> list[BenchmarkRow]:
    """The figures of a trial, stage by stage."""
    kills = sum(len(stage.moments) for stage in found)
    rows = []
    for stage in found:
        steps = ", ".join(map(str, stage.moments))
        rows.append(
            BenchmarkRow(
                name=f"kills, {stage.stage}: tensors that differ after {len(stage.moments)} of {kills} kill -9 "
                f"(steps kept at each: {steps})",
                value=stage.differing,
                unit="tensors",
                peer=stage.tensors,
                ratio=stage.differing / stage.tensors,
                target="0",
                ok=stage.differing == 0,
            )
        )
    return rows


def _finish(process: BaseProcess, stage: str, folder: Path) -> None:
    process.join()
    if process.exitcode != 0:
        raise RuntimeError(f"{stage} ended with {process.exitcode}: see {folder / f'{stage}.log'}")


def _steps(settings: Any) -> int:
    return settings.iterations if isinstance(settings, ReinforceSettings) else settings.optimiser.steps


def _steps_kept(folder: Path, stage: str) -> int:
    checkpoints = (folder / _CHECKPOINTS / stage).glob("step-*")
    return max((int(path.name.removeprefix("step-")) for path in checkpoints), default=0)


def _wait(process: BaseProcess, reached: Callable[[], bool]) -> None:
    """Until `reached` or the process has ended."""
    deadline = time.monotonic() + _PATIENCE
    while process.is_alive() and not reached():
        if time.monotonic() > deadline:
            process.kill()
            raise TimeoutError(f"the training process (pid {process.pid}) made no progress in {_PATIENCE:.0f} s")
        time.sleep(0.005)
