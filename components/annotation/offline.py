"""The offline annotator: a chain of thought, suggestions and a score from what is measured and what is known.

It measures the view as a photographer reads a histogram, compares with the faults that are on record, and writes a
verdict in the Critic's grammar. It needs no model, so the pipeline can be run anywhere; where a large model is at hand,
`components.annotation.client` asks that one instead.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

from components.data.faults import SEVERITY
from components.photometry.attributes import measure
from components.photometry.colour import delta_e_2000, srgb_to_lab
from components.photometry.operations import TONE, Operation
from components.verdict.grammar import DEGREES, RESTORATIONS, Suggestion, Verdict, finding, suggest

SCORE_SCALE = 20.0
"""CIEDE2000 distance to the intact photo at which the score has fallen to 100/e."""

_IMPRESSION = {
    "exposure": ("dark", "glaring"),
    "contrast": ("flat", "harsh"),
    "saturation": ("dull", "gaudy"),
    "temperature": ("cold", "warm"),
}


def score_of(view: Tensor, intact: Tensor) -> float:
    """100 exp(-dE/20) with dE the mean CIEDE2000 between the view and the intact photo, both (3, H, W); in [0, 100]."""
    distance = delta_e_2000(srgb_to_lab(view), srgb_to_lab(intact)).mean()
    return 100 * math.exp(-float(distance) / SCORE_SCALE)


class Reading(NamedTuple):
    """What a photographer reads off the histograms, in words and CIELAB units."""

    light: str
    """Mean L* and the range that holds 96% of the picture, and its standard deviation."""
    colour: str
    """Mean and 95th percentile of C*ab, mean a* and b* as colours, and the grey-world white in mired."""


def read_histogram(view: Tensor) -> Reading:
    """Read the histograms of a picture (3, H, W): first what is there, then what to make of it."""
    attributes = measure(view)
    lightness, a, b = srgb_to_lab(view).flatten(1)
    black, white = lightness.quantile(0.02), lightness.quantile(0.98)
    vivid = (a.square() + b.square()).sqrt().quantile(0.95)
    red, yellow = round(float(a.mean())), round(float(b.mean()))
    return Reading(
        f"lightness {lightness.mean():.0f} from {black:.0f} to {white:.0f}, contrast {attributes.contrast:.0f}",
        f"chroma {attributes.chroma:.0f} to {vivid:.0f}, cast {abs(red)} {'green' if red < 0 else 'red'} "
        f"{abs(yellow)} {'blue' if yellow < 0 else 'yellow'}, "
        f"white {round(float(attributes.temperature), -1):.0f} mired",
    )


def describe(view: Tensor, intact: Tensor, operations: Sequence[Operation], score: float | None = None) -> Verdict:
    """Judge a view of a photo whose faults are known.

    Args:
        view: (3, H, W) the photo to judge.
        intact: (3, H, W) the same photo without faults.
        operations: the faults, as they were applied.
        score: 0 to 100, a human opinion score when there is one; by default `score_of(view, intact)`.

    Returns:
        the verdict; its suggestions undo the tone faults and remove the degradations.
    """
    amounts = dict.fromkeys(TONE, 0.0)
    degradations = []
    for operation in operations:
        if operation.name in amounts:
            amounts[operation.name] += operation.amount
        else:
            degradations.append(operation.name)
    reading = read_histogram(view)
    defects = ", ".join(RESTORATIONS[name] for name in degradations) or "clean"
    suggestions: list[Suggestion] = [suggest(name) for name in degradations]
    suggestions += [suggest(name, -amount) for name, amount in amounts.items() if amount]
    faulty = [_IMPRESSION[name][amount > 0] for name, amount in amounts.items() if amount]
    reasoning = (
        f"{defects}; {reading.light}; exposure {_finding('exposure', amounts)}; "
        f"contrast {_finding('contrast', amounts)}.",
        f"{reading.colour}; saturation {_finding('saturation', amounts)}; "
        f"temperature {_finding('temperature', amounts)}.",
        f"{_frame(view)} frame, weight {_weight(view)}.",
        f"{' and '.join(faulty) if faulty else 'balanced'}.",
        f"{len(suggestions) or 'no'} edit{'' if len(suggestions) == 1 else 's'}.",
    )
    value = score_of(view, intact) if score is None else score
    return Verdict(reasoning=reasoning, suggestions=tuple(suggestions), score=float(round(value)))


def _finding(name: str, amounts: dict[str, float]) -> str:
    """ "fine", or direction and severity of a fault."""
    amount = amounts[name]
    low, high = SEVERITY[name]
    share = (abs(amount) - low) / (high - low)
    return finding(name, amount, DEGREES[(share >= 1 / 3) + (share >= 2 / 3)])


def _frame(view: Tensor) -> str:
    height, width = view.shape[-2:]
    return "square" if abs(height - width) < 0.1 * width else "portrait" if height > width else "landscape"


def _weight(view: Tensor) -> str:
    """Where the detail of the picture lies: the centroid of its luminance gradient."""
    grey = view.mean(dim=0)
    detail = (grey.diff(dim=0)[:, 1:].abs() + grey.diff(dim=1)[1:].abs()) + 1e-6
    height, width = detail.shape
    if not height or not width:
        return "centre"
    y = float((detail.mean(dim=1) * _positions(height, detail)).sum() / detail.mean(dim=1).sum())
    x = float((detail.mean(dim=0) * _positions(width, detail)).sum() / detail.mean(dim=0).sum())
    side = "left" if x < -0.1 else "right" if x > 0.1 else ""
    level = "top" if y < -0.1 else "bottom" if y > 0.1 else ""
    return f"{level} {side}".strip() or "centre"


def _positions(count: int, like: Tensor) -> Tensor:
    return (like.new_tensor(range(count)) + 0.5) * 2 / count - 1
