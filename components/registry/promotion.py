"""The gate: may a challenger replace the champion? A pure rule on two tables of measures, compared photo by photo."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from pydantic import Field, model_validator

from components.metrics.full_reference import LOWER_IS_BETTER
from components.metrics.tables import INTACT_CHANGE, PHOTO, BootstrapSettings, Interval, bootstrap_mean
from components.registry.decision import Comparison, Decision


class GateSettings(BootstrapSettings):
    """How much better, and how sure, a challenger has to be."""

    primary: str = Field(default="ciede2000", description="The measure that must surely improve for a promotion.")
    tolerances: dict[str, float] = Field(
        default={
            "ciede2000": 0.0,
            "lpips": 0.005,
            "psnr": 0.5,
            "ssim": 0.02,
            "exposure_error": 0.1,
            "contrast_error": 0.05,
            "saturation_error": 0.15,
            "temperature_error": 5.0,
        },
        description="How much worse each measure may get, in its own unit, at the worse end of the interval.",
    )
    limits: dict[str, float] = Field(
        default={INTACT_CHANGE: 6.0},
        description="How large the mean of a measure may be, whatever the champion's is.",
    )
    higher_is_better: tuple[str, ...] = Field(
        default=tuple(name for name, lower in LOWER_IS_BETTER.items() if not lower),
        description="Measures that get worse by falling; all others by rising.",
    )
    resamples: int = Field(default=10_000, ge=100, description="Bootstrap resamples of the photos.")

    @model_validator(mode="after")
    def _primary_has_a_tolerance(self) -> "GateSettings":
        if self.primary not in self.tolerances:
            raise ValueError(f"primary is {self.primary!r}, expected one of the tolerances: {sorted(self.tolerances)}")
        if negative := [name for name, value in self.tolerances.items() if value < 0]:
            raise ValueError(f"tolerances must be 0 or more, found negative ones for {negative}")
        return self


class GateError(ValueError):
    """The two tables cannot be compared: other photos, missing errors or values that are not finite."""


def decide(
    challenger: pd.DataFrame, reference: pd.DataFrame, settings: GateSettings, reference_name: str = "the champion"
) -> Decision:
    """Decide whether ``challenger`` replaces ``reference``.

    Both tables have one row per held-out view and one column per measure; the index holds a level ``photo_id``, and
    any further levels that tell the views of one photo apart. The differences challenger - reference are averaged
    within each photo and the mean over photos gets a bootstrap interval (paired, resampling photos;
    `components.metrics.tables`). The challenger is promoted if

    1. the interval of the primary measure lies entirely on the better side of 0, and
    2. for every measure the worse end of the interval is no farther than its tolerance on the worse side of 0, and
    3. the mean of no measure is above its limit: a model that harms good photos is not promoted for mending bad ones.

    A challenger equal to the reference is therefore never promoted. The result depends on nothing but the arguments.

    Raises:
        GateError: the tables cover different views, lack a measure named in the tolerances or limits, or hold NaN or
            infinity.
    """
    names = list(settings.tolerances)
    limited = _checked(challenger, list(settings.limits), "challenger").groupby(level=PHOTO).mean().mean()
    beyond = [name for name, limit in settings.limits.items() if limited[name] > limit]
    ours, theirs = _checked(challenger, names, "challenger"), _checked(reference, names, reference_name)
    _check_same_views(ours.index, theirs.index, reference_name)
    theirs = theirs.loc[ours.index]
    by_photo = (ours - theirs).groupby(level=PHOTO).mean()
    ours_mean, theirs_mean = (table.groupby(level=PHOTO).mean().mean() for table in (ours, theirs))
    intervals = {name: bootstrap_mean(by_photo[name].to_numpy(), settings) for name in names}
    comparisons = tuple(
        Comparison(
            metric=name,
            challenger=float(ours_mean[name]),
            reference=float(theirs_mean[name]),
            change=intervals[name].value,
            low=intervals[name].low,
            high=intervals[name].high,
            tolerance=settings.tolerances[name],
            within=_worst(intervals[name], name, settings) <= settings.tolerances[name],
        )
        for name in names
    )
    better = _worst(intervals[settings.primary], settings.primary, settings) < 0
    return Decision(
        promoted=better and not beyond and all(comparison.within for comparison in comparisons),
        reference=reference_name,
        photos=len(by_photo),
        comparisons=comparisons,
        reasons=(
            *(f"{name} is {limited[name]:.4g}, above the limit of {settings.limits[name]:g}" for name in beyond),
            *_reasons(comparisons, settings, better, reference_name),
            *(
                f"{n} is {limited[n]:.4g}, within the limit of {settings.limits[n]:g}"
                for n in limited.index
                if n not in beyond
            ),
        ),
    )


def _worst(interval: Interval, metric: str, settings: GateSettings) -> float:
    """How much worse the measure may have become, at the worse end of its interval; below 0 it surely got better."""
    return -interval.low if metric in settings.higher_is_better else interval.high


def _checked(table: pd.DataFrame, names: Sequence[str], whose: str) -> pd.DataFrame:
    if PHOTO not in table.index.names:
        raise GateError(f"the table of {whose} needs an index level {PHOTO!r}, found levels {list(table.index.names)}")
    if missing := [name for name in names if name not in table.columns]:
        raise GateError(f"the table of {whose} lacks {missing}, it has {sorted(table.columns)}")
    if table.empty:
        raise GateError(f"the table of {whose} is empty: there is no held-out photo to compare on")
    if not table.index.is_unique:
        raise GateError(
            f"the table of {whose} holds the view {table.index[table.index.duplicated()][0]} more than once"
        )
    chosen = table[list(names)].astype(float).sort_index()
    finite = np.isfinite(chosen.to_numpy())
    if not finite.all():
        row, column = np.argwhere(~finite)[0]
        raise GateError(
            f"{names[column]} of the view {chosen.index[row]} in the table of {whose} is not a finite number"
        )
    return chosen


def _check_same_views(ours: pd.Index, theirs: pd.Index, reference_name: str) -> None:
    if list(ours.names) != list(theirs.names):
        raise GateError(f"index levels differ: challenger {list(ours.names)}, {reference_name} {list(theirs.names)}")
    alone = ours.symmetric_difference(theirs)
    if len(alone):
        raise GateError(
            f"challenger and {reference_name} were measured on different views ({len(alone)} in one table only, "
            f"such as {alone[0]}): evaluate both on the same held-out set"
        )


def _reasons(comparisons: Sequence[Comparison], settings: GateSettings, better: bool, reference_name: str) -> list[str]:
    """A sentence for each rule, the broken ones first."""
    level = f"{settings.confidence:.0%}"
    met, broken = [], []
    for item in comparisons:
        change = (
            f"{item.metric} changed by {item.change:+.4g} ({level} interval {item.low:+.4g} to {item.high:+.4g}) "
            f"against {reference_name}"
        )
        if item.metric == settings.primary:
            if better:
                met.append(f"{change}: surely better")
            else:
                broken.append(f"{change}: not surely better, the interval reaches 0")
        if not item.within:
            broken.append(f"{change}: beyond the tolerance of {_limit(item, settings)}")
        elif item.metric != settings.primary:
            met.append(f"{change}: within the tolerance of {_limit(item, settings)}")
    return broken + met


def _limit(item: Comparison, settings: GateSettings) -> str:
    return f"{-item.tolerance if item.metric in settings.higher_is_better else item.tolerance:+.4g}"
