"""Batches of pairs at the Artist's working size: every batch has one aspect, so nothing is padded or squeezed."""

import struct
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from components.data.pairs import Pair, PairKind, PairReader
from components.data.splits import Split
from components.imaging.photo import resize
from components.models.artist import Artist
from components.parallel.ranks import Share, everything, share
from components.parallel.sharding import slices


@dataclass(frozen=True)
class PairBatch:
    """B pairs of one aspect.

    Attributes:
        pairs: their records.
        views: the inputs as stored, (3, h, w), for the Critic to look at.
        inputs: (B, 3, H, W) at the working size.
        targets: (B, 3, H, W) at the working size.
        share: which rows of a larger batch these are, where ranks have divided one; all of them by default.
    """

    pairs: list[Pair]
    views: list[Tensor]
    inputs: Tensor
    targets: Tensor
    share: Share = None  # type: ignore[assignment]  # everything, as `__post_init__` makes it

    def __post_init__(self) -> None:
        object.__setattr__(self, "share", everything(len(self.pairs)) if self.share is None else self.share)

    def divided(self) -> "PairBatch":
        """This rank's share of a batch that all ranks have."""
        mine = share(len(self.pairs))
        return PairBatch(
            mine.of(self.pairs), mine.of(self.views), mine.of(self.inputs), mine.of(self.targets), share=mine
        )

    def split(self, at_once: int | None) -> list["PairBatch"]:
        """The batch in parts of at most `at_once` pairs, in order, each knowing its rows; all in one if it is None."""
        parts = zip(slices(len(self.pairs), at_once), self.share.split(at_once), strict=True)
        return [
            PairBatch(self.pairs[rows], self.views[rows], self.inputs[rows], self.targets[rows], mine)
            for rows, mine in parts
        ]

    def draw(self, sample: Callable[[int], Tensor]) -> Tensor:
        """This batch's rows of what `sample` draws for the number of rows of the whole batch."""
        return self.share.of(sample(self.share.total))

    def to(self, device: torch.device) -> "PairBatch":
        """The same with inputs and targets on `device`."""
        return replace(self, inputs=self.inputs.to(device), targets=self.targets.to(device))

    @property
    def instructions(self) -> list[str]:
        return [pair.instruction for pair in self.pairs]


class PairBatches:
    """The pairs of one split and of some kinds, grouped by working size.

    Raises:
        ValueError: there are no such pairs.
    """

    def __init__(self, directory: Path, split: Split, kinds: Collection[PairKind], artist: Artist):
        self.reader = PairReader(directory, split, kinds)
        if not len(self.reader):
            raise ValueError(f"{directory}: no pairs of the split {split!r} and the kinds {sorted(kinds)}")
        self.buckets: dict[tuple[int, int], list[int]] = {}
        for index, pair in enumerate(self.reader):
            width, height = struct.unpack(">II", pair.input_png[16:24])  # of the IHDR chunk, which always comes first
            self.buckets.setdefault(artist.working_size(height, width), []).append(index)

    def __len__(self) -> int:
        return len(self.reader)

    def draw(self, count: int, generator: torch.Generator) -> PairBatch:
        """A batch from one bucket, drawn in proportion to the buckets' sizes; with repetition only if it must be.

        Of several ranks each loads its share of the `count` rows; they must draw with generators in the same state.
        """
        sizes = list(self.buckets)
        weights = torch.tensor([float(len(self.buckets[size])) for size in sizes])
        size = sizes[int(torch.multinomial(weights, 1, generator=generator))]
        bucket = self.buckets[size]
        order = torch.cat([torch.randperm(len(bucket), generator=generator) for _ in range(-(-count // len(bucket)))])
        mine = share(count)
        return replace(self._load([bucket[i] for i in mine.of(order[:count]).tolist()], size), share=mine)

    def in_order(self, count: int) -> list[PairBatch]:
        """All pairs once, in batches of at most `count`, always the same ones."""
        return [
            self._load(bucket[start : start + count], size)
            for size, bucket in self.buckets.items()
            for start in range(0, len(bucket), count)
        ]

    def _load(self, indices: list[int], size: tuple[int, int]) -> PairBatch:
        pairs = [self.reader[index] for index in indices]
        views = [pair.input() for pair in pairs]
        inputs = torch.stack([resize(view, size) for view in views])
        targets = torch.stack([resize(pair.target(), size) for pair in pairs])
        return PairBatch(pairs, views, inputs, targets)
