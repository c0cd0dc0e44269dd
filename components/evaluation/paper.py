"""The four tables of the paper for any package, the untouched input and every baseline beside it.

    enhancement   photos with tone and colour faults: MUSIQ, NIMA, CLIP similarity, FID, LPIPS, DISTS, colour errors
    ablation      the same for several packages, such as those without RL and without r_photo
    restoration   noise, compression and low light; blur; haze, each by itself: PSNR, SSIM, LPIPS, DISTS, FID
    multi_edit    a degradation and tone faults at once, all to be undone: LPIPS, SSIM, FID, CLIP similarity

Every method edits the same cases, which depend on nothing but the photos and the seed. Intervals resample photos. A
measure or a model that is not on this machine is listed as unavailable, with the command that fetches it.
"""

import gc
import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pydantic import Field
from torch import Tensor
from tqdm import tqdm

from components import files
from components.data.records import Manifest, PhotoRecord
from components.evaluation import generative
from components.evaluation.baselines import BASELINES
from components.evaluation.generative import GenerativeBaseline, GenerativeEditor
from components.evaluation.tasks import MEASURES, TITLES, PaperSettings, Task, task_cases
from components.imaging.photo import Photo, quantize
from components.inference.enhancer import Enhancer
from components.metrics.full_reference import LOWER_IS_BETTER, ciede2000, photometric_errors, psnr, ssim
from components.metrics.learned import (
    LEARNED,
    CaseMeasure,
    InceptionFeatures,
    Unavailable,
    frechet_distance,
    load_case_measure,
    unavailable,
)
from components.metrics.tables import (
    INPUT,
    METHOD,
    PHOTO,
    VIEW,
    BootstrapSettings,
    Interval,
    mean_interval,
    write_cases,
)
from components.strict import Strict

log = logging.getLogger(__name__)

TABLES_FILE, CASES_FILE = "tables.json", "tables.parquet"
LOWER: dict[str, bool] = LOWER_IS_BETTER | {name: item.lower_is_better for name, item in LEARNED.items()}
"""For every measure of the tables: is lower better?"""


class MethodRow(Strict):
    """One method in a table."""

    method: str
    measures: dict[str, Interval]


class PaperTable(Strict):
    """One table: methods in rows, measures in columns."""

    name: str
    title: str
    measures: tuple[str, ...]
    rows: tuple[MethodRow, ...]


class Difference(Strict):
    """What a measure changes from one method to another on the same cases, with its paired interval over photos."""

    method: str
    reference: str
    measure: str
    change: Interval = Field(description="Of the method minus that of the reference.")


class PaperTables(Strict):
    """All tables; `tables.json`."""

    photos: int
    cases: int = Field(description="Of every task: photos times views.")
    settings: PaperSettings
    variants: dict[str, str] = Field(description="The packages that were judged: name in the tables -> what it is.")
    tables: tuple[PaperTable, ...]
    unavailable: tuple[Unavailable, ...]


Edit = Callable[[Tensor], Tensor]
Variant = tuple[Callable[[], Enhancer], str]
"""What loads a package, and a text that says which it is."""
Features = dict[tuple[str, str, str, int], np.ndarray]
"""Of FID, by task, method, photo and view."""


def make_tables(
    variants: Mapping[str, Variant],
    manifest: Manifest,
    photos_dir: Path,
    base: Path,
    out: Path,
    settings: PaperSettings,
) -> PaperTables:
    """Let every method edit every case, measure, and write `tables.json` and `tables.parquet` into ``out``.

    Packages and generative models are loaded one after the other, and each is let go before the next.

    Args:
        variants: the packages to judge by their name in the tables. The ablation is the enhancement table of several.
        photos_dir: folder that the manifest's paths are relative to.
        base: folder of the base models, which holds the backbone of LPIPS.

    Raises:
        ValueError: the manifest has fewer than two photos in the split, or two methods have the same name.
    """
    records = [record for record in manifest if record.split == settings.split]
    if len(records) < 2:
        raise ValueError(f"expected at least 2 photos in the split {settings.split!r}, found {len(records)}")
    names = [INPUT, *variants, *settings.baselines, *(baseline.name for baseline in settings.generative)]
    if repeated := {name for name in names if names.count(name) > 1}:
        raise ValueError(f"two methods have the same name: {', '.join(sorted(repeated))}")
    absent = [gap for baseline in settings.generative if (gap := generative.unavailable(baseline))]
    methods = [name for name in names if name not in {gap.name for gap in absent}]
    wanted = dict.fromkeys(name for task in settings.tasks for name in MEASURES[task])
    absent += [gap for name in wanted if name in LEARNED and (gap := unavailable(name))]
    usable = [name for name in wanted if name not in {gap.name for gap in absent}]
    for gap in absent:
        log.warning("%s is unavailable: %s is not on this machine; `%s`", gap.name, ", ".join(gap.missing), gap.command)
    single = [name for name in usable if name == "lpips" or (name in LEARNED and name != "fid")]
    device = str(settings.compute.place().device)
    measures = {name: load_case_measure(name, base, device) for name in single}
    inception = InceptionFeatures(device) if "fid" in usable else None
    rows: list[dict[str, Any]] = []
    features: Features = {}
    for load in _passes(variants, [one for one in settings.generative if one.name in methods], settings):
        _measure(records, photos_dir, load(), measures, inception, settings, rows, features)
        gc.collect()  # models refer to themselves in circles
    cases = pd.DataFrame(rows)
    tables = [_table(task, cases, features, methods, usable, settings) for task in settings.tasks]
    if len(variants) > 1 and "enhancement" in settings.tasks:
        (enhancement,) = (table for table in tables if table.name == "enhancement")
        ours = tuple(row for row in enhancement.rows if row.method in variants)
        title = "Ablation: automatic enhancement by each variant"
        tables.append(PaperTable(name="ablation", title=title, measures=enhancement.measures, rows=ours))
    result = PaperTables(
        photos=len(records),
        cases=len(records) * settings.views,
        settings=settings,
        variants={name: text for name, (_, text) in variants.items()},
        tables=tuple(tables),
        unavailable=tuple(absent),
    )
    write_cases(cases, out / CASES_FILE)
    files.write_text(out / TABLES_FILE, result.model_dump_json(indent=2) + "\n")
    return result


def _passes(
    variants: Mapping[str, Variant], generative_baselines: Sequence[GenerativeBaseline], settings: PaperSettings
) -> list[Callable[[], dict[str, Edit]]]:
    """What loads the methods that edit the cases together; no two models of full size share the memory."""

    def enhance(name: str) -> dict[str, Edit]:
        enhancer = variants[name][0]()
        return {name: lambda picture: enhancer.enhance(Photo(picture), seed=settings.seed).photo.pixels}

    def edit(baseline: GenerativeBaseline) -> dict[str, Edit]:
        device = str(settings.compute.place().device)
        return {baseline.name: GenerativeEditor(baseline, device, settings.seed)}

    classical = {INPUT: lambda picture: picture} | {name: BASELINES[name] for name in settings.baselines}
    return [
        lambda: classical,
        *(partial(enhance, name) for name in variants),
        *(partial(edit, baseline) for baseline in generative_baselines),
    ]


def _measure(
    records: Sequence[PhotoRecord],
    photos_dir: Path,
    editors: Mapping[str, Edit],
    measures: Mapping[str, CaseMeasure],
    inception: InceptionFeatures | None,
    settings: PaperSettings,
    rows: list[dict[str, Any]],
    features: Features,
) -> None:
    """Add a row for each task, photo, view and method, and the features of each and of the references (method "")."""
    work = [(task, record) for task in settings.tasks for record in records]
    label = f"{len(editors)} methods" if len(editors) > 1 else next(iter(editors))
    for task, record in tqdm(work, desc=f"tables: {label}", unit="photo"):
        for case in task_cases(record, photos_dir, task, settings):
            for method, edit in editors.items():
                picture = quantize(edit(case.spoilt).float().cpu())
                row = {"task": task, PHOTO: record.id, VIEW: case.view, METHOD: method}
                rows.append(row | _case_measures(task, picture, case.intact, measures))
                if inception and "fid" in MEASURES[task]:
                    features[task, method, record.id, case.view] = inception(picture)
            if inception and "fid" in MEASURES[task] and (task, "", record.id, case.view) not in features:
                features[task, "", record.id, case.view] = inception(case.intact)


def _case_measures(
    task: Task, picture: Tensor, intact: Tensor, measures: Mapping[str, CaseMeasure]
) -> dict[str, float]:
    wanted = set(MEASURES[task])
    values = {name: measure(picture, intact) for name, measure in measures.items() if name in wanted}
    values |= {name: f(picture, intact) for name, f in (("psnr", psnr), ("ssim", ssim)) if name in wanted}
    if "ciede2000" in wanted:
        values |= {"ciede2000": ciede2000(picture, intact), **photometric_errors(picture, intact)}
    return values


def _table(
    task: Task,
    cases: pd.DataFrame,
    features: Features,
    methods: Sequence[str],
    usable: Sequence[str],
    settings: PaperSettings,
) -> PaperTable:
    names = tuple(name for name in MEASURES[task] if name in usable)
    of_task = cases[cases["task"] == task]
    rows = []
    for method in methods:
        own = of_task[of_task[METHOD] == method]
        values = {name: mean_interval(own, name, settings.bootstrap) for name in names if name != "fid"}
        if "fid" in names:
            photos = list(own[PHOTO].unique())
            made, targets = (_by_photo(features, task, name, photos) for name in (method, ""))
            values["fid"] = set_interval(made, targets, settings.bootstrap)
        rows.append(MethodRow(method=method, measures={name: values[name] for name in names}))
    return PaperTable(name=task, title=TITLES[task], measures=names, rows=tuple(rows))


def _by_photo(features: Features, task: str, method: str, photos: Sequence[str]) -> list[np.ndarray]:
    views = sorted({key[3] for key in features})
    return [np.stack([features[task, method, photo, view] for view in views]) for photo in photos]


def set_interval(
    ours: Sequence[np.ndarray], theirs: Sequence[np.ndarray], settings: BootstrapSettings, most: int = 200
) -> Interval:
    """Fréchet distance of two sets of features (views, D) per photo, with the basic bootstrap interval over photos.

    A resample holds photos twice, which lowers the rank of its covariances and raises the distance; the basic interval
    (2 value - quantile; Davison and Hinkley 1997, chapter 5) turns this bias round where a percentile interval would
    lie wholly above the value. FID of few pictures is biased upwards itself: compare methods, not papers.

    Args:
        most: at most so many resamples, since each takes a decomposition.
    """
    value = frechet_distance(np.concatenate(ours), np.concatenate(theirs))
    generator = np.random.default_rng(settings.seed)
    drawn = generator.integers(len(ours), size=(min(settings.resamples, most), len(ours)))
    resampled = [
        frechet_distance(np.concatenate([ours[i] for i in row]), np.concatenate([theirs[i] for i in row]))
        for row in drawn
    ]
    tail = 50 * (1 - settings.confidence)
    low, high = np.percentile(resampled, [tail, 100 - tail])
    return Interval(value=value, low=min(value, max(0.0, 2 * value - high)), high=max(value, 2 * value - low))
