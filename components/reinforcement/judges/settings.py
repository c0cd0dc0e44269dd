"""The choice of a judge by configuration: `reinforce.rollouts.judge`."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from components.parallel import ranks
from components.reinforcement.judges.judge import AttributeJudge, Judge
from components.reinforcement.judges.mllm import MllmJudge, MllmSettings
from components.reinforcement.rewards.artist import ArtistRewardSettings


class JudgeSettings(MllmSettings):
    """Which judge gates the Artist's reward; everything but `kind` is about the judge `mllm`."""

    kind: Literal["attributes", "mllm"] = Field(
        default="attributes", description="measured attributes, or the multimodal model at base_url"
    )


def make_judge(settings: JudgeSettings, rewards: ArtistRewardSettings, journal: Path | None) -> Judge:
    """The judge that the settings name.

    Args:
        rewards: what the judge `attributes` goes by.
        journal: where the judge `mllm` keeps its judgements; a run that goes on must name the same file.

    Raises:
        ValueError: the judge `mllm` without a journal.
    """
    if settings.kind == "attributes":
        return AttributeJudge(rewards)
    if journal is None:
        raise ValueError("the judge mllm keeps its judgements in a journal: name a file for it, or choose attributes")
    return MllmJudge(settings, journal)


def journal_in(folder: Path) -> Path:
    """Where a process of a stage keeps its judgements: beside the stage's checkpoints, a file for each rank."""
    return folder / f"judgements-{ranks.rank()}.jsonl"
