"""Parts of the tests that need a process of their own, because it is killed or kept from writing.

python -m tests.training.processes kill FOLDER STEP     train, and die by SIGKILL after that many steps
python -m tests.training.processes hang FOLDER STEP     train, and hang for ever after that many steps
python -m tests.training.processes full FOLDER BYTES    save a second checkpoint when no file may grow beyond BYTES
"""

import os
import resource
import signal
import sys
import threading
from pathlib import Path

import torch
from torch import Tensor, nn

from components.training.checkpoints import Checkpoint, CheckpointStore
from components.training.loop import OptimiserSettings, fit
from components.training.observer import ObserverSettings
from components.training.tracker import NullTracker, Tracker

SETTINGS = OptimiserSettings(learning_rate=0.05, steps=12, warmup_steps=3, ema_decay=0.9)
STEP, WEIGHT = 8, 100_000


def build_model() -> nn.Sequential:
    """A small network with known weights."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))


def train(
    model: nn.Module,
    folder: Path,
    die_after: int | None = None,
    by: signal.Signals | None = None,
    tracker: Tracker | None = None,
    hang: bool = False,
) -> dict[str, float]:
    """Regress noise drawn from the generator, a checkpoint every other step; interrupted after `die_after` steps."""

    def losses(step: int, generator: torch.Generator) -> dict[str, Tensor]:
        if step == die_after:
            if hang:
                threading.Event().wait()
            if by is None:
                raise KeyboardInterrupt
            os.kill(os.getpid(), by)
        inputs, noise = torch.randn(16, 4, generator=generator), torch.randn(16, 1, generator=generator)
        error = model(inputs) - inputs.sum(dim=1, keepdim=True) - 0.1 * noise
        return {"loss": error.square().mean(), "bias": error.mean()}

    store = CheckpointStore(folder)
    return fit("test", model.named_parameters(), losses, SETTINGS, tracker or NullTracker(), store, 3, 2, 2)


def save_on_a_full_disk(folder: Path, limit: int) -> None:
    """Save a small checkpoint, then one that does not fit; prints the error's type and what is left."""
    store = CheckpointStore(folder)
    store.save(Checkpoint(1, {"weight": torch.ones(8)}, {}))
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    try:
        store.save(Checkpoint(2, {"weight": torch.ones(WEIGHT)}, {}))
    except OSError as error:
        print("OSError", error)


if __name__ == "__main__":
    action, where, number = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    if action == "kill":
        train(build_model(), where, number, signal.SIGKILL)
    elif action == "hang":
        SETTINGS = SETTINGS.model_copy(update={"observer": ObserverSettings(watchdog_seconds=2)})
        train(build_model(), where, number, hang=True)
    else:
        save_on_a_full_disk(where, number)
