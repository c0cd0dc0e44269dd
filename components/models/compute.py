"""Where and in which precision models compute: settings of every stage that loads one.

Randomness stays reproducible across devices: batches, noise levels and noise are drawn on the CPU from the stage's own
generator, which is what a checkpoint keeps; only a sampler that must draw where its logits lie gets a generator of that
device, seeded from the stage's.
"""

from typing import Literal, NamedTuple, Protocol

import torch
from pydantic import Field

from components.parallel import ranks
from components.strict import Strict

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class Placement(NamedTuple):
    """Device and floating-point type of a model's weights."""

    device: torch.device = torch.device("cpu")
    dtype: torch.dtype = torch.float32


class ComputeSettings(Strict):
    """Device and precision of a stage."""

    device: Literal["auto", "cpu", "cuda"] = Field(
        default="auto", description='"auto": the first CUDA device if there is one, else the CPU.'
    )
    dtype: Literal["float32", "bfloat16"] = Field(
        default="float32", description="Of the frozen weights; adapters, losses and optimisers are always float32."
    )
    gradient_checkpointing: bool = Field(
        default=False, description="Recompute activations in the backward pass instead of keeping them."
    )

    def place(self) -> Placement:
        """Where to load a model.

        Raises:
            RuntimeError: a CUDA device is asked for and there is none.
        """
        available = torch.cuda.is_available()
        if self.device == "cuda" and not available:
            raise RuntimeError(
                'compute.device is "cuda", but PyTorch sees none: check the driver and the node, or set "auto"'
            )
        device = "cuda" if available and self.device != "cpu" else "cpu"
        return Placement(torch.device(device), _DTYPES[self.dtype])


class TrainingComputeSettings(ComputeSettings):
    """Device, precision and number of processes of a stage that trains."""

    processes: int = Field(
        default=1, gt=0, description="One for each GPU of a node; accelerate starts them if there are several."
    )
    nodes: int = Field(
        default=1, gt=0, description="Machines, or pods on a cluster, that train together, each with `processes`."
    )
    wait_for_nodes: float = Field(
        default=1800.0, gt=0, description="How long a node waits for the others to begin. Seconds."
    )
    sharding: Literal["ddp", "fsdp"] = Field(
        default="ddp", description='"ddp": every process holds the whole model; "fsdp": each holds an equal share.'
    )

    @property
    def world_size(self) -> int:
        """Processes of all nodes."""
        return self.processes * self.nodes

    @property
    def sharded(self) -> bool:
        """Whether models are shared out among processes; a single one holds everything."""
        return self.sharding == "fsdp" and ranks.world_size() > 1

    def place(self) -> Placement:
        """Where to load a model: what will be sharded waits on the CPU, since a GPU may have no room for all of it."""
        placement = super().place()
        return placement._replace(device=torch.device("cpu")) if self.sharded else placement

    def prepare(self, *models: "Trained") -> None:
        """Share models out among the processes, if that is asked for: after adapters are on, before optimisers are.

        Raises:
            ValueError: weights are to be trained in less than float32, which AdamW's small steps would be lost in.
        """
        for model in models:
            if self.sharded:
                model.shard(*super().place())
            elif any(p.dtype != torch.float32 for p in model.trained_parameters()):
                raise ValueError(
                    f"weights are trained in float32, and compute.dtype is {self.dtype}: set it to float32, or shard "
                    "the model (compute.sharding: fsdp, with several processes), where it says how they compute"
                )


class Trained(Protocol):
    """A Critic or an Artist."""

    def shard(self, device: torch.device, dtype: torch.dtype) -> None:
        """Share it out among all ranks and move it to `device`; `dtype` is the one it computes in."""

    def trained_parameters(self) -> list[torch.nn.Parameter]:
        """Those that require a gradient."""


def generator_on(device: torch.device, generator: torch.Generator) -> torch.Generator:
    """`generator` itself on its own device; elsewhere one whose seed is drawn from it."""
    if device.type == generator.device.type:
        return generator
    seed = int(torch.randint(2**62, (), generator=generator))
    return torch.Generator(device).manual_seed(seed)
