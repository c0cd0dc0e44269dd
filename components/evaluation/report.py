"""The report of an evaluation as one HTML file that needs nothing beside it: no network, no folder of pictures.

Tables with intervals, every held-out photo with a before/after slider (a range input, so it works by keyboard and by
touch), the worst cases, and what the Critic wrote about each.
"""

import base64
import io
from collections.abc import Mapping
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


class Gallery:
    """The pictures that a report shows, of all that it is told of: no others are kept.

    The first faulty view of the first photos is shown, then the cases with the largest remaining error, and those that
    the edit made worse, intact photos among them.
    """

    def __init__(self, settings: ReportSettings):
        self.settings = settings
        self.first: dict[str, dict[str, Any]] = {}
        self._worst: list[Picture] = []
        self._harmed: list[Picture] = []

    def add(self, picture: Picture) -> bool:
        """Take a case; True where it is the one that stands for its photo."""
        most = self.settings.worst_cases
        # a stable order, so that of equal ones the earlier stays before
        self._worst = sorted([*self._worst, picture], key=lambda item: item.error, reverse=True)[:most]
        self._harmed = sorted([*self._harmed, picture], key=_harm, reverse=True)[:most]
        stands = bool(picture.faults) and picture.photo_id not in self.first and len(self.first) < self.settings.photos
        if stands:
            self.first[picture.photo_id] = _shown(picture, self.settings)
        return stands

    @property
    def worst(self) -> list[dict[str, Any]]:
        """Those with the largest error, worst first."""
        return [_shown(picture, self.settings) for picture in self._worst]

    @property
    def harmed(self) -> list[dict[str, Any]]:
        """Those that the edit made worse, worst first."""
        return [_shown(picture, self.settings) for picture in self._harmed if _harm(picture) > 0]


def write_report(path: Path, evaluation: Evaluation, gallery: Gallery, curves: Curves) -> None:
    """Write the report of an evaluation to the HTML file ``path``, whole or not at all."""
    files.write_text(path, render_report(evaluation, gallery, curves))


def render_report(evaluation: Evaluation, gallery: Gallery, curves: Curves) -> str:
    """The HTML of a report.

    Everything that comes from outside (what the Critic wrote, names of authors and files) is escaped.

    Args:
        curves: rewards during reinforcement, drawn one plot each; those with fewer than two points are left out.
    """
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
        photos=list(gallery.first.values()),
        worst=gallery.worst,
        harmed=gallery.harmed,
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


def _harm(picture: Picture) -> float:
    return picture.error - picture.input_error


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
