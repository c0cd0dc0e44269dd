"""Evaluate an enhancer (Critic and Artist) on held-out photos with recorded faults, beside the classical baselines.

Every photo of the held-out split is reduced, spoilt by recorded random faults, and handed to the enhancer and to every
baseline; each result is compared with the photo as it was. So is the photo without any fault, which should stay as it
is. Faults are of two families, the project's own and those that other people's code makes
(`components.evaluation.library_faults`). The same settings always give the same pictures, so two versions are judged
on the same cases. Written to the output directory:

    cases.parquet      one row for each photo, view and method, with every measure
    verdicts.parquet   one row for each picture that the Critic judged, intact ones included
    table.json         the `Evaluation` record: means with intervals, the Critic's figures
    report.html        the same to look at, with pictures
"""

import hashlib
import itertools
import json
import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm

from components import files
from components.data.faults import sample_faults
from components.data.records import Manifest, PhotoRecord
from components.evaluation.baselines import BASELINES
from components.evaluation.critic_accuracy import critic_figures, directions
from components.evaluation.library_faults import apply_library_faults, sample_library_faults
from components.evaluation.records import Evaluation, EvaluationSettings, FamilyFigures, Picture
from components.evaluation.report import Curves, Gallery, write_report
from components.evaluation.tasks import intact_picture
from components.imaging.photo import Photo, quantize
from components.inference.enhancer import Enhanced, Enhancer
from components.metrics.full_reference import LPIPS_FILE, Lpips, ciede2000, measure_case
from components.metrics.tables import (
    CASES_FILE,
    FAMILY,
    INPUT,
    INTACT,
    LIBRARY,
    METHOD,
    OURS,
    OWN,
    PHOTO,
    TABLE_FILE,
    VIEW,
    best_baseline,
    faulty,
    mean_interval,
    ratio_interval,
    summarise,
    write_cases,
)
from components.photometry.operations import TONE, Operation, apply_operations, label
from components.seeding import generator_for
from components.training.tracker import Tracker

log = logging.getLogger(__name__)

VERDICTS_FILE, REPORT_FILE = "verdicts.parquet", "report.html"
FAULT_SIZES = (0.0, 4.0, 7.0, 10.0, 15.0, math.inf)
"""Borders between sizes of faults: mean CIEDE2000 of the input."""
VISIBLE_CHANGE = 2.0
"""Mean CIEDE2000 from which a change is seen side by side."""
_INTACT = -1
"""View number of the intact photo, which the Critic judges too and which the enhancer should leave alone."""


@dataclass(frozen=True)
class HeldOutCase:
    """A picture to judge.

    Attributes:
        view: number of the view, of all families; -1 for the photo without a fault.
        family: of the faults.
        intact: (3, H, W) the photo.
        faulty: (3, H, W) the same with faults; the same picture for the intact view.
        faults: the faults of the project's own family, as records.
        labels: every fault in a few words.
    """

    record: PhotoRecord
    view: int
    family: str
    intact: Tensor
    faulty: Tensor
    faults: tuple[Operation, ...] = ()
    labels: tuple[str, ...] = ()


def evaluate_enhancer(
    enhancer: Enhancer,
    manifest: Manifest,
    photos_dir: Path,
    base: Path,
    out: Path,
    settings: EvaluationSettings,
    tracker: Tracker,
    curves: Curves | None = None,
) -> Evaluation:
    """Judge Critic and Artist, enhancing as ``settings.enhancer`` says, and write the files above into ``out``.

    Args:
        enhancer: Critic and Artist with the adapters that are judged.
        photos_dir: folder that the manifest's paths are relative to.
        base: folder of the base models, which holds the backbone of LPIPS.
        curves: rewards during reinforcement, for the report.

    Raises:
        ValueError: the manifest has no photo in the split.
        FileNotFoundError, UnreadablePhoto: a photo or the LPIPS backbone is missing or damaged: run `dvc pull`.
    """
    enhancer = Enhancer(enhancer.critic, enhancer.artist, settings.enhancer)
    records = [record for record in manifest if record.split == settings.split]
    if not records:
        raise ValueError(f"the manifest of {len(manifest)} photos has none in the split {settings.split!r}")
    lpips_distance = Lpips(Path(base) / LPIPS_FILE, settings.compute.place().device)
    rows: list[dict[str, Any]] = []
    verdicts: list[dict[str, Any]] = []
    gallery = Gallery(settings.report)
    with tqdm(records, desc="evaluate", unit="photo") as progress:
        for record in progress:
            cases = list(held_out_cases(record, photos_dir, settings))
            enhanced = enhancer.enhance_many([Photo(case.faulty) for case in cases], seed=settings.seed)
            for case, result in zip(cases, enhanced, strict=True):
                verdicts.append(_verdict_row(case, result))
                measured = _case_rows(case, result.photo.pixels, lpips_distance, settings)
                rows += measured
                picture = _picture(case, result, measured)
                if gallery.add(picture):
                    strip = torch.cat([picture.faulty, picture.enhanced, picture.original], dim=-1)
                    tracker.picture("faulty | enhanced | original", strip, step=len(gallery.first) - 1)
    cases_table, verdicts_table = pd.DataFrame(rows), pd.DataFrame(verdicts)
    evaluation = _evaluation(cases_table, verdicts_table, settings, held_out_digest(records, settings))
    write_cases(cases_table, out / CASES_FILE)
    write_cases(verdicts_table, out / VERDICTS_FILE)
    files.write_text(out / TABLE_FILE, evaluation.model_dump_json(indent=2) + "\n")
    write_report(out / REPORT_FILE, evaluation, gallery, curves or {})
    _track(tracker, evaluation, out)
    return evaluation


def held_out_cases(record: PhotoRecord, photos_dir: Path, settings: EvaluationSettings) -> Iterator[HeldOutCase]:
    """The intact view and the faulty views of one photo, on the 8-bit grid as a file would hold them."""
    intact = intact_picture(record, photos_dir, settings.max_side)
    yield HeldOutCase(record, _INTACT, INTACT, intact, intact)
    for view in range(settings.views):
        faults = sample_faults(generator_for(settings.seed, record.sha256, "evaluation", view))
        spoilt = quantize(apply_operations(intact, faults))
        yield HeldOutCase(record, view, OWN, intact, spoilt, faults, tuple(map(label, faults)))
    for view in range(settings.library_views):
        others = sample_library_faults(generator_for(settings.seed, record.sha256, "evaluation/library", view))
        spoilt, labels = apply_library_faults(intact, others), tuple(fault.label for fault in others)
        yield HeldOutCase(record, settings.views + view, LIBRARY, intact, spoilt, (), labels)


def _case_rows(
    case: HeldOutCase, edited: Tensor, lpips_distance: Lpips, settings: EvaluationSettings
) -> list[dict[str, Any]]:
    results = {INPUT: case.faulty, OURS: quantize(edited)}
    results |= {name: quantize(BASELINES[name](case.faulty)) for name in settings.baselines}
    keys = {PHOTO: case.record.id, VIEW: case.view, FAMILY: case.family}
    return [
        {**keys, METHOD: method, **measure_case(picture, case.intact, lpips_distance)}
        for method, picture in results.items()
    ]


def _verdict_row(case: HeldOutCase, result: Enhanced) -> dict[str, Any]:
    right = directions(result.verdict, case.faults)
    return {
        PHOTO: case.record.id,
        VIEW: case.view,
        FAMILY: case.family,
        "faults": json.dumps([fault.model_dump() for fault in case.faults]),
        "fault_size": ciede2000(case.faulty, case.intact),
        "text": result.text,
        "parsed": result.verdict is not None,
        "score": result.verdict.score if result.verdict else float("nan"),
        "strength": result.strength,
        **{f"right_{name}": float(right[name]) if name in right else float("nan") for name in TONE},
    }


def _picture(case: HeldOutCase, result: Enhanced, rows: list[dict[str, Any]]) -> Picture:
    errors = {row[METHOD]: row["ciede2000"] for row in rows}
    return Picture(
        photo_id=case.record.id,
        view=case.view,
        faults=case.labels,
        original=case.intact,
        faulty=case.faulty,
        enhanced=result.photo.pixels,
        text=result.text,
        verdict=result.verdict,
        input_error=errors[INPUT],
        error=errors[OURS],
        credit=", ".join(filter(None, (case.record.author, case.record.licence))),
    )


def held_out_digest(records: Sequence[PhotoRecord], settings: EvaluationSettings) -> str:
    """What tells one held-out set from another: the bytes of the photos and all that their views are made of."""
    made_of = [settings.split, settings.views, settings.library_views, settings.max_side, settings.seed]
    text = json.dumps([sorted(record.sha256 for record in records), made_of])
    return hashlib.sha256(text.encode()).hexdigest()


def _evaluation(cases: pd.DataFrame, verdicts: pd.DataFrame, settings: EvaluationSettings, held_out: str) -> Evaluation:
    bad = faulty(cases)
    best = best_baseline(bad, settings.baselines)
    good = cases[(cases[FAMILY] == INTACT) & (cases[METHOD] == OURS)]
    return Evaluation(
        held_out=held_out,
        photos=cases[PHOTO].nunique(),
        cases=len(bad[bad[METHOD] == OURS]),
        settings=settings,
        rows=summarise(bad, settings.bootstrap),
        ratio_to_input=ratio_interval(bad, OURS, INPUT, settings.bootstrap),
        best_baseline=best,
        ratio_to_best_baseline=ratio_interval(bad, OURS, best, settings.bootstrap),
        families=tuple(
            family_figures(bad[bad[FAMILY] == family], family, best, settings) for family in bad[FAMILY].unique()
        ),
        change_of_intact=mean_interval(good, "ciede2000", settings.bootstrap),
        intact_changed_visibly=float((good["ciede2000"] > VISIBLE_CHANGE).mean()),
        critic=critic_figures(verdicts, settings.bootstrap),
    )


def family_figures(cases: pd.DataFrame, family: str, baseline: str, settings: EvaluationSettings) -> FamilyFigures:
    """What is left of the faults of one family, in all and by their size."""
    size = cases[cases[METHOD] == INPUT].set_index([PHOTO, VIEW])["ciede2000"]
    sizes = cases.set_index([PHOTO, VIEW]).index.map(size)
    by_size = {}
    for low, high in itertools.pairwise(FAULT_SIZES):
        chosen = cases[(sizes >= low) & (sizes < high)]
        if len(chosen):
            name = f"{low:g} to {high:g}" if math.isfinite(high) else f"above {low:g}"
            by_size[name] = ratio_interval(chosen, OURS, INPUT, settings.bootstrap)
    return FamilyFigures(
        family=family,
        cases=len(size),
        ratio_to_input=ratio_interval(cases, OURS, INPUT, settings.bootstrap),
        baseline_ratio_to_input=ratio_interval(cases, baseline, INPUT, settings.bootstrap),
        by_size=by_size,
    )


def _track(tracker: Tracker, evaluation: Evaluation, out: Path) -> None:
    tracker.params(evaluation.settings.model_dump(mode="json"))
    values = {
        f"{row.method}/{name}": interval.value for row in evaluation.rows for name, interval in row.measures.items()
    }
    values |= {
        "ratio_to_input": evaluation.ratio_to_input.value,
        "ratio_to_best_baseline": evaluation.ratio_to_best_baseline.value,
        **{f"ratio_to_input/{figures.family}": figures.ratio_to_input.value for figures in evaluation.families},
        "change_of_intact": evaluation.change_of_intact.value,
        "intact_changed_visibly": evaluation.intact_changed_visibly,
        "critic/parse_rate": evaluation.critic.parse_rate.value,
        "critic/direction_accuracy": evaluation.critic.direction_accuracy.value,
        "critic/score_correlation": evaluation.critic.score_correlation,
    }
    tracker.metrics(values, step=0)
    for name in (CASES_FILE, VERDICTS_FILE, TABLE_FILE, REPORT_FILE):
        tracker.artifact(out / name, "evaluation")
