"""The question that a plan answers: GPUs, assumptions, and what a profile does not say of photos and texts."""

from typing import Literal

from pydantic import Field

from components.strict import Strict

Sharding = Literal["ddp", "fsdp"]


class Workload(Strict):
    """What a profile does not say about photos and texts."""

    aspect: float = Field(default=1.5, gt=0, description="width of a photo by its height")
    prompt_tokens: int = Field(default=64, gt=0, description="of the Critic's prompt, the photo's tokens left out")
    completion_tokens: int = Field(default=800, gt=0, description="of an annotation that stage I of the Critic learns")
    area: int | None = Field(default=None, gt=0, description="pixels of the Artist's working picture; else the model's")


class PlanSettings(Strict):
    """The GPUs and the assumptions of a plan."""

    gpu: str = Field(description="one of components.planning.gpus")
    count: int = Field(default=1, gt=0, description="GPUs, of one node or of nodes as well connected")
    shardings: tuple[Sharding, ...] = Field(default=("ddp", "fsdp"), min_length=1)
    checkpointing: tuple[bool, ...] = Field(default=(False, True), min_length=1)
    mfu: float = Field(default=0.4, gt=0, le=1, description="share of the GPU's peak arithmetic that is reached")
    mfu_low: float = Field(default=0.2, gt=0, le=1, description="the same where less is reached: hours are a range")
    mbu: float = Field(default=0.6, gt=0, le=1, description="share of its memory bandwidth reached while decoding")
    reserve: float = Field(
        default=0.08, ge=0, lt=1, description="share of memory left to the driver, kernels' scratch and fragmentation"
    )
    workload: Workload = Field(default_factory=Workload)
