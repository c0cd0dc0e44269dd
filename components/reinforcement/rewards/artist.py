"""Rewards of the Artist in stage III: r_PA = r_comp (l1 r_photo + l2 r_perc).

Every one is in [0, 1] and logged alone. To add one, write its function and its entry of `ARTIST_REWARDS`.
"""

from dataclasses import dataclass
from typing import Protocol

import torch
from pydantic import Field
from torch import Tensor

from components.photometry.attributes import difference, measure
from components.reinforcement.rewards.attributes import closeness
from components.reinforcement.rewards.table import Reward, total, weighted
from components.training.divergence import DivergenceError

TOTAL = "r_PA"
"""Title of the whole reward."""


class PerceptualDistance(Protocol):
    """LPIPS or its like: distances (B,) of two batches of pictures (B, 3, H, W) in [0, 1]."""

    def __call__(self, pictures: Tensor, references: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class Edited:
    """B edits of one photo under one verdict, and what they are judged by.

    Attributes:
        edits: (B, 3, H, W) in [0, 1].
        target: (3, H, W) the ground truth, at the size of the edits.
        followed: r_comp (B,) as a judge found it (`components.reinforcement.judges`).
        distance: of r_perc.
    """

    edits: Tensor
    target: Tensor
    followed: Tensor
    distance: PerceptualDistance


def compliance(edited: Edited, settings: "ArtistRewardSettings") -> Tensor:
    """r_comp (B,): how far each edit follows the suggestions it was made for, by the word of the judge."""
    return edited.followed


def photometric(edited: Edited, settings: "ArtistRewardSettings") -> Tensor:
    """r_photo (B,): exp(-|d| / tau) of each attribute's deviation from the ground truth, averaged over the four."""
    return closeness(difference(measure(edited.target), measure(edited.edits)), settings.tolerance)


def perceptual(edited: Edited, settings: "ArtistRewardSettings") -> Tensor:
    """r_perc (B,): exp(-LPIPS / tolerance) of each edit to the ground truth."""
    distances = edited.distance(edited.edits, edited.target.expand_as(edited.edits))
    return torch.exp(-distances / settings.lpips_tolerance)


ARTIST_REWARDS = {
    "compliance": Reward(compliance, "r_comp", weight=None),
    "photometric": Reward(photometric, "r_photo", weight=0.5, highest=1, description="weight l1 of r_photo"),
    "perceptual": Reward(perceptual, "r_perc", weight=0.5, highest=1, description="weight l2 of r_perc"),
}
ARTIST_COLUMNS = (*ARTIST_REWARDS, "total")
"""What `artist_rewards` returns, by name."""


class ArtistRewardSettings(weighted(ARTIST_REWARDS)):  # type: ignore[misc]  # its fields come from the table
    """Weights of the rewards and how fast they fall."""

    tolerance: float = Field(default=1.0, gt=0, description="tau of every attribute, in its visible unit")
    lpips_tolerance: float = Field(default=0.15, gt=0, description="LPIPS at which r_perc has fallen to 1/e")
    full_effect: float = Field(
        default=0.5, gt=0, le=1, description="share of a suggested amount that counts as having followed it"
    )


def artist_rewards(edited: Edited, settings: ArtistRewardSettings) -> dict[str, Tensor]:
    """All rewards (B,) of B edits by name, and r_PA as "total".

    Raises:
        DivergenceError: a reward is not finite; a broken measure must not pass for a bad edit.
    """
    values = {name: reward.value(edited, settings) for name, reward in ARTIST_REWARDS.items()}
    broken = [f"{name} of {int((~v.isfinite()).sum())}" for name, v in values.items() if not v.isfinite().all()]
    if broken:
        themselves = int((~edited.edits.isfinite().flatten(1).all(dim=1)).sum())
        raise DivergenceError(
            f"rewards of {len(edited.edits)} edits of a photo are not finite: {', '.join(broken)}; "
            f"{themselves} of the edits hold NaN or infinity themselves"
        )
    return values | {"total": total(ARTIST_REWARDS, values, settings)}
