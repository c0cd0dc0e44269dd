"""Photos that look alike: pairs of 64-bit perceptual hashes within a few bits of each other.

Multi-index hashing (Norouzi, Punjani and Fleet 2012, Fast Search in Hamming Space with Multi-Index Hashing): cut into
four bands of 16 bits, two hashes within d bits of each other agree in at least one band up to d // 4 bits. Looking up
each band with those few bits flipped finds every such pair and touches few others: 200,000 hashes at d = 6 take
seconds, where comparing all with all takes 20 billion comparisons.
"""

from collections.abc import Iterator, Sequence
from itertools import combinations

import numpy as np

_BANDS, _BAND_BITS = 4, 16
_CANDIDATES = 1 << 20  # compared at a time


def twins_in_other_groups(hashes: Sequence[str], groups: Sequence[int], distance: int) -> np.ndarray:
    """For every hash the index of one within ``distance`` bits that belongs to another group, or -1: (N,) int64.

    Equal hashes of one group are looked up once, so thousands of black frames cost no more than one.

    Raises:
        ValueError: ``distance`` is not in 0..15, or there are not as many groups as hashes.
    """
    values, group_of = as_integers(hashes), np.asarray(groups, dtype=np.int64)
    if values.shape != group_of.shape:
        raise ValueError(f"expected a group for each of {values.size} hashes, found {group_of.size}")
    order = np.lexsort((group_of, values))
    fresh = np.ones(order.size, dtype=bool)
    fresh[1:] = (values[order][1:] != values[order][:-1]) | (group_of[order][1:] != group_of[order][:-1])
    different = order[fresh]
    which = np.empty(order.size, dtype=np.int64)
    which[order] = np.cumsum(fresh) - 1
    twin = np.full(different.size, -1, dtype=np.int64)
    for first, second in _near(values[different], distance):
        apart = group_of[different[first]] != group_of[different[second]]
        first, second = first[apart], second[apart]
        twin[first], twin[second] = different[second], different[first]
    return twin[which]


def look_alikes(hashes: Sequence[str], distance: int) -> tuple[np.ndarray, np.ndarray]:
    """Index arrays (i, j), i < j, that link the hashes within ``distance`` bits of each other.

    Each hash is linked to one equal to it, and each different hash to all that are near, so that what hangs together
    does so by the links; thousands of equal hashes give as many links and no more.

    Raises:
        ValueError: ``distance`` is not in 0..15.
    """
    values = as_integers(hashes)
    different, first, which = np.unique(values, return_index=True, return_inverse=True)
    own = np.arange(values.size)
    repeated = own != first[which]
    links = [(first[which][repeated], own[repeated])]
    links += [(first[one], first[other]) for one, other in _near(different, distance)]
    lower, upper = (np.concatenate(ends) for ends in zip(*links, strict=True))
    return np.minimum(lower, upper), np.maximum(lower, upper)


def as_integers(hashes: Sequence[str]) -> np.ndarray:
    """Hashes of 16 hexadecimal digits as (N,) uint64."""
    return np.fromiter((int(text, 16) for text in hashes), dtype=np.uint64, count=len(hashes))


def _near(values: np.ndarray, distance: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Index arrays (i, j), i < j, of hashes within ``distance`` bits; a pair may come more than once."""
    if not 0 <= distance < _BAND_BITS:
        raise ValueError(f"distance must lie in 0..15 bits, found {distance}")
    flips = [
        sum(1 << bit for bit in bits)
        for count in range(distance // _BANDS + 1)
        for bits in combinations(range(_BAND_BITS), count)
    ]
    for band in range(_BANDS):
        keys = (values >> np.uint64(band * _BAND_BITS)).astype(np.int64) & ((1 << _BAND_BITS) - 1)
        order = np.argsort(keys, kind="stable")
        starts = np.searchsorted(keys[order], np.arange((1 << _BAND_BITS) + 1))
        for flip in flips:
            probe = keys ^ flip
            low, count = starts[probe], starts[probe + 1] - starts[probe]
            for rows, positions in _ranges(low, count):
                second = order[positions]
                later = second > rows
                first, second = rows[later], second[later]
                near = np.bitwise_count(values[first] ^ values[second]) <= distance
                if near.any():
                    yield first[near], second[near]


def _ranges(low: np.ndarray, count: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Every position low[i] .. low[i] + count[i] - 1 with its row i, about `_CANDIDATES` at a time."""
    ends = np.cumsum(count)
    start = 0
    while start < low.size:
        before = ends[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, before + _CANDIDATES, side="right")))
        counts = count[start:stop]
        rows = np.repeat(np.arange(start, stop), counts)
        firsts = np.repeat(low[start:stop] - (ends[start:stop] - counts - before), counts)
        yield rows, firsts + np.arange(rows.size)
        start = stop
