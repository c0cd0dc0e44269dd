"""Settings of stage III, the coordinated reinforcement learning of Critic and Artist."""

from typing import Literal

from pydantic import Field, model_validator

from components.models.compute import TrainingComputeSettings
from components.parallel.ranks import enough_rows
from components.reinforcement.alarm import Action, AlarmRule
from components.reinforcement.comparison import ComparisonSettings
from components.reinforcement.grpo import GrpoSettings
from components.reinforcement.nft import NftSettings
from components.reinforcement.rollouts import RolloutSettings
from components.strict import Strict
from components.training.loading import LoadingSettings
from components.training.observer import ObserverSettings


class ReinforceSettings(Strict):
    """Coordinated reinforcement learning of both modules."""

    iterations: int = Field(gt=0, description="Rounds of experience, each followed by updates of both models.")
    rollouts: RolloutSettings = Field(default_factory=RolloutSettings)
    grpo: GrpoSettings = Field(default_factory=GrpoSettings)
    nft: NftSettings = Field(default_factory=NftSettings)
    critic_learning_rate: float = Field(default=1e-5, gt=0, description="Of the Critic's adapter.")
    artist_learning_rate: float = Field(default=3e-4, gt=0, description="Of the Artist's adapter.")
    critic_updates: int = Field(default=1, ge=0, description="Optimiser steps per iteration; 0 freezes the Critic.")
    artist_updates: int = Field(default=2, ge=0, description="Optimiser steps per iteration; 0 freezes the Artist.")
    micro_batch: int = Field(default=16, gt=0, description="Samples in one pass of a rank, to limit memory.")
    artist_baseline: Literal["photo", "verdict"] = Field(
        default="photo",
        description='What an edit is compared with. "photo": all edits of its photo; "verdict": those that were made '
        "for the same verdict, so that what the verdict is worth, which the Artist cannot change, is no noise.",
    )
    advantage_scale: Literal["group", "round"] = Field(
        default="group",
        description="Standard deviation that the Artist's advantages are divided by: of an edit's group, or of all "
        "groups of the round together, as Edit-R1 has it.",
    )
    average_decay: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="Decay, by optimiser step, of the moving average of both adapters that the stage ends with; 0: "
        "their last state.",
    )
    feedback: float = Field(default=0.0, ge=0, description="Weight of an edit's r_PA in the reward of its verdict.")
    smallest_deviation: float = Field(
        default=0.005,
        ge=0,
        description="Groups whose rewards have a smaller standard deviation are dropped: they teach nothing.",
    )
    reference_share: float = Field(
        default=0.25, gt=0, le=1, description="Share of the micro-batches on which the divergence is measured."
    )
    validate_every: int = Field(default=10, gt=0, description="Iterations between validations.")
    checkpoint_every: int = Field(default=1, gt=0, description="Iterations between checkpoints.")
    comparison: ComparisonSettings = Field(default_factory=ComparisonSettings)
    pass_mark: float = Field(
        default=0.5, ge=0, le=1, description="Share of the highest reward from which the logs count a sample as passed."
    )
    alarm: Action = Field(
        default="warn", description="What to do when the held-out reward rises while the edits get worse."
    )
    alarm_rule: AlarmRule = Field(default_factory=AlarmRule)
    observer: ObserverSettings = Field(default_factory=ObserverSettings)
    loading: LoadingSettings = Field(default_factory=LoadingSettings)
    compute: TrainingComputeSettings = Field(default_factory=TrainingComputeSettings)
    seed: int = Field(default=0, ge=0, description="Of the batches, the sampling and the noise.")

    @model_validator(mode="after")
    def _every_process_has_work(self) -> "ReinforceSettings":
        enough_rows("rollouts.photos", self.rollouts.photos, self.compute.world_size)
        return self

    @model_validator(mode="after")
    def _edits_can_be_compared(self) -> "ReinforceSettings":
        if self.artist_baseline == "verdict" and self.rollouts.edits < 2:
            raise ValueError(
                f'artist_baseline "verdict" compares the edits of a verdict: rollouts.edits is {self.rollouts.edits}, '
                f"and must be at least 2"
            )
        if self.nft.levels == "sampler" and self.nft.timesteps > self.rollouts.sampling_steps:
            raise ValueError(
                f'nft.levels "sampler" has the {self.rollouts.sampling_steps} levels of rollouts.sampling_steps: '
                f"nft.timesteps is {self.nft.timesteps}, and must not be more"
            )
        return self
