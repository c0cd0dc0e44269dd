"""Batches in parts, for memory: what comes out does not depend on their size, except for rounding."""

from collections.abc import Callable, Sequence

from torch import Tensor, nn

from components.parallel.ranks import all_reduce_max
from components.parallel.sharding import is_sharded, sum_now

Part = Callable[[], Tensor]
"""Computes a part of a batch when it is called: in training what it adds to the loss () of the whole batch."""


def slices(count: int, at_once: int | None) -> list[slice]:
    """Consecutive rows of `count`, at most `at_once` in a slice; all in one when it is None."""
    step = at_once or max(1, count)
    return [slice(start, min(start + step, count)) for start in range(0, count, step)]


def in_step(model: nn.Module, parts: Sequence[Part]) -> list[Part]:
    """The parts, and where the model is sharded so many more, whose results are 0, that every rank has as many."""
    missing = all_reduce_max(len(parts)) - len(parts) if is_sharded(model) else 0
    return [*parts, *[lambda: 0.0 * parts[-1]()] * missing]


def accumulate(model: nn.Module, parts: Sequence[Part]) -> Tensor:
    """The loss () of a batch in parts, so that the activations of one part at a time are kept.

    The gradients of all parts but the last are in the model's parameters when this returns; the result is the sum of
    all losses, and its `backward` adds the gradients of the last part. With one part it is that part's loss.

    Args:
        model: that is trained.
        parts: at least one.
    """
    *before, last = in_step(model, parts)
    earlier = None
    for part in before:
        sum_now(model, last=False)
        loss = part()
        loss.backward()
        earlier = loss.detach() if earlier is None else earlier + loss.detach()
    sum_now(model, last=True)
    return last() if earlier is None else last() + earlier
