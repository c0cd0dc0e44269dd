"""Atomic, verified checkpoints: a directory of safetensors that is either complete or not there.

A checkpoint is written under a temporary name, flushed to disk and renamed; its `state.json` carries the SHA-256 of the
tensors and of all else that it says, so a half-written or damaged one is recognised and the one before it is used.
"""

import hashlib
import json
import logging
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from components import files
from components.parallel import ranks

log = logging.getLogger(__name__)
STATE_FILE, TENSOR_FILE = "state.json", "tensors.safetensors"
_OWN = "own_sha256"


class CheckpointError(ValueError):
    """A folder is no whole, unaltered checkpoint; the message says what of it."""


@dataclass(frozen=True)
class Checkpoint:
    """What a stage needs to go on: the optimiser step, named tensors and JSON-able values."""

    step: int
    tensors: dict[str, Tensor]
    values: dict[str, Any]


class CheckpointStore:
    """The checkpoints of one training run; of several ranks the main one reads and writes them for all.

    Args:
        folder: where they lie. It outlives the process and belongs to one combination of inputs and settings: whoever
            names it must name another one for others, since what lies here is continued.
        keep: how many of the newest ones to keep.
    """

    def __init__(self, folder: Path, keep: int = 2):
        self.folder = Path(folder)
        self.keep = keep

    def save(self, checkpoint: Checkpoint) -> Path:
        """Write atomically, then prune. Raises OSError (a full disk, say) without touching older checkpoints."""
        final = self._path(checkpoint.step)
        if not ranks.is_main():
            return final
        self.folder.mkdir(parents=True, exist_ok=True)
        partial = self.folder / f".partial-{checkpoint.step:08d}-{os.getpid()}"
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        try:
            tensors = {name: tensor.detach().contiguous().cpu() for name, tensor in checkpoint.tensors.items()}
            try:
                save_file(tensors, partial / TENSOR_FILE)
            except SafetensorError as error:  # its own wrapper of what the system said
                raise OSError(f"{final}: cannot be written: {error}; older checkpoints are untouched") from error
            digest = hashlib.sha256((partial / TENSOR_FILE).read_bytes()).hexdigest()
            state = {"step": checkpoint.step, "values": checkpoint.values, "sha256": {TENSOR_FILE: digest}}
            (partial / STATE_FILE).write_text(json.dumps(state | {_OWN: _digest(state)}))
            for path in (partial / TENSOR_FILE, partial / STATE_FILE, partial):
                files.sync(path)
            shutil.rmtree(final, ignore_errors=True)
            partial.rename(final)
            files.sync(self.folder)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        for old in self._paths()[: -self.keep]:
            shutil.rmtree(old)
        return final

    def latest(self) -> Checkpoint | None:
        """The newest checkpoint that verifies, or None, the same on every rank, which must all call it.

        Damaged ones are named in the log and passed over.
        """
        found = self._newest() if ranks.is_main() else None
        if ranks.world_size() == 1:
            return found
        tensors, state = ranks.from_main(*((found.tensors, [found.step, found.values]) if found else (None, None)))
        return Checkpoint(state[0], tensors, state[1]) if state else None

    def newest_good(self) -> Path | None:
        """Where the newest checkpoint that verifies lies, as this process finds it by itself; None without one."""
        found = self._newest()
        return self._path(found.step) if found else None

    def _newest(self) -> Checkpoint | None:
        for path in reversed(self._paths()):
            try:
                return read_checkpoint(path)
            except CheckpointError as error:
                log.warning("checkpoint %s is damaged (%s); using the one before it", path, error)
        return None

    def clear(self) -> None:
        """Forget every checkpoint: the run is finished and its result kept elsewhere."""
        if ranks.is_main():
            shutil.rmtree(self.folder, ignore_errors=True)

    def _path(self, step: int) -> Path:
        return self.folder / f"step-{step:08d}"

    def _paths(self) -> list[Path]:
        return sorted(self.folder.glob("step-*"))


def read_checkpoint(path: Path) -> Checkpoint:
    """The checkpoint in a folder.

    Raises:
        CheckpointError: it is not whole, or altered; the message says what of it.
    """
    try:
        state = json.loads((path / STATE_FILE).read_text())
        if state.pop(_OWN) != _digest(state):
            raise ValueError(f"{STATE_FILE} does not match its SHA-256")
        if hashlib.sha256((path / TENSOR_FILE).read_bytes()).hexdigest() != state["sha256"][TENSOR_FILE]:
            raise ValueError(f"{TENSOR_FILE} does not match its SHA-256")
        return Checkpoint(state["step"], load_file(path / TENSOR_FILE), state["values"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError) as error:
        raise CheckpointError(str(error)) from error


def _digest(state: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()
