"""One training stage on a large corpus, measured from its start: run as a process of its own, to measure it alone.

    python -m benchmarks.scale_load train_artist CORPUS WORK --steps 8
    python -m benchmarks.scale_load train_artist CORPUS WORK --steps 8 --end-after 5    end there, as if killed

Prints one line of JSON: seconds from the start of the program to the end of the first step, peak memory until then,
seconds of each later step, with pictures from disk and, the same steps once more, with pictures in memory, seconds of
the closing validation.
"""

import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest.mock import patch

import click
import psutil

from benchmarks.main import BASE, PHOTOS
from benchmarks.validation_load import peak_bytes
from components.command_line import PATH, Command, Number, Option, run
from components.models.lora import LoraSettings
from components.reinforcement.coordinated import reinforce
from components.reinforcement.rollouts import RolloutSettings
from components.reinforcement.settings import ReinforceSettings
from components.training.artist_sft import ArtistSftSettings, adapt_artist, train_artist
from components.training.batches import PairBatches
from components.training.critic_sft import CriticSftSettings, train_critic
from components.training.loop import Optimiser, OptimiserSettings
from components.training.tracker import NullTracker
from components.training.views import ViewBatches

STAGES = ("train_critic", "train_artist", "adapt_artist", "reinforce")
_EVERY = 4
"""Steps between checkpoints."""


class Watch:
    """When the steps of a stage ended, and the peak of memory at the first one.

    Args:
        of_critic: a step is one of the Critic's optimiser, not of the Artist's.
        end_after: steps after which the process ends as one does that is killed: nothing is tidied up.
    """

    def __init__(self, of_critic: bool, end_after: int | None = None):
        self.of_critic = of_critic
        self.times: list[float] = []
        self.peak = 0
        self.end_after = end_after

    def stepped(self) -> None:
        """Take the end of a step."""
        self.peak = self.peak or peak_bytes()
        self.times.append(time.time())
        if len(self.times) == self.end_after:
            print(json.dumps(self.first()), flush=True)
            os._exit(0)

    def first(self) -> dict[str, float]:
        """Seconds from the start of the program to the end of the first step, and the peak of memory until then."""
        return {"first_step": self.times[0] - psutil.Process().create_time(), "peak_bytes": self.peak}

    @property
    def step(self) -> float:
        """Seconds of a step after the first, the median."""
        return statistics.median(after - before for before, after in pairwise(self.times))


def stage(name: str, corpus: Path, out: Path, checkpoints: Path, steps: int) -> Callable[[], dict[str, float]]:
    """A stage of the laptop profile's models on a corpus, not yet started."""
    optimiser = OptimiserSettings(learning_rate=1e-4, steps=steps, warmup_steps=1)
    rest: dict[str, Any] = {"out": out, "tracker": NullTracker(), "checkpoints": checkpoints}
    adapters = corpus / "critic", corpus / "artist"
    if name == "train_critic":
        of_critic = CriticSftSettings(optimiser=optimiser, checkpoint_every=_EVERY)
        return lambda: train_critic(BASE, corpus / "annotations", PHOTOS, settings=of_critic, **rest)
    if name == "reinforce":
        of_both = ReinforceSettings(iterations=steps, artist_updates=1, rollouts=RolloutSettings(photos=2))
        of_both = of_both.model_copy(update={"validate_every": steps, "checkpoint_every": _EVERY})
        return lambda: reinforce(BASE, *adapters, corpus / "pairs", settings=of_both, **rest)
    of_artist = ArtistSftSettings(
        optimiser=optimiser, lora=LoraSettings(), checkpoint_every=_EVERY, pictures_every=10**6, cache_latents=False
    )
    if name == "train_artist":
        return lambda: train_artist(BASE, corpus / "pairs", settings=of_artist, **rest)
    of_artist = of_artist.model_copy(update={"kinds": ("enhancement",)})
    return lambda: adapt_artist(BASE, *adapters, corpus / "pairs", settings=of_artist, **rest)


@contextmanager
def watching(watch: Watch) -> Iterator[None]:
    """Tell the watch of every step; an iteration of stage III ends with that of the Artist."""
    update = Optimiser.update

    def watched(self: Optimiser, step: int) -> dict[str, float]:
        found = update(self, step)
        of_critic = any("language_model" in name for name in self.parameters)
        if watch.of_critic == of_critic:
            watch.stepped()
        return found

    with patch.object(Optimiser, "update", watched):
        yield


@contextmanager
def in_memory() -> Iterator[None]:
    """Load every sample once, and from then on take it from memory."""
    with ExitStack() as stack:
        for batches in (PairBatches, ViewBatches):
            stack.enter_context(patch.object(batches, "_load", _remembering(batches._load, {})))
        yield


def _remembering(load: Callable[[Any, int], Any], known: dict[tuple[int, int], Any]) -> Callable[[Any, int], Any]:
    def remembered(self: Any, number: int) -> Any:
        key = len(self), number  # of training, or of validation
        if key not in known:
            known[key] = load(self, number)
        return known[key]

    return remembered


_PARAMETERS: list[click.Parameter] = [
    click.Argument(["name"], type=click.Choice(STAGES), help="The stage."),
    click.Argument(["corpus"], type=PATH, help="Folder that benchmarks.scale has built."),
    click.Argument(["work"], type=PATH, help="Folder for checkpoints and adapters."),
    Option(["--steps"], type=Number(int, 2), default=8, help="Optimiser steps, or iterations of stage III."),
    Option(["--end-after"], type=Number(int, 1), help="End after so many steps, as if killed."),
    Option(["--only-start"], is_flag=True, help="Measure the start only."),
]


@click.command(cls=Command, params=_PARAMETERS)
def main(name: str, corpus: Path, work: Path, steps: int, end_after: int | None, only_start: bool) -> int:
    """Run a stage and print what it took."""
    of_critic = name == "train_critic"
    watch = Watch(of_critic, 1 if only_start else end_after)
    with watching(watch):
        stage(name, corpus, work / "out", work / "checkpoints", steps)()
    ended = time.time()
    found = watch.first() | {"step": watch.step, "validation": ended - watch.times[-1]}
    with in_memory():
        for attempt in ("fill", "measure"):
            again = Watch(of_critic)
            with watching(again):
                stage(name, corpus, work / attempt, work / f"{attempt}-checkpoints", steps)()
    print(json.dumps(found | {"step_in_memory": again.step}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(run(main, program="python -m benchmarks.scale_load"))
