"""Streaming shards into training: a shuffle that seed and epoch decide, split over consumers, resumed at the sample.

An epoch has one global order: shards are permuted, and the samples of every few consecutive shards (a window) are
permuted together. Each consumer (a rank, or a worker of one) takes an equal, contiguous piece of that order, so it
reads few shards and reads them whole: memory-mapped where they are local files, fetched one window ahead where they
are not. The order is computed, never stored, so a position is enough to go on exactly where a run stopped.
"""

import hashlib
import mmap
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from fsspec.implementations.local import LocalFileSystem
from torch.utils.data import IterableDataset, get_worker_info

from components.data.shards import Sample, ShardSet, cut, span
from components.seeding import generator_for

T = TypeVar("T")


class _Piece(NamedTuple):
    """Part of a shard in memory: its bytes from ``start`` on."""

    start: int
    content: memoryview


class _Window(NamedTuple):
    """Samples that are read together: rows of the index in the order of reading, and the pieces they lie in."""

    rows: list[dict[str, Any]]
    pieces: "dict[str, Future[_Piece]]"


class ShardStream(IterableDataset[T]):
    """The samples of a shard set, one epoch per iteration.

    Each consumer gets the same number of samples: what is left over, fewer than there are consumers, waits for another
    epoch. Workers of a `torch.utils.data.DataLoader` share the piece of their rank in the same way.

    Args:
        shards: what to read.
        decode: makes of a sample what the stream yields.
        seed: of the shuffle.
        shuffle: False for the order of the index.
        window: shards whose samples are shuffled together, and which are held in memory if they are remote.
        rank, ranks: which of how many processes this is.

    Raises:
        ValueError: an impossible rank or window.
    """

    def __init__(
        self,
        shards: ShardSet,
        decode: Callable[[Sample], T],
        *,
        seed: int = 0,
        shuffle: bool = True,
        window: int = 4,
        rank: int = 0,
        ranks: int = 1,
    ) -> None:
        if not 0 <= rank < ranks or window < 1:
            raise ValueError(f"expected 0 <= rank < ranks and window >= 1, found {rank}, {ranks} and {window}")
        self.shards, self.decode = shards, decode
        self.seed, self.shuffle, self.window = seed, shuffle, window
        self.rank, self.ranks = rank, ranks
        self._epoch = self._position = 0
        names = shards.index["shard"].to_pylist()
        firsts = [row for row, name in enumerate(names) if row == 0 or names[row - 1] != name]
        self._bounds = np.array([*firsts, len(names)], dtype=np.int64)

    def __len__(self) -> int:
        """Samples an epoch of this consumer."""
        return len(self.shards) // self._consumer()[1]

    @property
    def epoch(self) -> int:
        """The epoch that the next sample is of."""
        return self._epoch

    def set_epoch(self, epoch: int) -> None:
        """Go to the beginning of an epoch."""
        self._epoch, self._position = epoch, 0

    def state_dict(self) -> dict[str, Any]:
        """Where the stream is, after the last sample it gave, as plain data."""
        return self._identity() | {"epoch": self._epoch, "position": self._position}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go to where another stream was, which read the same samples in the same way.

        Raises:
            ValueError: the state is of other samples, another seed or another number of consumers.
        """
        own = self._identity()
        if odd := [name for name in own if state.get(name) != own[name]]:
            found = ", ".join(f"{name} {state.get(name)!r}" for name in odd)
            expected = ", ".join(f"{name} {own[name]!r}" for name in odd)
            raise ValueError(f"the position is of another stream: expected {expected}, found {found}; start afresh")
        self._epoch, self._position = int(state["epoch"]), int(state["position"])

    def __iter__(self) -> Iterator[T]:
        consumer, _ = self._consumer()
        length = len(self)
        begin = consumer * length + self._position
        for window in self._windows(self._epoch, begin, (consumer + 1) * length):
            for row in window.rows:
                piece = window.pieces[row["shard"]].result()
                sample = cut(piece.content, piece.start, row["members"])
                self._position += 1
                yield self.decode(sample)
        self.set_epoch(self._epoch + 1)

    def _windows(self, epoch: int, begin: int, end: int) -> Iterator[_Window]:
        """The windows that hold positions ``begin`` to ``end``, each fetched while the one before is used."""
        count = len(self._bounds) - 1
        order = np.arange(count)
        if self.shuffle:
            order = torch.randperm(count, generator=generator_for(self.seed, "shards", epoch)).numpy()
        groups = [order[start : start + self.window] for start in range(0, count, self.window)]
        sizes = np.diff(self._bounds)
        edges = [0, *accumulate(int(sizes[group].sum()) for group in groups)]
        wanted = [number for number in range(len(groups)) if edges[number] < end and edges[number + 1] > begin]
        pool = ThreadPoolExecutor(self.window, thread_name_prefix="shards")

        def fetch(number: int) -> _Window:
            rows = np.concatenate([np.arange(self._bounds[shard], self._bounds[shard + 1]) for shard in groups[number]])
            if self.shuffle:
                generator = generator_for(self.seed, "window", epoch, number)
                rows = rows[torch.randperm(len(rows), generator=generator).numpy()]
            rows = rows[max(0, begin - edges[number]) : end - edges[number]]
            found = self.shards.index.select(["shard", "members"]).take(rows).to_pylist()
            spans: dict[str, tuple[int, int]] = {}
            for row in found:
                low, high = span(row["members"])
                known = spans.get(row["shard"], (low, high))
                spans[row["shard"]] = min(low, known[0]), max(high, known[1])
            return _Window(found, {shard: pool.submit(self._read, shard, *part) for shard, part in spans.items()})

        try:
            following = fetch(wanted[0]) if wanted else None
            for number in [*wanted[1:], None]:
                current, following = following, None if number is None else fetch(number)
                if current is not None:
                    yield current
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def _read(self, shard: str, start: int, stop: int) -> _Piece:
        """A piece of a shard: a view of the page cache for a local file, one request for a remote one."""
        path = self.shards.path(shard)
        if not isinstance(self.shards.files, LocalFileSystem):
            return _Piece(start, memoryview(self.shards.files.cat_file(path, start=start, end=stop)))
        with Path(path).open("rb") as file:
            return _Piece(0, memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)))

    def _consumer(self) -> tuple[int, int]:
        """Which of how many consumers this is, the workers of a data loader counted."""
        info = get_worker_info()
        if info is None:
            return self.rank, self.ranks
        return self.rank * info.num_workers + info.id, self.ranks * info.num_workers

    def _identity(self) -> dict[str, Any]:
        """What a position depends on."""
        digest = hashlib.sha256()
        for name in ("shard", "key"):
            digest.update("\n".join(self.shards.index[name].to_pylist()).encode())
        consumer, consumers = self._consumer()
        return {
            "samples": digest.hexdigest(),
            "seed": self.seed,
            "shuffle": self.shuffle,
            "window": self.window,
            "consumer": consumer,
            "consumers": consumers,
        }
