"""How fast a stage computes and how much memory it takes: samples, tokens and operations per second, peak memory.

Operations are those of `components.models.flops`, counted from the shapes that really pass through the models: what
gradient checkpointing computes again does not count, padding does. What the hardware could do at most is not known
here: the tracker is told on what the stage computes, and makes MFU of the operations where it knows the peak.
"""

import resource
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from components.parallel.ranks import all_reduce, world_size

_GIB = 2**30


class Hardware(NamedTuple):
    """What a stage computes on, as `Tracker.hardware` takes it."""

    device: str
    dtype: str
    devices: int


def hardware(device: torch.device, dtype: torch.dtype) -> Hardware:
    """That of all ranks, of which each has a device like this one's."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return Hardware(name, str(dtype).removeprefix("torch."), world_size())


class Meter:
    """Adds up what is counted while it measures (`components.training.passes` counts for the models of a stage).

    Args:
        samples: photos or pairs of a step, of all ranks together.
        hardware: what the ranks compute on, where that is known.
    """

    def __init__(self, samples: int = 0, hardware: Hardware | None = None):
        self.samples, self.hardware = samples, hardware
        self._running = False
        self._waited: Callable[[], float] = lambda: 0.0
        self._waited_before = 0.0
        self._tokens: Tensor
        self._clear()

    def watch(self, waited: Callable[[], float]) -> None:
        """Also report what `waited` says: the seconds so far in which a step had to wait for its pictures."""
        self._waited, self._waited_before = waited, waited()

    @contextmanager
    def measuring(self) -> Iterator[None]:
        """A step of training, without the validation and the pictures around it."""
        began, self._running = time.perf_counter(), True
        try:
            yield
        finally:
            self._running = False
            self._seconds += time.perf_counter() - began
        self._samples += self.samples

    def count(self, flops: int, tokens: Tensor | None = None) -> None:
        """Take the operations of a pass, and tokens () as a tensor, so that nothing waits for the GPU."""
        if self._running:
            self._flops += flops
            if tokens is not None:
                self._tokens = self._tokens.to(tokens.device) + tokens

    def report(self) -> dict[str, float]:
        """Rates over the steps since the last report, and the process's highest memory so far.

        Of several ranks, which must all call it, rates are of all together and memory is this one's.

        Returns:
            samples_per_second; data_wait, the seconds of a step in which a rank waited for its pictures, in the mean;
            critic_tokens_per_second, of prompts and completions without padding, read and written, where any were
            counted; teraflops_per_second; peak_device_gib on a GPU, peak_process_gib elsewhere.
        """
        rates = {}
        if self.samples and self._seconds:
            waited = self._waited() - self._waited_before
            counts = all_reduce({"flops": self._flops, "tokens": float(self._tokens), "waited": waited})
            rates["samples_per_second"] = self._samples / self._seconds
            rates["data_wait"] = counts["waited"] / world_size() * self.samples / self._samples
            if counts["tokens"]:
                rates["critic_tokens_per_second"] = counts["tokens"] / self._seconds
            rates["teraflops_per_second"] = counts["flops"] / self._seconds / 1e12
        self._clear()
        return rates | peak_memory()

    def _clear(self) -> None:
        self._samples, self._flops, self._seconds = 0, 0, 0.0
        self._waited_before = self._waited()
        self._tokens = torch.zeros(())


def peak_memory() -> dict[str, float]:
    """Highest memory of this process so far, in GiB: of tensors on its GPU, or else resident."""
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        return {"peak_device_gib": torch.cuda.max_memory_allocated() / _GIB}
    status = Path("/proc/self/status")
    if status.exists():  # Linux, where getrusage's figure includes what the process was forked from
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return {"peak_process_gib": int(line.split()[1]) * 1024 / _GIB}
    unit = 1 if sys.platform == "darwin" else 1024
    return {"peak_process_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / _GIB}
