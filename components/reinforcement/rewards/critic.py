"""Rewards of the Critic in stage III: format, score ranking, edit suggestion.

Each is in [0, 1]. A completion that does not parse earns 0 in all of them: it said nothing that could be judged. To add
one, write its function and its entry of `CRITIC_REWARDS`.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from pydantic import Field
from torch import Tensor

from components.parallel.ranks import Share
from components.photometry.colour import delta_e_2000, srgb_to_lab
from components.reinforcement.rewards.attributes import apply_suggestions, attribute_distance
from components.reinforcement.rewards.table import Reward, total, weighted, weights
from components.training.divergence import DivergenceError
from components.verdict.grammar import Verdict


@dataclass(frozen=True)
class Verdicts:
    """What a group of G completions says about each of N pictures.

    Attributes:
        said: the N * G verdicts, G in a row for each picture; None where a completion does not parse.
        pictures: (3, H, W) each.
        targets: the better version (3, H, W) of each picture; of a better version, itself.
        share: which pictures of the whole round these are, where ranks have divided one.
    """

    said: Sequence[Verdict | None]
    pictures: Sequence[Tensor]
    targets: Sequence[Tensor]
    share: Share

    @property
    def group_size(self) -> int:
        """G."""
        return len(self.said) // len(self.pictures)

    def each(self, value: Callable[[Verdict, Tensor, Tensor], float]) -> Tensor:
        """Rewards (N, G) of verdicts one by one, from the verdict, its picture and its target; 0 where none parses."""
        values = [
            0.0 if verdict is None else value(verdict, self.pictures[row], self.targets[row])
            for row, verdict in ((i // self.group_size, verdict) for i, verdict in enumerate(self.said))
        ]
        return torch.tensor(values).view(-1, self.group_size)


def format_reward(verdicts: Verdicts, settings: "CriticRewardSettings") -> Tensor:
    """(N, G): 1 where the grammar holds and every suggestion names an edit that can be carried out; else half of it."""

    def value(verdict: Verdict, *_: Tensor) -> float:
        return 1.0 if all(suggestion.operation is not None for suggestion in verdict.suggestions) else 0.5

    return verdicts.each(value)


def ranking_reward(verdicts: Verdicts, settings: "CriticRewardSettings") -> Tensor:
    """(N, G): the fidelity with which scores rank the pictures of the whole round by their CIEDE2000 to the target."""
    said = torch.tensor([verdict.score if verdict else torch.nan for verdict in verdicts.said])
    quality = torch.tensor(
        [
            -float(delta_e_2000(srgb_to_lab(picture), srgb_to_lab(target)).mean())
            for picture, target in zip(verdicts.pictures, verdicts.targets, strict=True)
        ]
    )
    scores = verdicts.share.gather(said.view(-1, verdicts.group_size)).unbind()
    return verdicts.share.of(torch.stack(fidelity(scores, verdicts.share.gather(quality), settings.variance_floor)))


def suggestion_reward(verdicts: Verdicts, settings: "CriticRewardSettings") -> Tensor:
    """(N, G): how much nearer to its target the suggested edits bring each picture (`improvement`)."""
    return verdicts.each(improvement)


CRITIC_REWARDS = {
    "format": Reward(format_reward, "format", weight=0.2, description="of keeping to the grammar"),
    "ranking": Reward(ranking_reward, "ranking", weight=0.4, description="of scores that rank the photos rightly"),
    "suggestion": Reward(suggestion_reward, "suggestion", weight=0.4, description="of suggestions that help the photo"),
}


class CriticRewardSettings(weighted(CRITIC_REWARDS)):  # type: ignore[misc]  # its fields come from the table
    """Weights of the Critic's rewards; they need not sum to one."""

    variance_floor: float = Field(default=9.0, gt=0, description="of the scores of a group, in squared points")

    @property
    def highest(self) -> float:
        """The reward of a completion that earns all of them in full."""
        return sum(weights(CRITIC_REWARDS, self).values())


def critic_rewards(verdicts: Verdicts, settings: CriticRewardSettings) -> dict[str, Tensor]:
    """All rewards (N, G) by name, and their weighted sum as "total"; every rank must call it.

    Raises:
        DivergenceError: a measure of a picture is not finite; it must not pass for a bad verdict.
    """
    values = {name: reward.value(verdicts, settings) for name, reward in CRITIC_REWARDS.items()}
    return values | {"total": total(CRITIC_REWARDS, values, settings)}


def improvement(verdict: Verdict, picture: Tensor, target: Tensor) -> float:
    """Relative reduction of the photometric distance to the target by the suggested edits, mapped to [0, 1].

    0.5 is no change, 1 reaches the target, 0 doubles the distance or worse. Distances below half a unit count as half
    a unit, so that a photo with nothing to mend rewards leaving it alone.
    """
    before = attribute_distance(picture, target)
    after = attribute_distance(apply_suggestions(verdict, picture), target)
    return 0.5 + 0.5 * max(-1.0, min(1.0, (before - after) / max(before, 0.5)))


def fidelity(scores: Sequence[Tensor], quality: Tensor, variance_floor: float, tie: float = 1.0) -> list[Tensor]:
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
