"""Photos of one scene share a split: versions of one photo, the frames of a burst or bracket, photos that look alike.

A hash decides the split of a photo, or of a pair, that no dataset has decided. Where several such photos show one
scene, a hash for each would put some of them among those that others are judged by. So photos are linked that

- have a pair or scene in common by their dataset,
- were taken by one camera with at most a few seconds between the end of one exposure and the beginning of the next,
- or look alike: few bits of their perceptual hashes differ,

and what hangs together gets one split: that of the published photos among them, or else that of the photo whose SHA-256
is the smallest, which does not depend on names or order.
"""

from collections.abc import Sequence

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from components.data.duplicates import look_alikes
from components.data.shots import read_shot
from components.data.splits import SPLITS, Split

_JUDGING_FIRST: tuple[Split, ...] = ("test", "validation", "train")


class Scenes:
    """What decides which rows of a manifest share a split, gathered row by row; a few words for each are held."""

    def __init__(self) -> None:
        self._published = bytearray()
        self._names: list[str | None] = []
        self._shots: dict[int, str] = {}
        self._datasets: list[str] = []

    def add(self, dataset: str, published: bool, name: str | None, shot: str) -> None:
        """Take in the next row.

        Args:
            published: whether its split is the dataset's own.
            name: of its pair or scene, or None.
            shot: as `components.data.shots.shot_of` writes it.
        """
        if shot and not published:
            self._shots[len(self._published)] = shot
        self._published.append(published)
        self._names.append(name)
        self._datasets.append(dataset)

    def splits(
        self,
        splits: Sequence[str],
        digests: Sequence[str],
        hashes: Sequence[str],
        distance: int | None,
        pause: float | None,
    ) -> np.ndarray:
        """The split of every row, (N,) of str.

        Args:
            splits: published, or by the hash of each photo or pair.
            digests: SHA-256 of the files.
            hashes: perceptual ones, 16 hexadecimal digits.
            distance: bits in which photos that look alike differ at most; None to let them be.
            pause: seconds between the shots of a burst at most; None to let them be.
        """
        shared = np.asarray(splits, dtype=object)
        free = ~np.frombuffer(bytes(self._published), dtype=bool)
        links = [*self._by_name(), *(() if pause is None else self._by_time(pause))]
        ends = [np.array(links, dtype=np.int64).reshape(-1, 2).T]
        if distance is not None and free.any():
            ends.append(np.stack(look_alikes(hashes, distance)))
        first, second = np.concatenate(ends, axis=1)
        size = len(shared)
        graph = coo_array((np.ones(len(first), dtype=bool), (first, second)), shape=(size, size))
        _, groups = connected_components(graph, directed=False)
        smallest: dict[int, int] = {}
        judged: dict[int, int] = {}
        for row, group in enumerate(groups.tolist()):
            if free[row]:
                known = smallest.setdefault(group, row)
                if digests[row] < digests[known]:
                    smallest[group] = row
            else:
                rank = _JUDGING_FIRST.index(shared[row])
                judged[group] = min(rank, judged.get(group, len(SPLITS)))
        own = shared.copy()
        for row in np.flatnonzero(free).tolist():
            group = int(groups[row])
            shared[row] = _JUDGING_FIRST[judged[group]] if group in judged else own[smallest[group]]
        return shared

    def _by_name(self) -> list[tuple[int, int]]:
        first: dict[str, int] = {}
        return [
            (first[name], row)
            for row, name in enumerate(self._names)
            if name is not None and first.setdefault(name, row) != row
        ]

    def _by_time(self, pause: float) -> list[tuple[int, int]]:
        """Links between the shots of one camera in one dataset that follow each other."""
        found = [(self._datasets[row], shot, row) for row, text in self._shots.items() if (shot := read_shot(text))]
        found.sort()
        links: list[tuple[int, int]] = []
        last: tuple[str, str] | None = None
        ended, previous = 0.0, -1
        for dataset, shot, row in found:
            if last == (dataset, shot.camera) and shot.begin - ended <= pause:
                links.append((previous, row))
                ended = max(ended, shot.end)
            else:
                ended = shot.end
            last, previous = (dataset, shot.camera), row
        return links
