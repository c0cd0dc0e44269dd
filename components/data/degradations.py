"""Random degradations: what lens, sensor, air and file format do to a photo, in severities that people meet.

The tone and colour faults of a photo taken in a hurry are in `components.data.faults`.
"""

import torch

from components.photometry.operations import Operation

SEVERITY: dict[str, tuple[float, float]] = {
    "motion_blur": (0.02, 0.08),
    "defocus_blur": (0.008, 0.03),
    "noise": (0.015, 0.06),
    "jpeg": (55.0, 88.0),
    "haze": (0.5, 1.8),
    "low_light": (1.5, 3.5),
}
"""Name -> (just visible, severe), in the units of `components.photometry.operations.KINDS`."""

BOKEH_LEVELS: dict[str, float] = {"slight": 0.015, "moderate": 0.03, "strong": 0.06}
"""Depth-of-field levels: radius of the background's blur disc as a fraction of the short side."""


def sample_seed(generator: torch.Generator) -> int:
    """A seed for one operation's own randomness."""
    return int(torch.randint(2**31, (1,), generator=generator))


def sample_degradation(generator: torch.Generator, names: tuple[str, ...] = tuple(SEVERITY)) -> Operation:
    """Draw one degradation: any of ``names`` alike, its amount uniform between just visible and severe."""
    name = names[int(torch.randint(len(names), (1,), generator=generator))]
    low, high = SEVERITY[name]
    amount = low + (high - low) * float(torch.rand(1, generator=generator, dtype=torch.float64))
    return Operation(name=name, amount=round(amount, 4), seed=sample_seed(generator))
