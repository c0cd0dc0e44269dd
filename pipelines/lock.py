"""One pipeline at a time in a state folder: whoever trains, or changes data/ under those who train, holds its lock.

The lock can be handed to a child process without a moment in which nobody holds it: both have the same open file, and
the system keeps the lock until the last of them closes it, even when one is killed.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import lock_descriptor

from pipelines.environment import State

_HANDED_OVER = "SPC_PIPELINE_LOCK"  # environment variable: the number of the open file in the child
_held: dict[Path, int] = {}


class BusyError(RuntimeError):
    """Another pipeline is running in the same state folder."""


@contextmanager
def only_pipeline(state: State) -> Iterator[None]:
    """Hold the lock of ``state``; a second time in the same process it is held already.

    Raises:
        BusyError: another process holds it.
    """
    if state.lock in _held:
        yield
        return
    file = _opened(state.lock)
    try:
        if not lock_descriptor(file, blocking=False):
            raise BusyError(f"another pipeline is running here (it holds {state.lock}); wait for it to finish")
        _held[state.lock] = file
        yield
    finally:
        _held.pop(state.lock, None)
        os.close(file)  # which gives the lock back, unless a child has it, too


def handed_to_child(state: State) -> tuple[dict[str, str], tuple[int, ...]]:
    """Environment and ``pass_fds`` for a child process that is to hold the lock that is held here, too."""
    file = _held[state.lock]
    return {**os.environ, _HANDED_OVER: str(file)}, (file,)


def _opened(path: Path) -> int:
    """The lock's open file: the parent's, or one of its own where there is none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    inherited = os.environ.pop(_HANDED_OVER, "")
    if inherited:
        try:
            file = int(inherited)
            if os.path.samestat(os.fstat(file), path.stat()):
                os.set_inheritable(file, False)
                return file
        except (OSError, ValueError):
            pass  # of another process, or another state folder: this one asks for the lock like any other
    return os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
