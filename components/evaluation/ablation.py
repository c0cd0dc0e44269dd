"""The ablation of stage III: no reinforcement, reinforcement without r_photo, and all of it, from the same stage II.

The variants edit the same held-out photos. Beside the columns of the paper stand the differences between variants,
paired case by case, and the rewards of both trainings as curves.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from components.data.records import Manifest
from components.evaluation.paper import CASES_FILE, Difference, PaperTable, PaperTables, Variant, make_tables
from components.evaluation.paper_page import write_pages
from components.evaluation.report import Curves
from components.evaluation.tasks import PaperSettings
from components.metrics.tables import BootstrapSettings, difference_interval

NO_RL, NO_PHOTOMETRIC, FULL = "no_rl", "no_r_photo", "full"
"""Names of the variants in the tables."""


def without_photometric(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of stage III (plain data) in which r_photo counts nothing and r_perc has its weight as well.

    So r_PA keeps its scale, and what else depends on that, such as which groups are dropped, stays as it is.
    """
    rollouts = settings["rollouts"]
    weights = rollouts["artist"]
    total = min(1.0, weights["photometric"] + weights["perceptual"])
    return {**settings, "rollouts": {**rollouts, "artist": {**weights, "photometric": 0.0, "perceptual": total}}}


def make_ablation(
    variants: Mapping[str, Variant],
    curves: Mapping[str, Curves],
    manifest: Manifest,
    photos_dir: Path,
    base: Path,
    out: Path,
    settings: PaperSettings,
) -> tuple[PaperTables, tuple[Difference, ...]]:
    """Judge the variants on the cases of the enhancement table and write its files and pages into ``out``.

    Args:
        variants: `NO_RL`, `NO_PHOTOMETRIC` and `FULL`, or any others with `FULL` among them.
        curves: rewards of the reinforced variants, by variant.
        settings: of the tables; of their tasks, enhancement alone is done.

    Returns:
        the tables, and how `FULL` differs from each other variant.
    """
    settings = settings.model_copy(update={"tasks": ("enhancement",)})
    tables = make_tables(variants, manifest, photos_dir, base, out, settings)
    others = [name for name in variants if name != FULL]
    differences = _differences(pd.read_parquet(out / CASES_FILE), tables.tables[0], others, settings.bootstrap)
    write_pages(out, tables, "Ablation of stage III", differences, curves)
    return tables, differences


def _differences(
    cases: pd.DataFrame, table: PaperTable, others: Sequence[str], bootstrap: BootstrapSettings
) -> tuple[Difference, ...]:
    """Of every measure that has a value for each case, which FID has not."""
    return tuple(
        Difference(
            method=FULL,
            reference=other,
            measure=measure,
            change=difference_interval(cases, FULL, other, bootstrap, measure),
        )
        for other in others
        for measure in table.measures
        if measure in cases
    )
