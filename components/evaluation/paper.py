"""The four tables of the paper for any package, the untouched input and every baseline beside it.

    enhancement   photos with tone and colour faults: MUSIQ, NIMA, CLIP similarity, FID, LPIPS, DISTS, colour errors
    ablation      the same for several packages, such as those without RL and without r_photo
    restoration   noise, compression and low light; blur; haze, each by itself: PSNR, SSIM, LPIPS, DISTS, FID
    multi_edit    a degradation and tone faults at once, all to be undone: LPIPS, SSIM, FID, CLIP similarity

Every method edits the same cases, which depend on nothing but the photos and the seed. Intervals resample photos. A
measure or a model that is not on this machine is listed as unavailable, with the command that fetches it.
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd
from pydantic import Field, field_validator
from torch import Tensor
from tqdm import tqdm

from components import files
from components.compute import ComputeSettings
from components.data.damage import sample_degradation
from components.data.faults import sample_faults
from components.data.records import Manifest, PhotoRecord
from components.data.seeding import generator_for
from components.data.splits import Split
from components.enhance.crafter import Crafter
from components.evaluation import generative
from components.evaluation.baselines import BASELINES
from components.evaluation.generative import GenerativeBaseline, GenerativeEditor
from components.evaluation.learned import (
    LEARNED,
    CaseMeasure,
    InceptionFeatures,
    Unavailable,
    frechet_distance,
    load_case_measure,
    unavailable,
)
from components.evaluation.metrics import LOWER_IS_BETTER, ciede2000, photometric_errors, psnr, ssim
from components.evaluation.tables import (
    INPUT,
    METHOD,
    PHOTO,
    VIEW,
    BootstrapSettings,
    Interval,
    mean_interval,
    write_cases,
)
from components.images import Photo, quantize, read_photo, resize
from components.photometry.operations import TONE, Operation, apply_operations
from components.strict import Strict

log = logging.getLogger(__name__)

TABLES_FILE, CASES_FILE = "tables.json", "tables.parquet"
Task = Literal["enhancement", "restoration", "deblurring", "dehazing", "multi_edit"]
TASKS: dict[Task, tuple[str, ...]] = {
    "enhancement": (),
    "restoration": ("noise", "jpeg", "low_light"),
    "deblurring": ("motion_blur", "defocus_blur"),
    "dehazing": ("haze",),
    "multi_edit": ("motion_blur", "defocus_blur", "noise", "jpeg", "haze", "low_light"),
}
"""The degradations of which each case of a task has one; enhancement and multi-edit have tone faults (as well)."""

_COLOUR = ("ciede2000", *(f"{name}_error" for name in TONE))
MEASURES: dict[Task, tuple[str, ...]] = {
    "enhancement": ("musiq", "nima", "clip", "fid", "lpips", "dists", *_COLOUR),
    "restoration": ("psnr", "ssim", "lpips", "dists", "fid"),
    "deblurring": ("psnr", "ssim", "lpips", "dists", "fid"),
    "dehazing": ("psnr", "ssim", "lpips", "dists", "fid"),
    "multi_edit": ("lpips", "ssim", "fid", "clip"),
}
LOWER: dict[str, bool] = LOWER_IS_BETTER | {name: item.lower_is_better for name, item in LEARNED.items()}
"""For every measure of the tables: is lower better?"""
TITLES: dict[Task, str] = {
    "enhancement": "Automatic enhancement",
    "restoration": "Restoration: noise, compression, low light",
    "deblurring": "Deblurring",
    "dehazing": "Dehazing",
    "multi_edit": "Multi-edit instruction following",
}


class PaperSettings(Strict):
    """What the tables are made of."""

    tasks: tuple[Task, ...] = tuple(TASKS)
    split: Split = "test"
    views: int = Field(default=3, ge=1, description="Cases of each photo and task.")
    max_side: int = Field(default=512, ge=32, description="Photos are reduced to this longer side first. Pixels.")
    baselines: tuple[str, ...] = Field(default=tuple(BASELINES), description="Keys of the classical baselines.")
    generative: tuple[GenerativeBaseline, ...] = Field(default=(), description="Editing models to compare with.")
    compute: ComputeSettings = Field(
        default_factory=ComputeSettings, description="Of the packages, the learned measures and the editing models."
    )
    seed: int = Field(default=0, ge=0, description="Of the cases and of every method's noise.")
    bootstrap: BootstrapSettings = Field(default_factory=BootstrapSettings)

    @field_validator("baselines")
    @classmethod
    def _known(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if unknown := set(names) - set(BASELINES):
            raise ValueError(f"unknown baselines {sorted(unknown)}; expected some of {', '.join(BASELINES)}")
        return names


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


class PaperTables(Strict):
    """All tables; `tables.json`."""

    photos: int
    cases: int = Field(description="Of every task: photos times views.")
    settings: PaperSettings
    variants: dict[str, str] = Field(description="The packages that were judged: name in the tables -> what it is.")
    tables: tuple[PaperTable, ...]
    unavailable: tuple[Unavailable, ...]


class TaskCase(NamedTuple):
    """A photo as it should be and as it comes, both (3, H, W) on the 8-bit grid."""

    record: PhotoRecord
    view: int
    intact: Tensor
    spoilt: Tensor
    operations: tuple[Operation, ...]


Edit = Callable[[Tensor], Tensor]


def make_tables(
    variants: Mapping[str, tuple[Crafter, str]],
    manifest: Manifest,
    photos_dir: Path,
    base: Path,
    out: Path,
    settings: PaperSettings,
) -> PaperTables:
    """Let every method edit every case, measure, and write `tables.json` and `tables.parquet` into ``out``.

    Args:
        variants: crafters to judge by their name in the tables, each with a text that says what it is. The ablation
            is the enhancement table of several.
        photos_dir: folder that the manifest's paths are relative to.
        base: folder of the base models, which holds the backbone of LPIPS.

    Raises:
        ValueError: the manifest has no photo in the split, fewer than two, or a variant has the name of a baseline.
    """
    records = [record for record in manifest if record.split == settings.split]
    if len(records) < 2:
        raise ValueError(f"expected at least 2 photos in the split {settings.split!r}, found {len(records)}")
    editors, absent = _editors(variants, settings)
    wanted = dict.fromkeys(name for task in settings.tasks for name in MEASURES[task])
    absent += [gap for name in wanted if name in LEARNED and (gap := unavailable(name))]
    usable = [name for name in wanted if name not in {gap.name for gap in absent}]
    for gap in absent:
        log.warning("%s is unavailable: %s is not on this machine; `%s`", gap.name, ", ".join(gap.missing), gap.command)
    single = [name for name in usable if name == "lpips" or (name in LEARNED and name != "fid")]
    device = str(settings.compute.place().device)
    measures = {name: load_case_measure(name, base, device) for name in single}
    inception = InceptionFeatures(device) if "fid" in usable else None
    cases, features = _measure(records, photos_dir, editors, measures, inception, settings)
    tables = [_table(task, cases, features, usable, settings) for task in settings.tasks]
    if len(variants) > 1 and "enhancement" in settings.tasks:
        (enhancement,) = (table for table in tables if table.name == "enhancement")
        rows = tuple(row for row in enhancement.rows if row.method in variants)
        title = "Ablation: automatic enhancement by each variant"
        tables.append(PaperTable(name="ablation", title=title, measures=enhancement.measures, rows=rows))
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


def task_cases(record: PhotoRecord, photos_dir: Path, task: Task, settings: PaperSettings) -> Iterator[TaskCase]:
    """The cases of one photo; the same record, task and seed always give the same pictures.

    Those of "enhancement" are the faulty views on which `components.evaluation.evaluate` judges.
    """
    pixels = read_photo(Path(photos_dir) / record.path).pixels
    scale = min(1.0, settings.max_side / max(pixels.shape[-2:]))
    intact = quantize(resize(pixels, tuple(max(1, round(side * scale)) for side in pixels.shape[-2:])))
    for view in range(settings.views):
        purpose = "evaluation" if task == "enhancement" else f"tables/{task}"
        generator = generator_for(settings.seed, record.sha256, purpose, view)
        operations = (sample_degradation(generator, TASKS[task]),) if TASKS[task] else ()
        if task in ("enhancement", "multi_edit"):
            operations += sample_faults(generator)
        yield TaskCase(record, view, intact, quantize(apply_operations(intact, operations)), operations)


def _editors(
    variants: Mapping[str, tuple[Crafter, str]], settings: PaperSettings
) -> tuple[dict[str, Edit], list[Unavailable]]:
    """Every method of the tables that can be run here, and the others."""
    editors: dict[str, Edit] = {INPUT: lambda picture: picture}
    for name, (crafter, _) in variants.items():
        editors[name] = lambda picture, crafter=crafter: (
            crafter.enhance(Photo(picture), seed=settings.seed).photo.pixels
        )
    absent: list[Unavailable] = []
    others: dict[str, Edit] = {name: BASELINES[name] for name in settings.baselines}
    for baseline in settings.generative:
        if gap := generative.unavailable(baseline):
            absent.append(gap)
        else:
            others[baseline.name] = GenerativeEditor(baseline, str(settings.compute.place().device), settings.seed)
    names = [INPUT, *variants, *settings.baselines, *(baseline.name for baseline in settings.generative)]
    if repeated := {name for name in names if names.count(name) > 1}:
        raise ValueError(f"two methods have the same name: {', '.join(sorted(repeated))}")
    return editors | others, absent


def _measure(
    records: Sequence[PhotoRecord],
    photos_dir: Path,
    editors: Mapping[str, Edit],
    measures: Mapping[str, CaseMeasure],
    inception: InceptionFeatures | None,
    settings: PaperSettings,
) -> tuple[pd.DataFrame, dict[tuple[str, str, str, int], np.ndarray]]:
    """One row for each task, photo, view and method; and the features of each, and of the references (method "")."""
    rows, features = [], {}
    work = [(task, record) for task in settings.tasks for record in records]
    for task, record in tqdm(work, desc="tables", unit="photo"):
        for case in task_cases(record, photos_dir, task, settings):
            for method, edit in editors.items():
                picture = quantize(edit(case.spoilt).float().cpu())
                row = {"task": task, PHOTO: record.id, VIEW: case.view, METHOD: method}
                rows.append(row | _case_measures(task, picture, case.intact, measures))
                if inception and "fid" in MEASURES[task]:
                    features[task, method, record.id, case.view] = inception(picture)
            if inception and "fid" in MEASURES[task]:
                features[task, "", record.id, case.view] = inception(case.intact)
    return pd.DataFrame(rows), features


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
    features: Mapping[tuple[str, str, str, int], np.ndarray],
    usable: Sequence[str],
    settings: PaperSettings,
) -> PaperTable:
    names = tuple(name for name in MEASURES[task] if name in usable)
    of_task = cases[cases["task"] == task]
    rows = []
    for method in of_task[METHOD].unique():
        own = of_task[of_task[METHOD] == method]
        values = {name: mean_interval(own, name, settings.bootstrap) for name in names if name != "fid"}
        if "fid" in names:
            values["fid"] = set_interval(
                *(_by_photo(features, task, name, list(own[PHOTO].unique())) for name in (method, "")),
                settings.bootstrap,
            )
        rows.append(MethodRow(method=method, measures={name: values[name] for name in names}))
    return PaperTable(name=task, title=TITLES[task], measures=names, rows=tuple(rows))


def _by_photo(
    features: Mapping[tuple[str, str, str, int], np.ndarray], task: str, method: str, photos: Sequence[str]
) -> list[np.ndarray]:
    views = sorted({key[3] for key in features})
    return [np.stack([features[task, method, photo, view] for view in views]) for photo in photos]


def set_interval(
    ours: Sequence[np.ndarray], theirs: Sequence[np.ndarray], settings: BootstrapSettings, most: int = 200
) -> Interval:
    """Fréchet distance of two sets of features (views, D) a photo, with the basic bootstrap interval over photos.

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
