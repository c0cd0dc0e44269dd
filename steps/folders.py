"""Where steps keep files while they work: outputs before they are stored, and checkpoints that outlive the process.

Both are named after ZenML's cache key of the step, which is a digest of its code, settings and inputs. A step that
died and is run again unchanged has the same key and so finds its checkpoints; one whose inputs changed does not.
"""

import os
import shutil
from pathlib import Path

from zenml import get_step_context

STATE_VARIABLE = "SPC_STATE"


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


def discard(state: Path, keep_checkpoints: bool) -> None:
    """Remove outputs that are stored by now and, unless a step has yet to resume from them, the checkpoints."""
    shutil.rmtree(state / "work", ignore_errors=True)
    if not keep_checkpoints:
        shutil.rmtree(state / "checkpoints", ignore_errors=True)


def _name_of_running_step() -> str:
    step_run = get_step_context().step_run
    return f"{step_run.name}-{step_run.cache_key}"
