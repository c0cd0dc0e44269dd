"""Batches of pairs at the Artist's working size: every batch has one aspect, so nothing is padded or squeezed.

Sizes are columns of the index of the shards, so nothing is opened before it is drawn, and of several ranks each opens
what its own rows need. Which pairs a step gets is decided by the stage's generator alone.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from components.data.pairs import Pair, PairKind, PairReader
from components.data.samples import SampleError
from components.data.splits import Split
from components.imaging.photo import resize
from components.models.artist import Artist
from components.parallel.ranks import Share, everything, share
from components.parallel.sharding import slices
from components.training.held_out import HeldOutSettings, subset
from components.training.loading import Loader, LoadingSettings

Size = tuple[int, int]
"""Height and width in pixels."""


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


class _Loaded(NamedTuple):
    """A pair with its pictures: the input as stored, and input and target at the working size."""

    pair: Pair
    view: Tensor
    input: Tensor
    target: Tensor


class PairBatches:
    """The pairs of one split and of some kinds, grouped by working size.

    Args:
        held_out: which part of them is taken, if not all are.
        weights: how often a pair of a kind is drawn in proportion to other pairs; 1 for kinds that are not named.

    Raises:
        ValueError: there are no such pairs, or their index has no sizes.
    """

    def __init__(
        self,
        directory: Path,
        split: Split,
        kinds: Collection[PairKind],
        artist: Artist,
        loading: LoadingSettings | None = None,
        held_out: HeldOutSettings | None = None,
        weights: Mapping[PairKind, float] = MappingProxyType({}),
    ):
        self.reader = PairReader(directory, split, kinds)
        if not len(self.reader):
            raise ValueError(f"{directory}: no pairs of the split {split!r} and the kinds {sorted(kinds)}")
        stored = list(zip(self.reader.column("height"), self.reader.column("width"), strict=True))
        working = {size: artist.working_size(*size) for size in dict.fromkeys(stored)}
        self._sizes = [working[size] for size in stored]
        kind = self.reader.column("kind")
        chosen = list(range(len(stored)))
        if held_out is not None:
            strata = list(zip(kind, self._sizes, strict=True))
            chosen = subset(self.reader.column("id"), strata, held_out)
        self.buckets: dict[Size, list[int]] = {}
        for index in chosen:
            self.buckets.setdefault(self._sizes[index], []).append(index)
        self._weights = torch.tensor([weights.get(name, 1.0) for name in kind]) if weights else None
        self.loader = Loader(self._load, self._next, loading or LoadingSettings())

    def __len__(self) -> int:
        return sum(map(len, self.buckets.values()))

    def draw(self, count: int, generator: torch.Generator) -> PairBatch:
        """A batch from one bucket, drawn in proportion to the buckets' sizes; with repetition only if it must be.

        Of several ranks each loads its share of the `count` rows; they must draw with generators in the same state.
        """
        mine = share(count)
        return self._batch(mine.of(self._drawn(count, generator)), mine)

    def expect(self, count: int, generator: torch.Generator) -> None:
        """Begin to load what `draw` will give with a generator in this state, which stays as it is."""
        ahead = torch.Generator()
        ahead.set_state(generator.get_state())
        self.loader.expect(share(count).of(self._drawn(count, ahead)))

    def in_order(self, count: int) -> Iterator[PairBatch]:
        """All pairs once, in batches of at most `count`, always the same ones, of which each rank gets its share."""
        batches = self._in_order(count)
        shares = [share(len(rows)) for rows in batches]
        for number, (rows, mine) in enumerate(zip(batches, shares, strict=True)):
            batch = self._batch(mine.of(rows), mine)
            if number + 1 < len(batches):
                self.loader.expect(shares[number + 1].of(batches[number + 1]))
            yield batch

    def first(self, count: int) -> PairBatch:
        """The first batch of `in_order`, whole on every rank."""
        rows = self._in_order(count)[0]
        return self._batch(rows, everything(len(rows)))

    def column(self, name: str) -> list[Any]:
        """What the index says of every pair (`PairReader.column`), in the order of `in_order`."""
        values = self.reader.column(name)
        return [values[index] for bucket in self.buckets.values() for index in bucket]

    def _in_order(self, count: int) -> list[list[int]]:
        return [bucket[rows] for bucket in self.buckets.values() for rows in slices(len(bucket), count)]

    def _drawn(self, count: int, generator: torch.Generator) -> list[int]:
        """The pairs of a batch, of all ranks."""
        sizes = list(self.buckets)
        if self._weights is not None:
            return self._drawn_by_weight(count, self._weights, generator)
        weights = torch.tensor([float(len(self.buckets[size])) for size in sizes])
        bucket = self.buckets[sizes[int(torch.multinomial(weights, 1, generator=generator))]]
        rounds = -(-count // len(bucket))
        order = torch.cat([torch.randperm(len(bucket), generator=generator) for _ in range(rounds)])
        return [bucket[row] for row in order[:count].tolist()]

    def _drawn_by_weight(self, count: int, weights: Tensor, generator: torch.Generator) -> list[int]:
        """The same where pairs differ in weight: without repetition while the bucket lasts (Efraimidis 2006)."""
        of_buckets = [weights[bucket] for bucket in self.buckets.values()]
        totals = torch.stack([each.sum() for each in of_buckets])
        number = int(torch.multinomial(totals, 1, generator=generator))
        bucket, each = list(self.buckets.values())[number], of_buckets[number]
        usable = each.nonzero()[:, 0]
        rounds = [
            usable[(-torch.rand(len(usable), generator=generator).log() / each[usable]).argsort()]
            for _ in range(-(-count // len(usable)))
        ]
        return [bucket[row] for row in torch.cat(rounds)[:count].tolist()]

    def _next(self, index: int) -> int:
        bucket = self.buckets[self._sizes[index]]
        return bucket[(bucket.index(index) + 1) % len(bucket)]

    def _load(self, index: int) -> _Loaded:
        size = self._sizes[index]
        try:
            pair = self.reader[index]
            view = pair.input()
            return _Loaded(pair, view, resize(view, size), resize(pair.target(), size))
        except SampleError:
            raise
        except ValueError as error:
            raise SampleError(f"{self.reader.directory}: {self.reader.shards.key(index)}: {error}") from error

    def _batch(self, indices: list[int], mine: Share) -> PairBatch:
        loaded = self.loader.take(indices)
        return PairBatch(
            [one.pair for one in loaded],
            [one.view for one in loaded],
            torch.stack([one.input for one in loaded]),
            torch.stack([one.target for one in loaded]),
            mine,
        )
