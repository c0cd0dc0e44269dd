"""Rewards of the Artist in stage III: r_PA = r_comp (l1 r_photo + l2 r_perc).

Every term is in [0, 1] and logged alone.
"""

from dataclasses import dataclass
from typing import Protocol

import torch
from pydantic import Field
from torch import Tensor

from components.photometry.attributes import Attributes, difference, measure
from components.photometry.operations import TONE
from components.reinforcement.critic_rewards import ATTRIBUTE_SCALE
from components.strict import Strict
from components.training.divergence import DivergenceError
from components.verdict.grammar import Verdict


class ArtistRewardSettings(Strict):
    """Weights of the terms and how fast they fall."""

    photometric: float = Field(default=0.5, ge=0, le=1, description="weight l1 of r_photo")
    perceptual: float = Field(default=0.5, ge=0, le=1, description="weight l2 of r_perc")
    tolerance: float = Field(default=1.0, gt=0, description="tau of every attribute, in its visible unit")
    lpips_tolerance: float = Field(default=0.15, gt=0, description="LPIPS at which r_perc has fallen to 1/e")
    full_effect: float = Field(
        default=0.5, gt=0, le=1, description="share of a suggested amount that counts as having followed it"
    )


class PerceptualDistance(Protocol):
    """LPIPS or its like: distances (B,) of two batches of pictures (B, 3, H, W) in [0, 1]."""

    def __call__(self, pictures: Tensor, references: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class ArtistRewards:
    """Reward terms (B,) of B edits; `total` is r_PA."""

    compliance: Tensor
    photometric: Tensor
    perceptual: Tensor
    total: Tensor


def compliance(source: Tensor, edits: Tensor, verdict: Verdict, settings: ArtistRewardSettings) -> Tensor:
    """r_comp (B,) of the judge `attributes`: does every suggested tone edit move its measured attribute that way?

    A suggestion scores 0 when the attribute moved the other way, 1 from `full_effect` of the suggested amount on, and
    linearly between. Without tone suggestions the edit must leave the attributes where they are.

    Args:
        source: (3, H, W) the photo that the Critic saw, at the size of the edits.
        edits: (B, 3, H, W).
    """
    moved = difference(measure(source), measure(edits))
    tone = [s for s in verdict.suggestions if s.operation in TONE and s.amount]
    if not tone:
        return _closeness(moved, settings)
    scores = [moved[s.operation] / (s.amount * settings.full_effect) for s in tone]
    return torch.stack([score.clamp(0, 1) for score in scores]).mean(dim=0)


def photometric(edits: Tensor, target: Tensor, settings: ArtistRewardSettings) -> Tensor:
    """r_photo (B,): exp(-|d| / tau) of each attribute's deviation from the ground truth, averaged over the four."""
    reference: Attributes = measure(target)
    return _closeness(difference(reference, measure(edits)), settings)


def artist_rewards(
    source: Tensor,
    edits: Tensor,
    target: Tensor,
    verdict: Verdict,
    distance: PerceptualDistance,
    settings: ArtistRewardSettings,
    judged: Tensor | None = None,
) -> ArtistRewards:
    """All terms for the edits (B, 3, H, W) of one photo under one verdict.

    Args:
        judged: r_comp (B,) as a judge found it (`components.reinforcement.judges`); without one it is measured here, as
            the judge `attributes` does.

    Raises:
        DivergenceError: a term is not finite; a broken measure must not pass for a bad edit.
    """
    follow = compliance(source, edits, verdict, settings) if judged is None else judged
    photo = photometric(edits, target, settings)
    perceptual = torch.exp(-distance(edits, target.expand_as(edits)) / settings.lpips_tolerance)
    total = follow * (settings.photometric * photo + settings.perceptual * perceptual)
    terms = {"compliance": follow, "photometric": photo, "perceptual": perceptual}
    broken = [f"{name} of {int((~term.isfinite()).sum())}" for name, term in terms.items() if not term.isfinite().all()]
    if broken:
        raise DivergenceError(
            f"rewards of {len(total)} edits of a photo are not finite: {', '.join(broken)}; "
            f"{int((~edits.isfinite().flatten(1).all(dim=1)).sum())} of the edits hold NaN or infinity themselves"
        )
    return ArtistRewards(follow, photo, perceptual, total)


def _closeness(deviations: dict[str, Tensor], settings: ArtistRewardSettings) -> Tensor:
    terms = [
        torch.exp(-deviations[name].abs() / (settings.tolerance * scale)) for name, scale in ATTRIBUTE_SCALE.items()
    ]
    return torch.stack(terms).mean(dim=0)
