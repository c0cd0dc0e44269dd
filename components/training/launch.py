"""Run a stage in as many processes as its `compute.processes` says: here for one, through accelerate for several.

The processes run `python -m components.training STAGE --job FILE` (components/training/__main__.py). What the stage
reports comes back through a file, its result and its errors too; when the starting process dies, they die.
"""

import fcntl
import logging
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple

import torch

from components.checkout import IMPORT_ROOT
from components.models.compute import TrainingComputeSettings
from components.training.events import EventReader
from components.training.job import Job, StageError, result, why
from components.training.tracker import Tracker

log = logging.getLogger(__name__)

CONFIGURATIONS = Path(__file__).with_name("accelerate")
OWNER_FILE = "owner.lock"
_SECONDS_TO_END = 60.0


class Rendezvous(NamedTuple):
    """Which of several machines (nodes) this is, and where the first one listens."""

    nodes: int
    node: int
    """From 0."""
    address: str
    port: int


def launch(
    function: Callable[..., dict[str, float]], settings: Any, tracker: Tracker, **arguments: Path
) -> dict[str, float]:
    """What `function(settings=settings, tracker=tracker, **arguments)` returns, here or from several processes.

    Args:
        function: of a stage that `python -m components.training` knows by its name.
        settings: its settings; `settings.compute` says how many processes and how they hold the models.

    Raises:
        StageError: a process failed; the others are ended, and checkpoints stay for the next attempt.
        ValueError: there are fewer GPUs than processes, or several nodes are asked for.
    """
    compute: TrainingComputeSettings = settings.compute
    if compute.nodes > 1:
        raise ValueError(
            f"compute.nodes is {compute.nodes}, and this is one machine: run `python -m components.training.nodes` on "
            "each, or the stages II and III by the pipeline on a cluster (docs/how-to/several-gpus.md)"
        )
    if compute.processes == 1:
        return function(settings=settings, tracker=tracker, **arguments)
    with tempfile.TemporaryDirectory(prefix="spc-stage-") as name:
        folder = Path(name)
        job = Job(settings=settings.model_dump(mode="json"), arguments={k: p.resolve() for k, p in arguments.items()})
        command = launcher(function.__name__, job.write(folder), compute)
        log.info("%s: starting %d processes", function.__name__, compute.processes)
        events = EventReader(folder, tracker)
        with _owned(folder):
            code = run(command, events.forward)
        events.forward()
        closing = result(folder)
        if code == 0 and closing is not None:
            return closing
        raise StageError(f"{function.__name__} in {compute.processes} processes: {why(folder, code)}", code)


def launcher(stage: str, job: Path, compute: TrainingComputeSettings, place: Rendezvous | None = None) -> list[str]:
    """The command that starts this machine's processes of a stage, through accelerate.

    Args:
        job: the file.
        place: of this machine among others; None: it is alone, and any free port will do.

    Raises:
        ValueError: there are fewer GPUs than processes.
    """
    machines = ["--main_process_port", "0"]
    if place is not None:
        machines = ["--num_machines", str(place.nodes), "--machine_rank", str(place.node)]
        machines += ["--main_process_ip", place.address, "--main_process_port", str(place.port)]
    return [
        *(sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(_configuration(compute))),
        *("--num_processes", str((place.nodes if place else 1) * compute.processes), *machines),
        *("--num_cpu_threads_per_process", str(_threads(compute.processes))),
        *("-m", "components.training", stage, "--job", str(job)),
    ]


def run(command: list[str], meanwhile: Callable[[], None]) -> int:
    """Run to the end and call `meanwhile` every half second; returns the exit code.

    The command is ended with whatever ends this: an exception of `meanwhile`, too.
    """
    paths = [str(IMPORT_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    process = subprocess.Popen(command, env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)})
    try:
        while True:
            try:
                return process.wait(timeout=0.5)
            except subprocess.TimeoutExpired:
                meanwhile()
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)  # which torchrun passes on
            try:
                process.wait(timeout=_SECONDS_TO_END)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _configuration(compute: TrainingComputeSettings) -> Path:
    on_cpu = compute.device == "cpu" or not torch.cuda.is_available()
    if not on_cpu and torch.cuda.device_count() < compute.processes:
        raise ValueError(
            f"compute.processes is {compute.processes}, and this machine has {torch.cuda.device_count()} GPUs; each "
            "process needs one of its own"
        )
    name = "fsdp2" if compute.sharding == "fsdp" else "cpu" if on_cpu else "ddp"
    return CONFIGURATIONS / f"{name}.yaml"


def _threads(processes: int) -> int:
    """OpenMP threads of a process: as the environment says, or the cores divided."""
    return int(os.environ.get("OMP_NUM_THREADS") or max(1, (os.cpu_count() or 1) // processes))


@contextmanager
def _owned(folder: Path) -> Iterator[None]:
    """Hold a lock that the system releases when this process dies: by it the others know that they are orphans."""
    with (folder / OWNER_FILE).open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def owner_is_gone(file: IO[str]) -> bool:
    """Whether nobody holds the lock of an open `OWNER_FILE` any more."""
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
