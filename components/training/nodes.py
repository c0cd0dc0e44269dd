"""A stage on several machines (nodes): each of them runs this, meets the others and starts its share of the ranks.

    python -m components.training.nodes STAGE --job FOLDER/job.json --attempt NAME \\
        --nodes 2 --node 0 --address node0 --port 29500

All nodes see the folder of the job. Every attempt at it, which is all nodes starting together, has a name and by it a
folder below `attempts`, where it leaves what `components.training.job` describes and the adapters (`out`). A job that
an attempt has finished is not done again. When nodes start again while those of an earlier attempt are still at work
(only their supervisor has died), the earlier ones end; checkpoints are whole files, so the later ones resume from the
last of them.
"""

import logging
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import click

from components import command_line
from components.command_line import Command, Number, Option
from components.files import write_text
from components.models.compute import TrainingComputeSettings
from components.training.__main__ import PARAMETERS
from components.training.events import EventReader
from components.training.job import JOB_FILE, Job, StageError, first_failure, read_job, result, why
from components.training.launch import Rendezvous, launcher, run
from components.training.tracker import Tracker

log = logging.getLogger(__name__)

ATTEMPTS_FOLDER, OUT_FOLDER = "attempts", "out"
_LOOK_EVERY = 2.0
"""Seconds between two looks at what the others have written."""


class ReplacedError(RuntimeError):
    """Nodes that started later work on the same job."""


class Finished(NamedTuple):
    """A job that is done."""

    attempt: Path
    """Folder of the attempt that did it."""
    closing: dict[str, float]
    """What the stage's function returned."""

    @property
    def out(self) -> Path:
        """The adapters."""
        return self.attempt / OUT_FOLDER


def attempts(folder: Path) -> list[Path]:
    """Folders of the attempts at a job, the latest last."""
    began = [(file.stat().st_mtime_ns, file.parent) for file in folder.glob(f"{ATTEMPTS_FOLDER}/*/{JOB_FILE}")]
    return [attempt for _, attempt in sorted(began)]


def finished(folder: Path) -> Finished | None:
    """How a job ended; None while no attempt has finished it."""
    for attempt in attempts(folder):
        if (closing := result(attempt)) is not None:
            return Finished(attempt, closing)
    return None


def take_part(stage: str, folder: Path, name: str, place: Rendezvous) -> None:
    """Do this node's part of an attempt; nothing where the job is done.

    Args:
        stage: as `python -m components.training` knows it.
        folder: of the job, the same for all nodes.
        name: of the attempt, the same for all nodes.

    Raises:
        TimeoutError: not all nodes have begun within `compute.wait_for_nodes` of the job.
        ReplacedError: a later attempt has begun.
        StageError: a process failed; which one and of what is told where it has said so, on whatever node it was.
    """
    if (done := finished(folder)) is not None:
        log.info("%s: done already, by the attempt %s", stage, done.attempt.name)
        return
    job, attempt = read_job(folder / JOB_FILE), folder / ATTEMPTS_FOLDER / name
    compute = TrainingComputeSettings.model_validate(job.settings.get("compute", {}))
    if place.nodes != compute.nodes:
        raise ValueError(f"{place.nodes} nodes were started, and compute.nodes of the job is {compute.nodes}")
    if not (attempt / JOB_FILE).exists():
        Job(settings=job.settings, arguments=job.arguments | {"out": attempt / OUT_FOLDER}).write(attempt)
    command = launcher(stage, attempt / JOB_FILE, compute, place)
    _meet(attempt, place, compute.wait_for_nodes)
    log.info("%s: all %d nodes are here; starting %d processes", stage, place.nodes, compute.processes)
    code = run(command, _Lookout(attempt))
    if code or (place.node == 0 and result(attempt) is None):
        raise StageError(f"{stage} on {place.nodes} nodes: {why(attempt, code)}", code)


def follow(folder: Path, tracker: Tracker) -> Finished:
    """Hand on what a job reports, attempt after attempt, until it is done.

    Where an attempt failed the log says why. Whether there will be another is for whoever starts them to decide.
    """
    readers: dict[Path, EventReader] = {}
    told: set[Path] = set()
    while True:
        done = finished(folder)  # looked at first, so that everything it reported is handed on
        for attempt in attempts(folder):
            readers.setdefault(attempt, EventReader(attempt, tracker, keep=True)).forward()
            if attempt not in told and (reason := first_failure(attempt)):
                told.add(attempt)
                log.warning("the attempt %s failed: %s", attempt.name, reason)
        if done is not None:
            return done
        time.sleep(_LOOK_EVERY)


class _Lookout:
    """Called now and then, it raises `ReplacedError` once a later attempt has begun."""

    def __init__(self, attempt: Path):
        self._attempt = attempt
        self._looked = time.monotonic()

    def __call__(self) -> None:
        if time.monotonic() - self._looked < _LOOK_EVERY:
            return
        latest = attempts(self._attempt.parents[1])[-1]
        if latest != self._attempt:
            raise ReplacedError(f"the attempt {latest.name} has begun, so that {self._attempt.name} ends here")
        self._looked = time.monotonic()


def _meet(attempt: Path, place: Rendezvous, seconds: float) -> None:
    """Wait until all nodes have come so far; each leaves a file that says so."""
    look_out, end = _Lookout(attempt), time.monotonic() + seconds
    write_text(attempt / _sign(place.node), "")
    while missing := [node for node in _others(place) if not (attempt / _sign(node)).exists()]:
        if time.monotonic() > end:
            raise TimeoutError(
                f"node {place.node} of {place.nodes} has waited {seconds:g} s for {', '.join(map(str, missing))}: is "
                f"there room for all of them at once, and do they see {attempt}? compute.wait_for_nodes sets the time"
            )
        look_out()
        time.sleep(min(_LOOK_EVERY, seconds / 10))


def _others(place: Rendezvous) -> Iterator[int]:
    return (node for node in range(place.nodes) if node != place.node)


def _sign(node: int) -> str:
    return f"here-{node}"


def end_on_sigterm() -> None:
    """Have SIGTERM end what this process has started, too; the first process of a container would not even notice."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))


_PARAMETERS: list[click.Parameter] = [
    *PARAMETERS,
    Option(["--attempt"], required=True, help="Name of this start: the same on all nodes, different for every start."),
    Option(["--nodes"], type=Number(int, 1), required=True, help="Number of nodes."),
    Option(["--node"], type=Number(int, 0), required=True, help="Number of this one, from 0."),
    Option(["--address"], required=True, help="Address of node 0."),
    Option(["--port"], type=Number(int), default=29500, help="Port on node 0."),
]


@click.command(cls=Command, params=_PARAMETERS)
def main(stage: str, job: Path, attempt: str, nodes: int, node: int, address: str, port: int) -> None:
    """Run one node's part of a training stage.

    Any failure is an exception, so that whatever started the node sees it.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s: %(message)s")
    end_on_sigterm()
    take_part(stage, job.resolve().parent, attempt, Rendezvous(nodes, node, address, port))


if __name__ == "__main__":
    sys.exit(command_line.run(main, program="python -m components.training.nodes"))
