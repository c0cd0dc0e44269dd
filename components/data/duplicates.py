"""Photos that look alike: pairs of 64-bit perceptual hashes within a few bits of each other."""

from collections import defaultdict
from collections.abc import Sequence
from itertools import pairwise

HASH_BITS = 64


def near_duplicates(hashes: Sequence[str], distance: int) -> list[tuple[int, int]]:
    """Pairs of indices (i < j) whose hashes differ in at most ``distance`` bits.

    Two such hashes agree completely in at least one of ``distance + 1`` disjoint bands of bits, so only hashes that
    share a band are compared: close to linear in the number of photos instead of quadratic.

    Args:
        hashes: 16 hexadecimal digits each, as `ImageHash.phash` gives.
        distance: bits, 0..15.

    Raises:
        ValueError: ``distance`` is out of range.
    """
    if not 0 <= distance < 16:
        raise ValueError(f"distance must lie in 0..15 bits, found {distance}")
    values = [int(text, 16) for text in hashes]
    edges = [round(HASH_BITS * band / (distance + 1)) for band in range(distance + 2)]
    found = set()
    for low, high in pairwise(edges):
        buckets: dict[int, list[int]] = defaultdict(list)
        for index, value in enumerate(values):
            buckets[(value >> low) & ((1 << (high - low)) - 1)].append(index)
        for bucket in buckets.values():
            for position, first in enumerate(bucket):
                for second in bucket[position + 1 :]:
                    if (values[first] ^ values[second]).bit_count() <= distance:
                        found.add((first, second))
    return sorted(found)
