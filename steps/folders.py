"""Where steps keep files while they work: outputs before they are stored, and checkpoints that outlive the process.

Both are named after ZenML's cache key of the step, which is a digest of its code, settings and inputs. A step that
died and is run again unchanged has the same key and so finds its checkpoints; one whose inputs changed does not.
"""

import os
import shutil
import uuid
from collections.abc import Callable
from pathlib import Path

from zenml import get_step_context

from components import files
from steps.pods import STATE_VARIABLE


def state_folder() -> Path:
    """The folder named by ``$SPC_STATE``, or ``.spc`` in the working directory."""
    return Path(os.environ.get(STATE_VARIABLE) or ".spc").resolve()


def output_folder() -> Path:
    """A new empty folder for the outputs of the running step; :func:`discard` removes it after the run."""
    folder = state_folder() / "work" / _name_of_running_step()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def checkpoint_folder() -> Path:
    """The folder in which the running step finds the checkpoints of an earlier attempt, if there was one."""
    folder = state_folder() / "checkpoints" / _name_of_running_step()
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def job_folder() -> Path:
    """The folder of the job that the running step prepares for several nodes; it stays, with the result in it."""
    return state_folder() / "nodes" / _name_of_running_step()


def shared_folder(name: str, source: Callable[[], Path]) -> Path:
    """The copy of a folder that pods on all nodes can read, made from ``source()`` if it is not there yet."""
    target = state_folder() / "inputs" / name
    if not target.exists():
        partial = target.with_name(f".{name}.{uuid.uuid4().hex}")
        shutil.copytree(source(), partial)
        try:
            partial.rename(target)
            files.sync(target.parent)
        except OSError:  # another step was quicker
            if not target.exists():
                raise
            shutil.rmtree(partial)
    return target


def discard(state: Path, keep_checkpoints: bool) -> None:
    """Remove outputs that are stored by now and, unless a step has yet to resume from them, the checkpoints."""
    shutil.rmtree(state / "work", ignore_errors=True)
    if not keep_checkpoints:
        shutil.rmtree(state / "checkpoints", ignore_errors=True)


def _name_of_running_step() -> str:
    step_run = get_step_context().step_run
    return f"{step_run.name}-{step_run.cache_key}"
