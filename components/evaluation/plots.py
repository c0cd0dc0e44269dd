"""What the HTML pages share: the template environment, and curves drawn as SVG within the page."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

Curve = Sequence[tuple[int, float]]
"""What was measured while training: (iteration, value) pairs."""
SIZE = (300, 120)
"""Width and height of a plot, in its own units."""


def environment() -> Environment:
    """Templates of this folder. All that is put into them is escaped, and an unknown name is an error."""
    return Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def plot(name: str, curves: Mapping[str, Curve]) -> dict[str, Any] | None:
    """Curves by their label on common axes, as `plots.html.j2` draws them; those of fewer than two points are left out.

    Returns:
        the values that the axes begin and end with, and the points of each polyline in the units of `SIZE`; None where
        nothing is left to draw.
    """
    kept = {label: sorted(curve) for label, curve in curves.items() if len(curve) > 1}
    if not kept:
        return None
    steps = [step for curve in kept.values() for step, _ in curve]
    values = [value for curve in kept.values() for _, value in curve]
    first, last, low, high = min(steps), max(steps), min(values), max(values)

    def scaled(step: int, value: float) -> str:
        across, up = (step - first) / ((last - first) or 1), (value - low) / ((high - low) or 1.0)
        return f"{across * SIZE[0]:.1f},{SIZE[1] - up * SIZE[1]:.1f}"

    lines = [
        {
            "label": label,
            "points": " ".join(scaled(*point) for point in curve),
            "began": number(curve[0][1]),
            "ended": number(curve[-1][1]),
        }
        for label, curve in kept.items()
    ]
    return {"name": name, "first": first, "last": last, "low": number(low), "high": number(high), "lines": lines}


def number(value: float, digits: int = 3) -> str:
    """ "0.612": the value with ``digits`` significant digits."""
    text = f"{value:#.{digits}g}"
    return text.rstrip(".") if "e" not in text else f"{value:.{digits}f}"
