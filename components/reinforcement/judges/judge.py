"""What every judge of r_comp has in common, and the judge `attributes`, which measures and needs no model."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from components.photometry.attributes import difference, measure
from components.photometry.operations import TONE
from components.reinforcement.rewards.artist import ArtistRewardSettings
from components.reinforcement.rewards.attributes import closeness
from components.verdict.grammar import Verdict


class EditCase(NamedTuple):
    """Edits of one photo under one verdict.

    Attributes:
        source: (3, H, W) in [0, 1], the photo at the size of the edits.
        edits: (B, 3, H, W) in [0, 1].
        verdict: whose suggestions the edits should follow.
    """

    source: Tensor
    edits: Tensor
    verdict: Verdict


class Judge(Protocol):
    """Says how far edits follow the suggestions they were made for."""

    def compliance(self, cases: Sequence[EditCase]) -> list[Tensor]:
        """r_comp (B,) in [0, 1] of the edits of every case, in order, on the device of the edits.

        Raises:
            JudgeError: a judgement could not be had; nothing stands in for it.
        """
        ...


def judge_all(judge: Judge, cases: Sequence[EditCase | None]) -> list[Tensor | None]:
    """r_comp of every case, asked for together; None where there is no case, because a verdict did not parse.

    Raises:
        JudgeError: see `Judge.compliance`.
    """
    scores = iter(judge.compliance([case for case in cases if case is not None]))
    return [None if case is None else next(scores) for case in cases]


class AttributeJudge:
    """Every suggested tone edit must move its measured attribute the suggested way (`attribute_compliance`)."""

    def __init__(self, settings: ArtistRewardSettings) -> None:
        self.settings = settings

    def compliance(self, cases: Sequence[EditCase]) -> list[Tensor]:
        """See `Judge.compliance`; never fails."""
        return [attribute_compliance(case, self.settings) for case in cases]


def attribute_compliance(case: EditCase, settings: ArtistRewardSettings) -> Tensor:
    """r_comp (B,) of the judge `attributes`: does every suggested tone edit move its measured attribute that way?

    A suggestion scores 0 when the attribute moved the other way, 1 from `full_effect` of the suggested amount on, and
    linearly between. Without tone suggestions the edit must leave the attributes where they are.
    """
    moved = difference(measure(case.source), measure(case.edits))
    tone = [(s.operation, s.amount) for s in case.verdict.suggestions if s.operation in TONE and s.amount]
    if not tone:
        return closeness(moved, settings.tolerance)
    scores = [moved[operation] / (amount * settings.full_effect) for operation, amount in tone]
    return torch.stack([score.clamp(0, 1) for score in scores]).mean(dim=0)
