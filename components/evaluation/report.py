"""The report of an evaluation as one HTML file that needs nothing beside it: no network, no folder of pictures.

Tables with intervals, every held-out photo with a before/after slider (a range input, so it works by keyboard and by
touch), the worst cases, and what the Critic wrote about each.
"""

import base64
import io
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor

from components import files
from components.evaluation.plots import SIZE, Curve, environment, number, plot
from components.evaluation.records import Evaluation, Picture, ReportSettings
from components.imaging.photo import resize
from components.metrics.full_reference import LOWER_IS_BETTER, UNITS, to_bytes
from components.metrics.tables import INPUT, OURS, Interval

TEMPLATE = "report.html.j2"

TITLES = {
    "ciede2000": "CIEDE2000",
    "lpips": "LPIPS",
    "psnr": "PSNR",
    "ssim": "SSIM",
    "exposure_error": "Exposure",
    "contrast_error": "Contrast",
    "saturation_error": "Saturation",
    "temperature_error": "Temperature",
}
Curves = Mapping[str, Curve]
"""What was measured while training, by name."""
_METHODS = {
    INPUT: "Input, untouched",
    OURS: "SmartPhotoCrafter",
    "no_rl": "Without RL",
    "no_r_photo": "RL without r_photo",
    "full": "Full",
}


def write_report(
    path: Path, evaluation: Evaluation, pictures: Sequence[Picture], settings: ReportSettings, curves: Curves
) -> None:
    """Write the report of an evaluation to the HTML file ``path``, whole or not at all."""
    files.write_text(path, render_report(evaluation, pictures, settings, curves))


def render_report(evaluation: Evaluation, pictures: Sequence[Picture], settings: ReportSettings, curves: Curves) -> str:
    """The HTML of a report.

    The first faulty view of every photo is shown, then the cases with the largest remaining error, and those that the
    edit made worse, intact photos among them.

    Everything that comes from outside (what the Critic wrote, names of authors and files) is escaped.

    Args:
        curves: rewards during reinforcement, drawn one plot each; those with fewer than two points are left out.
    """
    first: dict[str, Picture] = {}
    for picture in filter(lambda picture: picture.faults, pictures):
        first.setdefault(picture.photo_id, picture)
    worst = sorted(pictures, key=lambda picture: picture.error, reverse=True)[: settings.worst_cases]
    harmed = sorted(pictures, key=lambda picture: picture.error - picture.input_error, reverse=True)
    templates = environment()
    templates.filters["interval"] = _interval
    templates.filters["method"] = method_title
    return templates.get_template(TEMPLATE).render(
        evaluation=evaluation,
        measures=[
            {"name": name, "title": TITLES[name], "unit": UNITS[name], "arrow": "↓" if lower else "↑"}
            for name, lower in LOWER_IS_BETTER.items()
        ],
        best={name: _best(evaluation, name) for name in LOWER_IS_BETTER},
        sizes=list(dict.fromkeys(size for figures in evaluation.families for size in figures.by_size)),
        photos=[_shown(picture, settings) for picture in first.values()],
        worst=[_shown(picture, settings) for picture in worst],
        harmed=[_shown(item, settings) for item in harmed[: settings.worst_cases] if item.error > item.input_error],
        plots=[drawn for name, curve in curves.items() if (drawn := plot(name, {name: curve}))],
        plot_size=SIZE,
        made=f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        ours=OURS,
    )


def method_title(name: str) -> str:
    """The name of a method as the tables show it."""
    return _METHODS.get(name, name.replace("_", " ").capitalize())


def _best(evaluation: Evaluation, name: str) -> str:
    choose = min if LOWER_IS_BETTER[name] else max
    return choose(evaluation.rows, key=lambda row: row.measures[name].value).method


def _interval(interval: Interval, digits: int = 3) -> str:
    """ "0.612 [0.571, 0.655]" with ``digits`` significant digits."""
    return f"{number(interval.value, digits)} [{number(interval.low, digits)}, {number(interval.high, digits)}]"


def _shown(picture: Picture, settings: ReportSettings) -> dict[str, Any]:
    height, width = picture.original.shape[-2:]
    scale = min(1.0, settings.picture_side / max(height, width))
    size = (max(1, round(height * scale)), max(1, round(width * scale)))
    suggestions = [suggestion.text for suggestion in picture.verdict.suggestions] if picture.verdict else []
    return {
        "name": Path(picture.photo_id).name,
        "id": picture.photo_id,
        "view": picture.view,
        "credit": picture.credit,
        "faults": picture.faults,
        "text": picture.text,
        "suggestions": suggestions,
        "score": picture.verdict.score if picture.verdict else None,
        "input_error": picture.input_error,
        "error": picture.error,
        "width": size[1],
        "height": size[0],
        **{
            name: _data_uri(resize(getattr(picture, name), size), settings.jpeg_quality)
            for name in ("original", "faulty", "enhanced")
        },
    }


def _data_uri(picture: Tensor, quality: int) -> str:
    stream = io.BytesIO()
    Image.fromarray(to_bytes(picture)).save(stream, "JPEG", quality=quality, optimize=True)
    return f"data:image/jpeg;base64,{base64.b64encode(stream.getvalue()).decode('ascii')}"
