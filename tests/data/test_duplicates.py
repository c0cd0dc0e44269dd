"""Near duplicates, against comparing every pair of hashes."""

import random

import pytest

from components.data.duplicates import look_alikes, twins_in_other_groups


@pytest.mark.parametrize("distance", [0, 1, 4, 6, 15])
def test_finds_a_twin_exactly_where_there_is_one_within_the_distance(distance: int) -> None:
    rng = random.Random(distance)
    values = [rng.getrandbits(64) for _ in range(150)]
    for value in values[:100]:
        for bit in rng.sample(range(64), rng.randrange(12)):
            value ^= 1 << bit
        values.append(value)
    twins = twins_in_other_groups([f"{value:016x}" for value in values], range(len(values)), distance)
    near = [
        {other for other, b in enumerate(values) if other != index and (a ^ b).bit_count() <= distance}
        for index, a in enumerate(values)
    ]
    assert any(near)
    assert all(twin in others if others else twin == -1 for twin, others in zip(twins, near, strict=True))


def test_a_distance_that_bands_cannot_serve_is_refused() -> None:
    with pytest.raises(ValueError, match=r"0\.\.15"):
        twins_in_other_groups([], [], 16)


def test_twins_are_those_of_other_groups() -> None:
    rng = random.Random(1)
    values = [rng.getrandbits(64) for _ in range(300)]
    values += [value ^ (1 << rng.randrange(64)) ^ (1 << rng.randrange(64)) for value in values]
    values += values[:50]
    groups = [rng.randrange(3) for _ in values]
    twins = twins_in_other_groups([f"{value:016x}" for value in values], groups, 3)
    for index, (value, group) in enumerate(zip(values, groups, strict=True)):
        near = {
            other
            for other, candidate in enumerate(values)
            if groups[other] != group and (candidate ^ value).bit_count() <= 3
        }
        twin = int(twins[index])
        assert (twin == -1 and not near) or (values[twin], groups[twin]) in {(values[n], groups[n]) for n in near}
    assert (twins >= 0).any() and (twins < 0).any()


def test_thousands_of_black_frames_are_looked_up_once() -> None:
    hashes = ["0" * 16] * 60_000 + ["f" * 16] * 2
    twins = twins_in_other_groups(hashes, [0] * 59_999 + [1, 0, 0], 6)
    assert (twins[:59_999] == 59_999).all() and twins[59_999] < 59_999 and (twins[60_000:] == -1).all()
    with pytest.raises(ValueError, match="a group for each of 2 hashes"):
        twins_in_other_groups(hashes[:2], [0], 6)


def test_links_hold_together_whatever_is_near_and_each_copy_once() -> None:
    hashes = ["00000000000000ff", "00000000000000fe", "ffff000000000000", "00000000000000ff", "ffff000000000000"]
    first, second = look_alikes(hashes, 2)
    assert set(zip(first.tolist(), second.tolist(), strict=True)) == {(0, 1), (0, 3), (2, 4)}
    many = ["0" * 16] * 5000
    assert len(look_alikes(many, 6)[0]) == 4999
    assert look_alikes([], 6)[0].size == 0
