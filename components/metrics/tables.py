"""Tables of cases: one row for each photo, view and method; summaries and paired comparisons with intervals.

A case is one faulty view of a held-out photo. Several views of a photo resemble each other, so every interval
resamples photos, never cases (cluster bootstrap; Efron and Tibshirani 1993, chapters 8 and 13). Intervals are
bias-corrected and accelerated (there, chapter 14), at a level widened for few photos (Hesterberg 2015, section 4.3):
`docs/explanation/evaluation.md` has how often they hold the mean.
"""

import math
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from pydantic import Field
from scipy.special import ndtr, stdtrit
from scipy.stats import DegenerateDataWarning, bootstrap

from components import files
from components.metrics.full_reference import LOWER_IS_BETTER
from components.strict import Strict

PHOTO, VIEW, METHOD, FAMILY = "photo_id", "view", "method", "family"
INPUT, OURS = "input", "enhance"
"""Names of two methods: the faulty photo as it came, and the package that is evaluated."""
OWN, LIBRARY, INTACT = "own", "library", "intact"
"""Families of cases: the project's own faults, those that other people's code makes, and photos without a fault."""
INTACT_CHANGE = "intact_change"
"""Measure of the gate: mean CIEDE2000 by which a photo without a fault is changed."""

CASES_FILE, TABLE_FILE = "cases.parquet", "table.json"

_BATCH = 1 << 22  # values drawn at a time: bounds memory, and the result does not depend on it


class BootstrapSettings(Strict):
    """Intervals of means."""

    resamples: int = Field(default=5000, ge=100, description="Bootstrap resamples of the photos.")
    confidence: float = Field(default=0.95, gt=0.5, lt=1.0, description="Level of the two-sided interval.")
    seed: int = Field(default=0, ge=0, description="Seed of the resamples.")


class Interval(Strict):
    """An estimate with its bootstrap interval."""

    value: float
    low: float
    high: float


class Row(Strict):
    """One method in the table: the mean of every measure, and its CIEDE2000 error as a share of the input's."""

    method: str
    measures: dict[str, Interval]
    ratio_to_input: Interval


def write_cases(cases: pd.DataFrame, path: Path) -> None:
    """Write rows (columns `photo_id`, `view`, `family`, `method`, measures) as Parquet, whole or not at all."""
    with files.replacing(path) as temporary:
        cases.to_parquet(temporary, index=False)


def read_cases(path: Path) -> pd.DataFrame:
    """Read what `write_cases` wrote.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it lacks a column.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: expected the per-case table of an evaluation; run the evaluation first")
    cases = pd.read_parquet(path)
    if missing := {PHOTO, VIEW, METHOD, FAMILY, *LOWER_IS_BETTER} - set(cases.columns):
        raise ValueError(f"{path}: not a table of cases, missing columns: {sorted(missing)}")
    return cases


def gate_table(cases: pd.DataFrame, method: str = OURS) -> pd.DataFrame:
    """The measures of one method with index (photo_id, view): what `components.registry.promotion.decide` compares.

    The views are those with a fault; beside the measures of each stands how much the method changes the same photo
    without one.

    Raises:
        ValueError: the method is not in the table.
    """
    rows = _of(cases, method)
    change = rows[rows[FAMILY] == INTACT].set_index(PHOTO)["ciede2000"]
    views = faulty(rows).set_index([PHOTO, VIEW])
    return views[list(LOWER_IS_BETTER)].assign(**{INTACT_CHANGE: change.reindex(views.index, level=PHOTO)})


def faulty(cases: pd.DataFrame) -> pd.DataFrame:
    """The cases that have a fault."""
    return cases[cases[FAMILY] != INTACT]


def mean_interval(cases: pd.DataFrame, measure: str, settings: BootstrapSettings) -> Interval:
    """Mean over photos of the photo's mean over views, with the bootstrap interval."""
    return bootstrap_mean(cases.groupby(PHOTO)[measure].mean().to_numpy(), settings)


def bootstrap_mean(by_photo: np.ndarray, settings: BootstrapSettings) -> Interval:
    """Mean of one value per photo, (photos,), with the interval over resampled photos.

    One photo tells nothing of the spread: its interval is the value alone.
    """
    return _interval((by_photo,), np.mean, settings)


def ratio_interval(
    cases: pd.DataFrame, method: str, reference: str, settings: BootstrapSettings, measure: str = "ciede2000"
) -> Interval:
    """Mean of a method over the mean of a reference on the same cases; the interval resamples photos, paired."""
    return _interval(_paired(cases, method, reference, measure), _ratio_of_means, settings)


def difference_interval(
    cases: pd.DataFrame, method: str, reference: str, settings: BootstrapSettings, measure: str = "ciede2000"
) -> Interval:
    """Mean of a method minus the mean of a reference on the same cases; the interval resamples photos, paired."""
    ours, theirs = _paired(cases, method, reference, measure)
    return bootstrap_mean(ours - theirs, settings)


def summarise(cases: pd.DataFrame, settings: BootstrapSettings) -> tuple[Row, ...]:
    """One row for each method, in the order in which the methods first appear."""
    return tuple(
        Row(
            method=method,
            measures={name: mean_interval(_of(cases, method), name, settings) for name in LOWER_IS_BETTER},
            ratio_to_input=ratio_interval(cases, method, INPUT, settings),
        )
        for method in cases[METHOD].unique()
    )


def best_baseline(cases: pd.DataFrame, baselines: Sequence[str], measure: str = "ciede2000") -> str:
    """The baseline with the lowest mean error over photos.

    Raises:
        ValueError: no baseline was given or one is not in the table.
    """
    if not baselines:
        raise ValueError("expected at least one baseline to compare with, found none")
    return min(baselines, key=lambda method: _of(cases, method).groupby(PHOTO)[measure].mean().mean())


def _of(cases: pd.DataFrame, method: str) -> pd.DataFrame:
    rows = cases[cases[METHOD] == method]
    if rows.empty:
        raise ValueError(f"method {method!r} is not in the table, which has {sorted(cases[METHOD].unique())}")
    return rows


def _paired(cases: pd.DataFrame, method: str, reference: str, measure: str) -> tuple[np.ndarray, np.ndarray]:
    """Means by photo of both methods, over the same cases."""
    ours, theirs = (_of(cases, name).set_index([PHOTO, VIEW])[measure] for name in (method, reference))
    if not ours.index.is_unique or set(ours.index) != set(theirs.index):
        raise ValueError(f"{method!r} and {reference!r} were not measured on the same cases, once each")
    return tuple(series.groupby(level=PHOTO).mean().sort_index().to_numpy() for series in (ours, theirs))


def _ratio_of_means(ours: np.ndarray, theirs: np.ndarray, axis: int = -1) -> np.ndarray:
    return ours.mean(axis) / theirs.mean(axis)


def _interval(
    by_photo: tuple[np.ndarray, ...], statistic: Callable[..., np.ndarray], settings: BootstrapSettings
) -> Interval:
    """The statistic of one or more values per photo, each (photos,), with its interval over resampled photos."""
    value, photos = float(statistic(*by_photo, axis=-1)), len(by_photo[0])
    if photos == 1:
        return Interval(value=value, low=value, high=value)
    level = _level(photos, settings)
    with np.errstate(invalid="ignore"), warnings.catch_warnings(action="ignore", category=DegenerateDataWarning):
        found = bootstrap(
            by_photo,
            statistic,
            paired=True,
            vectorized=True,
            n_resamples=settings.resamples,
            batch=max(1, _BATCH // photos),
            confidence_level=level,
            method="BCa",
            rng=np.random.default_rng(settings.seed),
        )
    low, high = found.confidence_interval
    if not math.isfinite(low + high):  # photos that are all alike have no skewness to correct for
        low, high = np.quantile(found.bootstrap_distribution, [(1 - level) / 2, (1 + level) / 2])
    return Interval(value=value, low=float(low), high=float(high))


def _level(photos: int, settings: BootstrapSettings) -> float:
    """The level at which the bootstrap is as wide as Student's interval where the photos are normally distributed.

    Resampled means spread by sqrt((photos - 1) / photos) too little, and the normal quantiles that percentiles stand
    for do not know that the spread itself is estimated. No level beyond what the resamples can tell apart.
    """
    tail = (1 - settings.confidence) / 2
    widened = ndtr(math.sqrt(photos / (photos - 1)) * stdtrit(photos - 1, tail))
    return 1 - 2 * max(float(widened), min(tail, 1 / settings.resamples))
