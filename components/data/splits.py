"""Which photos train, which steer and which only judge: decided by a hash of the source photo, not by chance or order.

Everything made from a photo (views, pairs) inherits its split, so no picture is ever judged by something that was
trained on another version of it.
"""

import hashlib
from typing import Literal

from pydantic import Field, model_validator

from components.strict import Strict

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")
PUBLISHED: tuple[Split, ...] = ("train", "test")
"""The splits that most datasets are published in."""


class SplitSettings(Strict):
    """Shares of photos; what is left over by train and validation is test.

    With the defaults the 38 sample photos fall into 24 train, 4 validation and 10 test.
    """

    train: float = Field(default=0.65, gt=0, lt=1, description="Share of photos that models are trained on.")
    validation: float = Field(default=0.10, ge=0, lt=1, description="Share used to choose between checkpoints.")
    seed: int = Field(default=9, ge=0, description="Another seed draws other photos into each split.")

    @model_validator(mode="after")
    def _leaves_a_test_split(self) -> "SplitSettings":
        if self.train + self.validation >= 1:
            raise ValueError(
                f"train + validation must be below 1, found {self.train + self.validation:g}: no test photos"
            )
        return self


def split_of(photo_sha256: str, settings: SplitSettings | None = None) -> Split:
    """The split of a photo by the SHA-256 of its source file, as 64 hexadecimal digits.

    The digest is hashed once more with the seed and read as a number in [0, 1), so that the shares hold for any
    collection of files and adding photos never moves one that is already there.
    """
    settings = settings or SplitSettings()
    digest = hashlib.sha256(f"{settings.seed}:{photo_sha256}".encode()).digest()
    position = int.from_bytes(digest[:8], "big") / 2**64
    if position < settings.train:
        return "train"
    return "validation" if position < settings.train + settings.validation else "test"


def split_of_pair(pair: str, settings: SplitSettings | None = None) -> Split:
    """The split that all versions of one photo share, by the name they have in common (dataset/name)."""
    return split_of(hashlib.sha256(pair.encode()).hexdigest(), settings)
