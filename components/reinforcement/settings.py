"""Settings of stage III, the coordinated reinforcement learning of Critic and Artist."""

from pydantic import Field

from components.models.compute import TrainingComputeSettings
from components.reinforcement.alarm import Action, AlarmRule
from components.reinforcement.comparison import ComparisonSettings
from components.reinforcement.grpo import GrpoSettings
from components.reinforcement.nft import NftSettings
from components.reinforcement.rollouts import RolloutSettings
from components.strict import Strict
from components.training.observer import ObserverSettings


class ReinforceSettings(Strict):
    """Coordinated reinforcement learning of both modules."""

    iterations: int = Field(gt=0)
    rollouts: RolloutSettings = Field(default_factory=RolloutSettings)
    grpo: GrpoSettings = Field(default_factory=GrpoSettings)
    nft: NftSettings = Field(default_factory=NftSettings)
    critic_learning_rate: float = Field(default=1e-5, gt=0)
    artist_learning_rate: float = Field(default=3e-4, gt=0)
    critic_updates: int = Field(default=1, ge=0, description="optimiser steps an iteration; 0 freezes the Critic")
    artist_updates: int = Field(default=2, ge=0, description="optimiser steps an iteration; 0 freezes the Artist")
    micro_batch: int = Field(default=16, gt=0, description="samples in one backward pass")
    feedback: float = Field(default=0.0, ge=0, description="weight of an edit's r_PA in the reward of its verdict")
    smallest_deviation: float = Field(
        default=0.005, ge=0, description="groups whose rewards deviate less are dropped: they say nothing"
    )
    reference_share: float = Field(
        default=0.25, gt=0, le=1, description="share of the micro-batches on which the divergence is measured"
    )
    validate_every: int = Field(default=10, gt=0, description="iterations")
    checkpoint_every: int = Field(default=1, gt=0, description="iterations")
    comparison: ComparisonSettings = Field(default_factory=ComparisonSettings)
    pass_mark: float = Field(
        default=0.5, ge=0, le=1, description="share of the highest reward from which a sample counts as passed, in logs"
    )
    alarm: Action = Field(
        default="warn", description="what to do when the held-out reward rises while the edits get worse"
    )
    alarm_rule: AlarmRule = Field(default_factory=AlarmRule)
    observer: ObserverSettings = Field(default_factory=ObserverSettings)
    compute: TrainingComputeSettings = Field(default_factory=TrainingComputeSettings)
    seed: int = Field(default=0, ge=0)
