"""Where and in which precision models compute: settings of every stage that loads one.

Randomness stays reproducible across devices: batches, noise levels and noise are drawn on the CPU from the stage's own
generator, which is what a checkpoint keeps; only a sampler that must draw where its logits lie gets a generator of that
device, seeded from the stage's.
"""

from typing import Literal, NamedTuple

import torch
from pydantic import Field

from components.strict import Strict

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class Placement(NamedTuple):
    """Device and floating-point type of a model's weights."""

    device: torch.device = torch.device("cpu")
    dtype: torch.dtype = torch.float32


class ComputeSettings(Strict):
    """Device and precision of a stage."""

    device: Literal["auto", "cpu", "cuda"] = Field(
        default="auto", description="auto: the first CUDA device if there is one, else the CPU"
    )
    dtype: Literal["float32", "bfloat16"] = Field(
        default="float32", description="of the frozen weights; adapters, losses and optimisers are always float32"
    )
    gradient_checkpointing: bool = Field(
        default=False, description="compute activations again in the backward pass instead of keeping them"
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


def generator_on(device: torch.device, generator: torch.Generator) -> torch.Generator:
    """`generator` itself on its own device; elsewhere one whose seed is drawn from it."""
    if device.type == generator.device.type:
        return generator
    seed = int(torch.randint(2**62, (), generator=generator))
    return torch.Generator(device).manual_seed(seed)
