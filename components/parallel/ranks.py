"""The processes (ranks) of a distributed run, and how they stay in step.

Every rank draws the same global batch from the same generator and works on its share of the rows, so that a run with
more ranks sees the samples, the noise and the order of a run with one. A rank's gradients and scalars are its part of
the whole: what belongs to the whole is the sum over the ranks, and it is formed once an optimiser step.

Nothing here needs a process group: without one there is a single rank, every share is everything, and every sum is its
only term, unchanged to the last bit.
"""

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed, nn
from torch.distributed.tensor import DTensor

BUCKET = 2**26
"""Gradients that travel in one all-reduce: an adapter's all do."""
Rows = TypeVar("Rows", Tensor, list[Any])


@contextmanager
def joined(device: str, timeout: timedelta | None = None) -> Iterator[None]:
    """Belong to the process group that the environment describes (RANK, WORLD_SIZE, MASTER_ADDR, ...), if it does.

    `accelerate launch` and `torchrun` write that environment, for one machine or several. Each rank gets the GPU of its
    LOCAL_RANK and NCCL; on CPUs there is gloo.

    Args:
        device: `compute.device` of the stage: "auto", "cpu" or "cuda".
        timeout: how long a rank waits for the others; PyTorch's default where None.
    """
    from accelerate import PartialState

    on_cpu = device == "cpu" or not torch.cuda.is_available()
    options: dict[str, Any] = {}
    if not on_cpu and "LOCAL_RANK" in os.environ:
        options["backend"] = "cuda:nccl,cpu:gloo"  # checkpoints travel from CPU to CPU
    if timeout is not None:
        options["timeout"] = timeout
    state = PartialState(cpu=on_cpu, **options)
    yield
    state.destroy_process_group()  # not after an error: taking leave of ranks that still wait could hang


def rank() -> int:
    """Number of this process, from 0."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def world_size() -> int:
    """Number of processes."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def is_main() -> bool:
    """Whether this process is the one that writes checkpoints, adapters and metrics."""
    return rank() == 0


@dataclass(frozen=True)
class Share:
    """The rows of a global batch that this rank works on.

    Attributes:
        rows: their indices in the global batch, ascending within a block.
        total: rows of the global batch.
        copies: ranks that work on these very rows: more than one where a batch has fewer rows than there are ranks.
        first: this is the rank among those that speaks for the rows.
    """

    rows: tuple[int, ...]
    total: int
    copies: int = 1
    first: bool = True

    @property
    def whole(self) -> bool:
        """Whether the share is everything, in order."""
        return self.rows == tuple(range(self.total))

    @property
    def weight(self) -> float:
        """What a mean over these rows counts in the mean over all: the weights of all ranks sum to 1."""
        return len(self.rows) / self.total / self.copies

    def of(self, everything: Rows) -> Rows:
        """The share's rows of a list or of a tensor's first dimension."""
        if len(everything) != self.total:
            raise ValueError(f"expected the {self.total} rows of the whole batch, found {len(everything)}")
        if self.whole:
            return everything
        return everything[list(self.rows)] if isinstance(everything, Tensor) else [everything[i] for i in self.rows]

    def each(self, count: int) -> "Share":
        """The share where every row stands `count` times in a row, as groups do."""
        rows = tuple(row * count + i for row in self.rows for i in range(count))
        return replace(self, rows=rows, total=self.total * count)

    def twice(self) -> "Share":
        """The share of a batch that is followed by another of the same length, divided alike."""
        return replace(self, rows=(*self.rows, *(self.total + row for row in self.rows)), total=2 * self.total)

    def split(self, at_once: int | None) -> list["Share"]:
        """The share in parts of at most `at_once` rows, in order; all in one when it is None."""
        step = at_once or max(1, len(self.rows))
        return [replace(self, rows=self.rows[start : start + step]) for start in range(0, len(self.rows), step)]

    def gather(self, values: Tensor) -> Tensor:
        """All rows (total, ...) of a tensor of which every rank has its own (len(rows), ...)."""
        if self.whole:
            return values
        everything = values.new_zeros(self.total, *values.shape[1:])
        if self.first:
            everything[list(self.rows)] = values
        distributed.all_reduce(everything)
        return everything


def everything(total: int) -> Share:
    """All of `total` rows, where nothing was divided."""
    return Share(tuple(range(total)), total)


def share(total: int) -> Share:
    """This rank's share of `total` rows."""
    return share_of(rank(), world_size(), total)


def share_of(rank: int, ranks: int, total: int) -> Share:
    """A rank's share of `total` rows: blocks whose sizes differ by one at most.

    Fewer rows than ranks, as at the end of a validation, are dealt out until every rank has one: nobody is idle where
    a pass needs them all, and nobody does more than `largest_share`. What is trained on has more (`enough_rows`).
    """
    if total < ranks:
        row = rank % total
        return Share((row,), total, copies=len(range(row, ranks, total)), first=rank < total)
    least, larger = divmod(total, ranks)
    start = rank * least + min(rank, larger)
    return Share(tuple(range(start, start + least + (rank < larger))), total)


def largest_share(ranks: int, total: int) -> int:
    """Rows of the rank that has most: what a step takes as long as, and what memory must hold."""
    return len(share_of(0, ranks, total).rows)


def enough_rows(setting: str, total: int, ranks: int) -> None:
    """Refuse to divide a batch among more ranks than it has rows, since those beyond would repeat others' work.

    Args:
        setting: names the number in the configuration.

    Raises:
        ValueError: there are fewer rows than ranks.
    """
    if total < ranks:
        raise ValueError(
            f"{setting} is {total}, which {ranks} processes cannot divide among them: set it to a multiple of {ranks}, "
            f"or start at most {total} processes"
        )


def exchange(values: Tensor, made: Sequence[Share], wanted: Sequence[Sequence[int]]) -> Tensor:
    """Rows of a batch that ranks have divided, brought to the ranks that want them; every rank must call it.

    Args:
        values: (B, ...) this rank's rows.
        made: by rank, the rows that it has.
        wanted: by rank, the rows that it wants, ascending.

    Returns:
        (len(wanted[rank()]), ...), in the order of `wanted`.
    """
    me, owner = rank(), {row: each for each, share in enumerate(made) if share.first for row in share.rows}
    here = {row: index for index, row in enumerate(made[me].rows)}
    sent = [[here[row] for row in rows if owner[row] == me] for rows in wanted]
    counts = [sum(owner[row] == each for row in wanted[me]) for each in range(len(made))]
    parts = [values.new_empty(count, *values.shape[1:]) for count in counts]
    parts[me] = values[sent[me]]
    moves = []
    for other in range(len(made)):
        if other != me and sent[other]:
            moves.append(distributed.P2POp(distributed.isend, values[sent[other]].contiguous(), other))
        if other != me and len(parts[other]):
            moves.append(distributed.P2POp(distributed.irecv, parts[other], other))
    for work in distributed.batch_isend_irecv(moves) if moves else ():
        work.wait()
    of_owner = [iter(part) for part in parts]
    rows = [next(of_owner[owner[row]]) for row in wanted[me]]
    return torch.stack(rows) if rows else values[:0]


def all_reduce(values: Mapping[str, float]) -> dict[str, float]:
    """The sum over the ranks of each value; all ranks must name the same ones, in the same order."""
    if world_size() == 1:
        return dict(values)
    sums = torch.tensor(list(values.values()), dtype=torch.float64, device=_device())
    distributed.all_reduce(sums)
    return dict(zip(values, sums.tolist(), strict=True))


def all_reduce_max(value: int) -> int:
    """The largest of the ranks' values."""
    if world_size() == 1:
        return value
    largest = torch.tensor(value, device=_device())
    distributed.all_reduce(largest, op=distributed.ReduceOp.MAX)
    return int(largest)


@torch.no_grad()
def sum_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replace every gradient by its sum over the ranks, in one all-reduce for up to `BUCKET` values.

    A parameter without a gradient on one rank counts as zero there, and stays without one only where no rank has any.
    Gradients of sharded parameters are left alone: FSDP has summed them.
    """
    if world_size() == 1:
        return
    for bucket in _buckets([p for p in parameters if not isinstance(p, DTensor)]):
        present = torch.tensor([float(p.grad is not None) for p in bucket], device=bucket[0].device)
        parts = [(p.grad if p.grad is not None else torch.zeros_like(p)).flatten().float() for p in bucket]
        flat = torch.cat([present, *parts])
        distributed.all_reduce(flat)
        sums = flat[len(bucket) :].split([p.numel() for p in bucket])
        for parameter, found, total in zip(bucket, flat.tolist(), sums, strict=False):
            parameter.grad = total.view_as(parameter).to(parameter.dtype) if found else None


def from_main(tensors: Mapping[str, Tensor] | None, values: Any) -> tuple[dict[str, Tensor], Any]:
    """What rank 0 passes, on every rank: named tensors on the CPU, and a value that JSON can hold."""
    if world_size() == 1:
        return dict(tensors or {}), values
    tensors = {name: tensor.cpu().contiguous() for name, tensor in (tensors or {}).items()}
    header = [(name, str(t.dtype).removeprefix("torch."), list(t.shape)) for name, t in tensors.items()]
    text = json.dumps([header, values]).encode()
    length = torch.tensor(len(text))
    distributed.broadcast(length, src=0)
    content = torch.frombuffer(bytearray(text if is_main() else bytes(int(length))), dtype=torch.uint8)
    distributed.broadcast(content, src=0)
    header, values = json.loads(content.numpy().tobytes())
    for name, dtype, shape in header:
        if not is_main():
            tensors[name] = torch.empty(shape, dtype=getattr(torch, dtype))
        if tensors[name].numel():
            distributed.broadcast(tensors[name].reshape(-1).view(torch.uint8), src=0)
    return tensors, values


def _buckets(parameters: list[nn.Parameter]) -> list[list[nn.Parameter]]:
    buckets: list[list[nn.Parameter]] = []
    room = 0
    for parameter in parameters:
        if not buckets or parameter.numel() > room:
            buckets.append([])
            room = BUCKET
        buckets[-1].append(parameter)
        room -= parameter.numel()
    return buckets


def _device() -> torch.device:
    """Where the group's fast collectives are: the GPU of this rank, or the CPU."""
    from accelerate import PartialState

    return PartialState().device
