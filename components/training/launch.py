"""Run a stage in as many processes as its `compute.processes` says: here for one, through accelerate for several.

The processes run `python -m components.training STAGE --job FILE` (components/training/__main__.py). What the stage
reports comes back through a file, its result and its errors too; when the starting process dies, they die.
"""

import fcntl
import json
import logging
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import torch

from components.compute import TrainingComputeSettings
from components.strict import Strict
from components.training.events import EventReader
from components.training.tracker import Tracker

log = logging.getLogger(__name__)

ROOT = Path(__file__).resolve().parents[2]
CONFIGURATIONS = ROOT / "configs" / "accelerate"
JOB_FILE, RESULT_FILE, FAILURE_FILES, OWNER_FILE = "job.json", "result.json", "failure-*.json", "owner.lock"
_SECONDS_TO_END = 60.0


class StageError(RuntimeError):
    """A stage in several processes ended without a result; the message says which rank failed first, and of what.

    Attributes:
        exit_code: of the launcher.
    """

    def __init__(self, message: str, exit_code: int):
        super().__init__(message)
        self.exit_code = exit_code


class Job(Strict):
    """What the processes are to do.

    Attributes:
        settings: of the stage, as plain data.
        arguments: folders, by the names that the stage's function gives them.
    """

    settings: dict[str, Any]
    arguments: dict[str, Path]


class Failure(Strict):
    """How a rank failed, and when (seconds since the epoch)."""

    rank: int
    time: float
    error: str
    traceback: str


def launch(
    function: Callable[..., dict[str, float]], settings: Any, tracker: Tracker, **arguments: Path
) -> dict[str, float]:
    """What `function(settings=settings, tracker=tracker, **arguments)` returns, here or from several processes.

    Args:
        function: of a stage that `python -m components.training` knows by its name.
        settings: its settings; `settings.compute` says how many processes and how they hold the models.

    Raises:
        StageError: a process failed; the others are ended, and checkpoints stay for the next attempt.
        ValueError: there are fewer GPUs than processes.
    """
    compute: TrainingComputeSettings = settings.compute
    if compute.processes == 1:
        return function(settings=settings, tracker=tracker, **arguments)
    configuration = _configuration(compute)
    with tempfile.TemporaryDirectory(prefix="spc-stage-") as name:
        folder = Path(name)
        job = Job(settings=settings.model_dump(mode="json"), arguments={k: p.resolve() for k, p in arguments.items()})
        (folder / JOB_FILE).write_text(job.model_dump_json(), encoding="utf-8")
        command = [
            *(sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(configuration)),
            *("--num_processes", str(compute.processes), "--main_process_port", "0"),
            *("--num_cpu_threads_per_process", str(_threads(compute.processes))),
            *("-m", "components.training", function.__name__, "--job", str(folder / JOB_FILE)),
        ]
        log.info("%s: starting %d processes with %s", function.__name__, compute.processes, configuration.name)
        with _owned(folder):
            code = _run(command, EventReader(folder, tracker))
        result = folder / RESULT_FILE
        if code == 0 and result.exists():
            return json.loads(result.read_text(encoding="utf-8"))
        raise StageError(f"{function.__name__} in {compute.processes} processes: {_reason(folder, code)}", code)


def _run(command: list[str], events: EventReader) -> int:
    """Run to the end while events are handed on; returns the exit code."""
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    process = subprocess.Popen(command, env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)})
    try:
        while True:
            try:
                code = process.wait(timeout=0.5)
            except subprocess.TimeoutExpired:
                events.forward()
            else:
                events.forward()
                return code
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)  # which torchrun passes on
            try:
                process.wait(timeout=_SECONDS_TO_END)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _reason(folder: Path, code: int) -> str:
    found = [Failure.model_validate_json(path.read_text()) for path in folder.glob(FAILURE_FILES)]
    if not found:
        return (
            f"a process ended without a word (the launcher's exit code is {code}): killed, perhaps for want of memory, "
            "or by the watchdog, which has then said so on the standard error"
        )
    first = min(found, key=lambda failure: failure.time)
    return f"rank {first.rank} failed: {first.error}\n{first.traceback}"


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
