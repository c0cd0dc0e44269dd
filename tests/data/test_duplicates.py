"""Near duplicates, against comparing every pair of hashes."""

import random
from itertools import combinations

import pytest

from components.data.duplicates import near_duplicates


@pytest.mark.parametrize("distance", [0, 1, 4, 6, 15])
def test_finds_exactly_the_pairs_within_the_distance(distance: int) -> None:
    rng = random.Random(distance)
    values = [rng.getrandbits(64) for _ in range(150)]
    for value in values[:100]:
        for bit in rng.sample(range(64), rng.randrange(12)):
            value ^= 1 << bit
        values.append(value)
    expected = [(i, j) for (i, a), (j, b) in combinations(enumerate(values), 2) if bin(a ^ b).count("1") <= distance]
    assert expected
    assert near_duplicates([f"{value:016x}" for value in values], distance) == expected


def test_a_distance_that_bands_cannot_serve_is_refused() -> None:
    with pytest.raises(ValueError, match=r"0\.\.15"):
        near_duplicates([], 16)
