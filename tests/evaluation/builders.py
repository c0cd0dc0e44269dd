"""Tables of cases and records of an evaluation with figures that are known."""

import numpy as np
import pandas as pd

from components.evaluation.critic_accuracy import CriticFigures
from components.evaluation.records import Evaluation, EvaluationSettings, FamilyFigures
from components.metrics.full_reference import LOWER_IS_BETTER
from components.metrics.tables import INPUT, INTACT, OURS, OWN, BootstrapSettings, Interval, summarise

UNIT = Interval(value=0.612, low=0.571, high=0.655)


def make_cases(
    photos: int = 12, views: int = 3, ours: float = 0.6, seed: int = 0, intact_change: float | None = None
) -> pd.DataFrame:
    """The input has errors around 10, ours that times ``ours``, the baselines are worse than the input.

    Args:
        intact_change: by how much ours changes the intact view of each photo; None for no such views.
    """
    rng = np.random.default_rng(seed)
    rows = []
    for photo in range(photos):
        level = rng.uniform(5, 15)
        for view in range(views):
            error = level * rng.uniform(0.8, 1.2)
            for method, factor in ((INPUT, 1.0), (OURS, ours), ("clahe", 1.3), ("grey_world", 1.1)):
                value = error * factor * rng.uniform(0.95, 1.05)
                rows.append(
                    {"photo_id": f"p{photo}", "view": view, "family": OWN, "method": method}
                    | {name: value if lower else -value for name, lower in LOWER_IS_BETTER.items()}
                )
        for method, change in ((INPUT, 0.0), (OURS, intact_change)) if intact_change is not None else ():
            rows.append(
                {"photo_id": f"p{photo}", "view": -1, "family": INTACT, "method": method}
                | dict.fromkeys(LOWER_IS_BETTER, change)
            )
    return pd.DataFrame(rows)


def make_evaluation(**changes: object) -> Evaluation:
    """The record of four photos with two views each; every interval of its own is `UNIT`."""
    values = {
        "photos": 4,
        "cases": 8,
        "settings": EvaluationSettings(),
        "rows": summarise(make_cases(photos=4, views=2), BootstrapSettings(resamples=100)),
        "ratio_to_input": UNIT,
        "best_baseline": "grey_world",
        "ratio_to_best_baseline": UNIT,
        "families": (
            FamilyFigures(
                family=OWN, cases=8, ratio_to_input=UNIT, baseline_ratio_to_input=UNIT, by_size={"4 to 7": UNIT}
            ),
        ),
        "change_of_intact": UNIT,
        "intact_changed_visibly": 0.25,
        "critic": make_figures(),
    }
    return Evaluation.model_validate(values | changes)


def make_figures(**changes: object) -> CriticFigures:
    """What a Critic achieved."""
    values = {
        "parse_rate": UNIT,
        "direction_accuracy": UNIT,
        "direction_by_operation": {"exposure": 0.9},
        "faults": 16,
        "score_correlation": 0.7,
        "score_correlation_low": 0.5,
        "score_correlation_high": 0.8,
    }
    return CriticFigures.model_validate(values | changes)
