"""How far pictures lie apart in photometric attributes, and what a verdict's suggestions make of a picture."""

import math

import torch
from torch import Tensor

from components.photometry.attributes import difference
from components.photometry.operations import KINDS, TONE, Operation, apply_operations
from components.training.divergence import DivergenceError
from components.verdict.grammar import Verdict

ATTRIBUTE_SCALE = {"exposure": 0.5, "contrast": 0.35, "saturation": 0.5, "temperature": 30.0}
"""Deviation of each attribute (EV, log2, log2, mired) that counts as one unit of distance: a clearly visible change."""


def attribute_distance(picture: Tensor, target: Tensor) -> float:
    """Euclidean distance of two pictures (3, H, W) in photometric attribute space, in units of `ATTRIBUTE_SCALE`.

    Raises:
        DivergenceError: it is not finite; a broken measure must not pass for a reward.
    """
    deviations = difference(target, picture)
    distance = math.sqrt(sum((float(deviations[name]) / scale) ** 2 for name, scale in ATTRIBUTE_SCALE.items()))
    if not math.isfinite(distance):
        raise DivergenceError(f"the photometric distance of a picture to its target is {distance}: one holds NaN")
    return distance


def closeness(deviations: dict[str, Tensor], tolerance: float) -> Tensor:
    """exp(-|d| / tau) of each attribute's deviation d (B,), averaged over the four: (B,) in [0, 1].

    Args:
        tolerance: tau, in units of `ATTRIBUTE_SCALE`.
    """
    terms = [torch.exp(-deviations[name].abs() / (tolerance * scale)) for name, scale in ATTRIBUTE_SCALE.items()]
    return torch.stack(terms).mean(dim=0)


def apply_suggestions(verdict: Verdict, picture: Tensor) -> Tensor:
    """Carry out the tone suggestions of a verdict on a picture (3, H, W), as a user would with sliders.

    Faults come about in the order of `TONE`, so they are undone in the reverse order: a colour cast is lifted before
    colours are made stronger, or the cast would be made stronger too.
    """
    amounts = dict.fromkeys(reversed(TONE), 0.0)
    for suggestion in verdict.suggestions:
        if suggestion.operation in amounts and suggestion.amount is not None:
            amounts[suggestion.operation] += suggestion.amount
    edits = [
        Operation(name=name, amount=max(KINDS[name].low, min(KINDS[name].high, amount)))
        for name, amount in amounts.items()
    ]
    return apply_operations(picture, edits)
