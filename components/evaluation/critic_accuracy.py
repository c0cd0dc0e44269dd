"""Judging the Critic against faults that are on record: does it parse, point the right way, and rank by severity?"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy.stats import spearmanr

from components.metrics.tables import PHOTO, BootstrapSettings, Interval, mean_interval
from components.photometry.operations import TONE, Operation
from components.strict import Strict
from components.verdict.grammar import Verdict


class CriticFigures(Strict):
    """What the Critic achieves on held-out photos; the intervals resample photos."""

    parse_rate: Interval
    direction_accuracy: Interval
    """Of the faults that are present: the share for which the verdict asks for the opposite of the fault."""
    direction_by_operation: dict[str, float]
    """The same for each tone operation that occurred."""
    faults: int
    """How many faults ``direction_accuracy`` is over."""
    score_correlation: float
    """Spearman's rank correlation of the score with minus the fault size, intact photos included; higher is better."""
    score_correlation_low: float
    score_correlation_high: float


def directions(verdict: Verdict | None, faults: Sequence[Operation]) -> dict[str, bool]:
    """For each tone operation among the faults: does the verdict ask for the opposite?

    The net amounts count, on both sides: a fault applied twice is one fault, and contradictory suggestions cancel.
    A verdict that does not parse (None) is wrong about every fault.
    """
    present = {name: sum(fault.amount for fault in faults if fault.name == name) for name in TONE}
    asked = dict.fromkeys(TONE, 0.0)
    for suggestion in verdict.suggestions if verdict else ():
        if suggestion.operation in asked and suggestion.amount is not None:
            asked[suggestion.operation] += suggestion.amount
    return {name: asked[name] * amount < 0 for name, amount in present.items() if amount}


def critic_figures(verdicts: pd.DataFrame, settings: BootstrapSettings) -> CriticFigures:
    """Figures over judged pictures.

    Args:
        verdicts: one row a picture with columns photo_id, parsed (bool), score (NaN when not parsed), fault_size (mean
            CIEDE2000 to the intact photo, 0 for intact ones) and, for each tone operation, ``right_<operation>`` (1.0
            or 0.0, NaN where that fault is absent).

    An output that does not parse counts as a score of 50, which says nothing, in the rank correlation.
    """
    columns = [f"right_{name}" for name in TONE]
    long = verdicts.melt([PHOTO], columns, value_name="right").dropna(subset="right")
    scored = verdicts.assign(score=verdicts["score"].fillna(50.0))
    low, high = _correlation_interval(scored, settings)
    return CriticFigures(
        parse_rate=mean_interval(verdicts.assign(parsed=verdicts["parsed"].astype(float)), "parsed", settings),
        direction_accuracy=mean_interval(long, "right", settings),
        direction_by_operation={
            name: float(verdicts[f"right_{name}"].mean()) for name in TONE if verdicts[f"right_{name}"].notna().any()
        },
        faults=len(long),
        score_correlation=_correlation(scored),
        score_correlation_low=low,
        score_correlation_high=high,
    )


def _correlation(scored: pd.DataFrame) -> float:
    """Spearman of score with minus the fault size; 0 when every score is the same, which ranks nothing."""
    if scored["score"].nunique() < 2 or scored["fault_size"].nunique() < 2:
        return 0.0
    return float(spearmanr(scored["score"], -scored["fault_size"]).statistic)


def _correlation_interval(scored: pd.DataFrame, settings: BootstrapSettings) -> tuple[float, float]:
    """Percentile interval, resampling photos; at most 1000 resamples, since each one ranks anew."""
    groups = [rows for _, rows in scored.groupby(PHOTO)]
    generator = np.random.default_rng(settings.seed)
    values = [
        _correlation(pd.concat([groups[index] for index in generator.integers(len(groups), size=len(groups))]))
        for _ in range(min(settings.resamples, 1000))
    ]
    tail = 50 * (1 - settings.confidence)
    low, high = np.percentile(values, [tail, 100 - tail])
    return float(low), float(high)
