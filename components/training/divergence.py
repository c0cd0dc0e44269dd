"""Divergence of a training loop: values that are not finite, or a loss that left its usual range; with a diagnosis."""

import math
import statistics
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from torch import Tensor
from torch.distributed.tensor import DTensor

from components.training.checkpoints import CheckpointStore

_ROWS, _NAMES = 5, 3  # of the diagnosis: last steps, and parameters that are named


class DivergenceError(ValueError):
    """A loss, gradient or reward is not finite, or a loss left its range; the last good checkpoint is untouched."""


class Diagnosis:
    """Remembers what a loop reported last, and puts it into the message when the loop diverges.

    Args:
        name: of the loop.
        parameters: that are trained, by name.
        store: of the loop's checkpoints.
    """

    def __init__(self, name: str, parameters: Mapping[str, Tensor], store: CheckpointStore):
        self.name, self.parameters, self.store = name, parameters, store
        self.rows: deque[tuple[int, Mapping[str, float]]] = deque(maxlen=_ROWS)

    def record(self, step: int, values: Mapping[str, float]) -> None:
        """What the finished step reported: losses, gradient norms, learning rates."""
        self.rows.append((step, values))

    @contextmanager
    def of(self, what: str) -> Iterator[None]:
        """Let a `DivergenceError` raised within say what was being done, and how things stand."""
        try:
            yield
        except DivergenceError as error:
            raise DivergenceError(f"{self.name}, {what}: {error}\n{self}") from error

    def __str__(self) -> str:
        """Parameters that are not finite, the last steps, and the checkpoint to go on from."""
        bad = [name for name, parameter in self.parameters.items() if not _local(parameter).isfinite().all()]
        named = ", ".join(bad[:_NAMES])
        lines = [
            f"  parameters: {len(bad)} of {len(self.parameters)} are not finite, first {named}"
            if bad
            else f"  parameters: all {len(self.parameters)} are finite"
        ]
        for step, values in self.rows:
            lines.append(f"  step {step}: " + ", ".join(f"{name} {value:.4g}" for name, value in values.items()))
        checkpoint = self.store.newest_good()
        lines.append(
            f"  last good checkpoint: {checkpoint}; the same command resumes from it"
            if checkpoint
            else f"  last good checkpoint: none in {self.store.folder}; the same command starts from the beginning"
        )
        return "\n".join(lines)


def require_finite(values: Mapping[str, float]) -> None:
    """Check the terms of a loss.

    Raises:
        DivergenceError: naming those that are not finite.
    """
    broken = [f"{name} is {value}" for name, value in values.items() if not math.isfinite(value)]
    if broken:
        raise DivergenceError(f"{', '.join(broken)}; lower the learning rate")


def _local(parameter: Tensor) -> Tensor:
    """This rank's part of a tensor that may be sharded: others may not have diverged, and would not answer."""
    return parameter.to_local() if isinstance(parameter, DTensor) else parameter


class SpikeWatch:
    """Notices a loss that stays far above its running median.

    A loss is out of range above m + k s, where m is the median of the last `window` losses that were in range, and s
    the larger of their scaled median absolute deviation, which for normally distributed losses is their standard
    deviation, and a hundredth of |m|. It watches once half a window is seen.

    Args:
        deviations: k; 0 watches nothing.
        patience: steps out of range, one after another, that count as divergence.
        window: losses of the median.
    """

    def __init__(self, deviations: float, patience: int, window: int):
        self.deviations, self.patience = deviations, patience
        self.window = window
        self.usual: deque[float] = deque(maxlen=window)
        self.streak = 0

    def see(self, name: str, loss: float) -> None:
        """Take the next loss.

        Raises:
            DivergenceError: it is the `patience`-th out of range.
        """
        limit = self._limit()
        if loss <= limit:
            self.streak = 0
            self.usual.append(loss)
            return
        self.streak += 1
        if self.streak >= self.patience:
            raise DivergenceError(
                f"{name} is {loss:.4g} and was above {limit:.4g} for {self.streak} steps, its median before being "
                f"{statistics.median(self.usual):.4g}; lower the learning rate"
            )

    def _limit(self) -> float:
        if not self.deviations or 2 * len(self.usual) < self.window:
            return math.inf
        median = statistics.median(self.usual)
        spread = 1.4826 * statistics.median(abs(loss - median) for loss in self.usual)
        return median + self.deviations * max(spread, 0.01 * abs(median))
