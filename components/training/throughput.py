"""How fast a stage computes and how much memory it takes: samples, tokens and operations a second, MFU, peak memory.

Operations are those of `components.models.flops`, counted from the shapes that really pass through the models. MFU is
the share of the GPU's peak that they make up (Chowdhery et al. 2022): what gradient checkpointing computes again does
not count, padding does. On other devices than the GPUs that are known the operations a second stand alone.
"""

import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from components.parallel.ranks import size, summed
from components.planning.gpus import GPUS

_BOARDS = {
    "NVIDIA A100-SXM4-40GB": "A100-40G",
    "NVIDIA A100-PCIE-40GB": "A100-40G",
    "NVIDIA A100-SXM4-80GB": "A100-80G",
    "NVIDIA A100 80GB PCIe": "A100-80G",
    "NVIDIA H100 80GB HBM3": "H100-80G",
    "NVIDIA H200": "H200-141G",
    "NVIDIA B200": "B200-180G",
    "NVIDIA L40S": "L40S-48G",
    "NVIDIA GeForce RTX 4090": "RTX4090-24G",
}
"""The planner's name of a GPU by its driver's: slower boards of the same chip (H100 PCIe) are not among them."""
_GIB = 2**30


class Meter:
    """Adds up what is counted while it measures (`components.training.passes` counts for the models of a stage).

    Args:
        samples: photos or pairs of a step, of all ranks together.
        peak: operations a second that this rank's device could do, None where that is not known.
    """

    def __init__(self, samples: int = 0, peak: float | None = None):
        self.samples, self.peak = samples, peak
        self._running = False
        self._clear()

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
            samples_per_second; critic_tokens_per_second, of prompts and completions without padding, read and written,
            where any were counted; teraflops_per_second, and mfu where the peak is known; peak_device_gib on a GPU,
            peak_process_gib elsewhere.
        """
        rates = {}
        if self.samples and self._seconds:
            counts = summed({"flops": self._flops, "tokens": float(self._tokens)})
            rates["samples_per_second"] = self._samples / self._seconds
            if counts["tokens"]:
                rates["critic_tokens_per_second"] = counts["tokens"] / self._seconds
            rates["teraflops_per_second"] = counts["flops"] / self._seconds / 1e12
            if self.peak:
                rates["mfu"] = counts["flops"] / self._seconds / (self.peak * size())
        self._clear()
        return rates | peak_memory()

    def _clear(self) -> None:
        self._samples, self._flops, self._seconds, self._tokens = 0, 0, 0.0, torch.zeros(())


def peak_flops(device: torch.device, dtype: torch.dtype) -> float | None:
    """Peak operations a second of a GPU that the planner knows, None of other devices."""
    board = _BOARDS.get(torch.cuda.get_device_name(device)) if device.type == "cuda" else None
    if board is None:
        return None
    return GPUS[board].flops if dtype == torch.bfloat16 else GPUS[board].flops_float32


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
