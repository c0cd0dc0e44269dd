"""Judge a package on a folder of photos that nobody chose, against a small regression: what is left, what is harmed.

    make benchmark-quality ARGS="--on photos/ --train-on more/ --train-on bsds/ --minutes 15"

Every photo is judged as it is, and with faults of both families. A method that restrains itself trades what is left of
the faults against the harm to photos without one, so each is shown as a curve: `left` and `intact` for a ladder of
restraints. That of the package is by its Critic's score (`evaluate.enhancer.restraint`), that of the regression by the
error it expects. On validation photos the table chooses a restraint; on test photos it is looked at once.
"""

import itertools
import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import click
import numpy as np
import pandas as pd
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.nn import functional
from tqdm import tqdm

from benchmarks.regression import SIDE, Regression, train_regression
from components import files
from components.command_line import PATH, Command, CommandError, Number, Option, run
from components.data.faults import sample_faults
from components.evaluation.baselines import BASELINES
from components.evaluation.library_faults import apply_library_faults, sample_library_faults
from components.imaging.photo import Photo, quantize, read_photo, resize
from components.inference.edit import EditOptions, fit_edit
from components.inference.enhancer import Enhancer
from components.inference.restraint import RestraintSettings, share_of_edit
from components.metrics.full_reference import ciede2000
from components.metrics.tables import (
    INPUT,
    INTACT,
    LIBRARY,
    METHOD,
    OURS,
    OWN,
    PHOTO,
    VIEW,
    BootstrapSettings,
    ratio_interval,
)
from components.models.compute import ComputeSettings
from components.photometry.colour import lab_to_srgb
from components.photometry.operations import apply_operations
from components.seeding import generator_for
from pipelines.environment import ROOT
from tools.base_models.correction import correct
from tools.base_models.faults import error_of
from tools.base_models.tiles import photos_in

RESULT = ROOT / "reports" / "benchmarks" / "quality.parquet"
STRENGTHS = (0.0, 0.25, 0.5, 0.75, 1.0)
"""At which an edit is measured; between them its error is interpolated."""
REGRESSION, AUTO_CONTRAST = "regression", "auto_contrast"
LADDERS: dict[str, tuple[tuple[float, float], ...]] = {
    OURS: ((0, 0), *itertools.product((0, 5, 10, 15, 20, 25, 30), (5, 15, 25))),
    REGRESSION: ((0, 0), (0, 4), (1, 4), (2, 4), (3, 4), (4, 4), (2, 6), (4, 6), (6, 6)),
    AUTO_CONTRAST: ((0, 0),),
}
"""(low, width) of each method's restraints, in the units of its own idea of how bad a photo is; width 0 is none."""


class Edited(NamedTuple):
    """How bad a method finds a photo, and its edits of it at all `STRENGTHS`, each (3, H, W)."""

    fault: float
    pictures: list[Tensor]


Method = Callable[[Tensor], Edited]


def cases(photo: Tensor, name: str, views: int, seed: int) -> list[tuple[str, Tensor]]:
    """Family and picture of every case of a photo (3, H, W) on the 8-bit grid, which itself is the first."""
    found = [(INTACT, photo)]
    for view in range(views):
        own = sample_faults(generator_for(seed, name, "quality", view))
        library = sample_library_faults(generator_for(seed, name, "quality/library", view))
        found.append((OWN, quantize(apply_operations(photo, own))))
        found.append((LIBRARY, apply_library_faults(photo, library)))
    return found


def judge(paths: Sequence[Path], methods: dict[str, Method], side: int, views: int, seed: int = 0) -> pd.DataFrame:
    """One row for each photo, case and method: family, fault, and the CIEDE2000 to the photo at all `STRENGTHS`."""
    rows: list[dict[str, Any]] = []
    for path in tqdm(paths, desc="judging", unit="photo"):
        pixels = read_photo(path).pixels
        scale = min(1.0, side / max(pixels.shape[-2:]))
        height, width = (max(1, round(length * scale)) for length in pixels.shape[-2:])
        photo = quantize(resize(pixels, (height, width)))
        for view, (family, picture) in enumerate(cases(photo, path.name, views, seed)):
            for name, method in methods.items():
                edited = method(picture)
                errors = [ciede2000(quantize(made), photo) for made in edited.pictures]
                rows.append(
                    {"photo": path.name, "view": view, "family": family, "method": name, "fault": edited.fault}
                    | dict(zip(map(str, STRENGTHS), errors, strict=True))
                )
    return pd.DataFrame(rows)


def restrained(rows: pd.DataFrame, low: float, width: float) -> pd.Series:
    """The error of every row with the strength that a restraint gives it."""
    settings = RestraintSettings(low=low, width=width)
    strength = [share_of_edit(fault, settings) for fault in rows["fault"]]
    errors = rows[list(map(str, STRENGTHS))].to_numpy()
    found = [np.interp(share, STRENGTHS, row) for share, row in zip(strength, errors, strict=True)]
    return pd.Series(found, rows.index)


def curve(rows: pd.DataFrame, method: str, settings: BootstrapSettings) -> list[dict[str, Any]]:
    """What is left by family and what intact photos lose, for every restraint of a method."""
    own = rows[rows["method"] == method]
    points = []
    for low, width in LADDERS[method]:
        error = restrained(own, low, width)
        point: dict[str, Any] = {"method": method, "low": low, "width": width}
        for family in (OWN, LIBRARY):
            chosen = own[own["family"] == family]
            keys = {PHOTO: chosen["photo"], VIEW: chosen["view"]}
            before = pd.DataFrame({**keys, METHOD: INPUT, "error": chosen["0.0"]})
            after = pd.DataFrame({**keys, METHOD: method, "error": error[chosen.index]})
            point[family] = ratio_interval(pd.concat([before, after]), method, INPUT, settings, "error")
        harm = error[own["family"] == INTACT]
        points.append(point | {INTACT: float(harm.mean()), "visible": float((harm > 2).mean())})
    return points


def of_package(enhancer: Enhancer) -> Method:
    """A package as a method; a photo whose verdict does not parse is as bad as can be."""

    @torch.no_grad()
    def edit(picture: Tensor) -> Edited:
        plan = enhancer.plan(Photo(picture))
        made = []
        for strength in STRENGTHS:
            options = EditOptions(strength=strength)
            field = fit_edit(
                plan.before, plan.after, picture.shape[-2], options, enhancer.settings.transfer, plan.verdict
            )
            made.append(field(picture.clone(), 0))
        return Edited(100 - plan.verdict.score if plan.verdict else 100.0, made)

    return edit


def of_regression(net: Regression) -> Method:
    """The regression as a method."""

    @torch.no_grad()
    def edit(picture: Tensor) -> Edited:
        guess = net(functional.interpolate(picture[None], size=(SIDE, SIDE), mode="area"))
        made = [picture] + [
            lab_to_srgb(correct(picture[None], guess.numbers * strength))[0].clamp(0, 1) for strength in STRENGTHS[1:]
        ]
        return Edited(float(error_of(guess.log_error)), made)

    return edit


def of_baseline(name: str) -> Method:
    """A classical correction as a method, mixed with the photo for the strengths below 1."""

    def edit(picture: Tensor) -> Edited:
        done = BASELINES[name](picture)
        return Edited(math.nan, [torch.lerp(picture, done, strength) for strength in STRENGTHS])

    return edit


def show(points: Sequence[dict[str, Any]], console: Console) -> None:
    """Print the curves as one table."""
    table = Table(title="Left of the faults, and change of intact photos", title_justify="left")
    for column in ("method", "restraint", "own faults left", "other people's", "intact", "changed visibly"):
        table.add_column(
            column, justify="left" if column == "method" else "right", no_wrap=column in ("method", "restraint")
        )
    for point in points:
        restraint = f"{point['low']:g} + {point['width']:g}" if point["width"] else "none"
        left = (f"{point[f].value:.3f} ({point[f].low:.3f} to {point[f].high:.3f})" for f in (OWN, LIBRARY))
        table.add_row(point["method"], restraint, *left, f"{point[INTACT]:.2f}", f"{point['visible']:.0%}")
    console.print(table)


_PARAMETERS: list[click.Parameter] = [
    Option(["--on"], type=PATH, multiple=True, required=True, help="Folder of the photos to judge on; repeatable."),
    Option(["--package"], type=PATH, default=ROOT / ".spc" / "champion", help="Folder of the package to judge."),
    Option(["--train-on"], type=PATH, multiple=True, help="Folder for the regression, beside ours; repeatable."),
    Option(["--minutes"], type=Number(float, 0), default=2.5, help="Of the regression's training; 0 leaves it out."),
    Option(["--side"], type=Number(int, 32), default=256, help="Longer side of the photos, in pixels."),
    Option(["--views"], type=Number(int, 1), default=1, help="Faulty views of each family."),
    Option(["--most"], type=Number(int, 1), help="Judge on so many of the photos, evenly chosen by name."),
    Option(["--out"], type=PATH, default=RESULT, help="File to write the measured errors to."),
]


@click.command(cls=Command, params=_PARAMETERS)
def main(
    on: tuple[Path, ...],
    package: Path,
    train_on: tuple[Path, ...],
    minutes: float,
    side: int,
    views: int,
    most: int | None,
    out: Path,
) -> int:
    """Judge a package on photos against a small regression, and print what is left and what is harmed."""
    paths = [path for folder in on for path in photos_in(folder)]
    if not paths:
        raise CommandError(f"--on {', '.join(map(str, on))}: no photo there ends in .jpg, .jpeg or .png")
    if most:
        paths = paths[:: max(1, math.ceil(len(paths) / most))]
    methods = {OURS: of_package(Enhancer.load(package, placement=ComputeSettings().place()))}
    if minutes:
        methods[REGRESSION] = of_regression(train_regression(ROOT / "data" / "photos", train_on, minutes))
    methods[AUTO_CONTRAST] = of_baseline(AUTO_CONTRAST)
    rows = judge(paths, methods, side, views)
    with files.replacing(out) as temporary:
        rows.to_parquet(temporary, index=False)
    settings = BootstrapSettings(resamples=2000)
    show([point for name in methods for point in curve(rows, name, settings)], Console())
    return 0


if __name__ == "__main__":
    sys.exit(run(main, program="python -m benchmarks.quality"))
