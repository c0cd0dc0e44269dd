"""Rewards of the Critic in stage III: format, score ranking, edit suggestion.

Each is in [0, 1]. A completion that does not parse earns 0 in all of them: it said nothing that could be judged.
"""

import math
from collections.abc import Sequence

import torch
from pydantic import Field
from torch import Tensor

from components.photometry.attributes import difference
from components.photometry.operations import KINDS, TONE, Operation, apply_operations
from components.strict import Strict
from components.training.divergence import DivergenceError
from components.verdict.grammar import Verdict

ATTRIBUTE_SCALE = {"exposure": 0.5, "contrast": 0.35, "saturation": 0.5, "temperature": 30.0}
"""Deviation of each attribute (EV, log2, log2, mired) that counts as one unit of distance: a clearly visible change."""


class CriticRewardSettings(Strict):
    """Weights of the Critic's reward terms; they need not sum to one."""

    format: float = Field(default=0.2, ge=0)
    ranking: float = Field(default=0.4, ge=0)
    suggestion: float = Field(default=0.4, ge=0)
    variance_floor: float = Field(default=9.0, gt=0, description="of the scores of a group, in squared points")

    @property
    def highest(self) -> float:
        """The reward of a completion that earns all terms in full."""
        return self.format + self.ranking + self.suggestion


def format_reward(verdict: Verdict | None) -> float:
    """1 when the grammar holds and every suggestion names an edit that can be carried out; half of it without that."""
    if verdict is None:
        return 0.0
    return 1.0 if all(s.operation is not None for s in verdict.suggestions) else 0.5


def attribute_distance(picture: Tensor, target: Tensor) -> float:
    """Euclidean distance of two pictures (3, H, W) in photometric attribute space, in units of `ATTRIBUTE_SCALE`.

    Raises:
        DivergenceError: it is not finite; a broken measure must not pass for a reward.
    """
    deviations = difference(target, picture)
    distance = math.sqrt(sum((float(deviations[name]) / scale) ** 2 for name, scale in ATTRIBUTE_SCALE.items()))
    if not math.isfinite(distance):
        raise DivergenceError(f"the photometric distance of a picture to its target is {distance}: one holds NaN")
    return distance


def apply_suggestions(verdict: Verdict, picture: Tensor) -> Tensor:
    """Carry out the tone suggestions of a verdict on a picture (3, H, W), as a user would with sliders.

    Faults come about in the order of `TONE`, so they are undone in the reverse order: a colour cast is lifted before
    colours are made stronger, or the cast would be made stronger too.
    """
    amounts = dict.fromkeys(reversed(TONE), 0.0)
    for suggestion in verdict.suggestions:
        if suggestion.operation in amounts:
            amounts[suggestion.operation] += suggestion.amount
    edits = [
        Operation(name=name, amount=max(KINDS[name].low, min(KINDS[name].high, amount)))
        for name, amount in amounts.items()
    ]
    return apply_operations(picture, edits)


def suggestion_reward(verdict: Verdict | None, picture: Tensor, target: Tensor) -> float:
    """Relative reduction of the photometric distance to the target by the suggested edits, mapped to [0, 1].

    0.5 is no change, 1 reaches the target, 0 doubles the distance or worse. Distances below half a unit count as half
    a unit, so that a photo with nothing to mend rewards leaving it alone.
    """
    if verdict is None:
        return 0.0
    before = attribute_distance(picture, target)
    after = attribute_distance(apply_suggestions(verdict, picture), target)
    return 0.5 + 0.5 * max(-1.0, min(1.0, (before - after) / max(before, 0.5)))


def ranking_rewards(scores: Sequence[Tensor], quality: Tensor, variance_floor: float, tie: float = 1.0) -> list[Tensor]:
    """Fidelity of score comparisons between every two photos of a batch (Tsai et al. 2007; VisualQuality-R1).

    The photos are inputs and their better versions, in any order, so pairs come reversed, tied and across photos, and
    "the edited one wins" cannot be learnt without looking.

    Args:
        scores: for each of the N photos the scores (G_i,) of its group of completions; NaN where one does not parse.
        quality: (N,) true quality of each photo, higher is better.
        variance_floor: added to the variance of a group's scores, so that equal scores do not divide by zero.
        tie: difference of quality up to which two photos should rank equal.

    Returns:
        for each photo rewards (G_i,) in [0, 1]: 0 where the completion does not parse; NaN nowhere.

    Raises:
        DivergenceError: a photo's true quality is not finite.
    """
    if not quality.isfinite().all():
        bad = int((~quality.isfinite()).sum())
        raise DivergenceError(f"the true quality of {bad} of {len(quality)} photos is not finite: no ranking")
    valid = [group[~group.isnan()] for group in scores]
    means = [float(group.mean()) if len(group) else math.nan for group in valid]
    variances = [float(group.var(correction=0)) if len(group) else math.nan for group in valid]
    rewards = []
    for i, group in enumerate(scores):
        terms = []
        for j in range(len(scores)):
            if i == j or math.isnan(means[j]):
                continue
            gap = float(quality[i] - quality[j])
            truth = 0.5 if abs(gap) <= tie else float(gap > 0)
            own_variance = variances[i] if len(valid[i]) else 0.0
            scale = math.sqrt(own_variance + variances[j] + variance_floor)
            p = torch.special.ndtr((group - means[j]) / scale)
            terms.append((p * truth).sqrt() + ((1 - p) * (1 - truth)).sqrt())
        fidelity = torch.stack(terms).mean(dim=0) if terms else torch.zeros_like(group)
        rewards.append(torch.where(group.isnan(), torch.zeros_like(group), fidelity).clamp(0, 1))
    return rewards
