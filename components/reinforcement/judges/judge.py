"""What every judge of r_comp has in common, and the judge `attributes`, which measures and needs no model."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from torch import Tensor

from components.reinforcement.artist_rewards import ArtistRewardSettings, compliance
from components.verdict.grammar import Verdict


class Case(NamedTuple):
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

    def compliance(self, cases: Sequence[Case]) -> list[Tensor]:
        """r_comp (B,) in [0, 1] of the edits of every case, in order, on the device of the edits.

        Raises:
            JudgeError: a judgement could not be had; nothing stands in for it.
        """
        ...


def judge_all(judge: Judge, cases: Sequence[Case | None]) -> list[Tensor | None]:
    """r_comp of every case, asked for together; None where there is no case, because a verdict did not parse.

    Raises:
        JudgeError: see `Judge.compliance`.
    """
    scores = iter(judge.compliance([case for case in cases if case is not None]))
    return [None if case is None else next(scores) for case in cases]


class AttributeJudge:
    """Every suggested tone edit must move its measured attribute the suggested way (`artist_rewards`)."""

    def __init__(self, settings: ArtistRewardSettings) -> None:
        self.settings = settings

    def compliance(self, cases: Sequence[Case]) -> list[Tensor]:
        """See `Judge.compliance`; never fails."""
        return [compliance(case.source, case.edits, case.verdict, self.settings) for case in cases]
