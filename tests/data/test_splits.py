"""Splits: fixed by the photo alone, with the shares that are asked for."""

import hashlib

import pytest
from pydantic import ValidationError

from components.data.splits import SPLITS, SplitSettings, split_of

HASHES = [hashlib.sha256(str(index).encode()).hexdigest() for index in range(20_000)]


def test_shares_hold_within_sampling_error() -> None:
    found = [split_of(text) for text in HASHES]
    for split, share in zip(SPLITS, (0.65, 0.10, 0.25), strict=True):
        assert abs(found.count(split) / len(HASHES) - share) < 4 * (share * (1 - share) / len(HASHES)) ** 0.5


def test_growing_the_train_share_only_moves_photos_into_it() -> None:
    wide = SplitSettings(train=0.8, validation=0.1)
    assert all(split_of(text, wide) == "train" for text in HASHES if split_of(text) == "train")


def test_another_seed_draws_other_photos() -> None:
    other = SplitSettings(seed=1)
    assert 0.3 < sum(split_of(text) != split_of(text, other) for text in HASHES) / len(HASHES) < 0.7


def test_there_must_be_test_photos() -> None:
    with pytest.raises(ValidationError, match="no test photos"):
        SplitSettings(train=0.9, validation=0.1)
