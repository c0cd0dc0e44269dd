"""Random tone and colour faults: the distribution of what goes wrong with a photo taken in a hurry.

One place fixes it for every consumer (base training, synthetic pairs, evaluation), because a Critic
or an Artist can only be judged against the distribution it is asked to repair. A faulty photo has one
to three of the four tone faults; each is drawn uniformly between "just visible" and "severe", in either
direction. Amounts are in the units of `components.photometry.operations`.
"""

import torch
from torch import Tensor

from components.photometry.operations import TONE, Operation

# name -> (just visible, severe); EV, log2 slope, log2 chroma scale, mired
SEVERITY: dict[str, tuple[float, float]] = {
    "exposure": (0.4, 1.5),
    "contrast": (0.25, 0.8),
    "saturation": (0.4, 1.2),
    "temperature": (25.0, 80.0),
}
COUNT_PROBABILITIES = (0.3, 0.4, 0.3)  # of one, two and three simultaneous faults


def sample_amounts(count: int, generator: torch.Generator, intact: float = 0.0) -> Tensor:
    """Draw fault amounts for `count` photos.

    Args:
        count: number of photos B.
        generator: source of all randomness.
        intact: probability in [0, 1] that a photo gets no fault at all.

    Returns:
        (B, 4) amounts in the order of `TONE`; 0 where a fault is absent.
    """
    order = torch.rand(count, len(TONE), generator=generator).argsort(dim=1).argsort(dim=1)
    number = 1 + torch.multinomial(torch.tensor(COUNT_PROBABILITIES), count, replacement=True, generator=generator)
    number = number * (torch.rand(count, generator=generator) >= intact)
    low, high = torch.tensor([SEVERITY[name] for name in TONE]).unbind(dim=1)
    magnitude = low + (high - low) * torch.rand(count, len(TONE), generator=generator)
    sign = torch.randint(0, 2, (count, len(TONE)), generator=generator) * 2.0 - 1.0
    return magnitude * sign * (order < number[:, None])


def sample_faults(generator: torch.Generator, intact: float = 0.0) -> tuple[Operation, ...]:
    """Draw the faults of one photo as recordable operations, in the order in which they are applied."""
    (amounts,) = sample_amounts(1, generator, intact).tolist()
    return tuple(Operation(name=name, amount=round(a, 4)) for name, a in zip(TONE, amounts, strict=True) if a)
