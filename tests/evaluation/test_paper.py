"""The paper's tables: the same cases for every method, measured rightly, with what is unavailable said."""

import json
import weakref
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from components.data.records import Manifest
from components.evaluation.evaluate import held_out_cases
from components.evaluation.paper import (
    CASES_FILE,
    LOWER,
    TABLES_FILE,
    PaperTables,
    make_tables,
    set_interval,
)
from components.evaluation.paper_page import render_markdown, render_page, write_pages
from components.evaluation.records import EvaluationSettings
from components.evaluation.tasks import MEASURES, TASKS, PaperSettings, task_cases
from components.imaging.photo import Photo
from components.metrics.full_reference import ciede2000, psnr, ssim
from components.metrics.learned import LEARNED, Unavailable
from components.metrics.tables import BootstrapSettings
from components.photometry.operations import DEGRADATIONS, TONE
from tests.evaluation.conftest import without_weights
from tests.evaluation.test_report import Page

pytestmark = pytest.mark.slow

QUICK = PaperSettings(
    tasks=("enhancement", "library_faults", "intact", "deblurring", "multi_edit"),
    views=1,
    max_side=64,
    baselines=("grey_world",),
    bootstrap=BootstrapSettings(resamples=100),
)


class Darkener:
    """Halves every value."""

    def enhance(self, photo: Photo, seed: int) -> SimpleNamespace:
        return SimpleNamespace(photo=photo.with_pixels(photo.pixels / 2))


class Keeper:
    """Changes nothing."""

    def enhance(self, photo: Photo, seed: int) -> SimpleNamespace:
        return SimpleNamespace(photo=photo)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tables")


@pytest.fixture(scope="module")
def tables(photos: tuple[Path, Manifest], backbone: Path, folder: Path) -> PaperTables:
    variants = {"full": (Darkener, "version 2"), "no_rl": (Keeper, "version 1")}
    with without_weights(folder / "caches"):
        return make_tables(variants, photos[1], photos[0], backbone.parent, folder, QUICK)


def test_tables_of_all_methods_on_the_same_cases(
    tables: PaperTables, photos: tuple[Path, Manifest], folder: Path
) -> None:
    assert [table.name for table in tables.tables] == [*QUICK.tasks, "ablation"]
    assert (tables.photos, tables.cases) == (3, 3)
    cases = pd.read_parquet(folder / CASES_FILE)
    assert (cases.groupby(["task", "method"]).size() == 3).all()
    records = [record for record in photos[1] if record.split == "test"]
    for task, measure, function in (("deblurring", "psnr", psnr), ("multi_edit", "ssim", ssim)):
        made = [case for record in records for case in task_cases(record, photos[0], task, QUICK)]
        (table,) = (table for table in tables.tables if table.name == task)
        rows = {row.method: row.measures for row in table.rows}
        assert list(rows) == ["input", "full", "no_rl", "grey_world"]
        expected = np.mean([function(case.spoilt, case.intact) for case in made])
        assert rows["input"][measure].value == pytest.approx(expected)
        assert rows["no_rl"] == rows["input"]
        dark = np.mean([function((case.spoilt / 2 * 255).round() / 255, case.intact) for case in made])
        assert rows["full"][measure].value == pytest.approx(dark, rel=1e-3)
        assert all(low.low <= low.value <= low.high for measures in rows.values() for low in measures.values())


def test_packages_are_loaded_one_after_the_other(
    photos: tuple[Path, Manifest], backbone: Path, tmp_path: Path, no_weights: Path
) -> None:
    alive: weakref.WeakSet[Keeper] = weakref.WeakSet()
    together = []

    def load() -> Keeper:
        enhancer = Keeper()
        alive.add(enhancer)
        together.append(len(alive))
        return enhancer

    variants = dict.fromkeys(("one", "two", "three"), (load, ""))
    quick = QUICK.model_copy(update={"tasks": ("multi_edit",)})
    make_tables(variants, photos[1], photos[0], backbone.parent, tmp_path, quick)
    assert together == [1, 1, 1]


def test_the_ablation_is_the_enhancement_of_the_variants(tables: PaperTables) -> None:
    enhancement, ablation = tables.tables[0], tables.tables[-1]
    assert ablation.rows == enhancement.rows[1:3]
    assert {"ciede2000", *(f"{name}_error" for name in TONE), "lpips"} == set(ablation.measures)


def test_what_is_unavailable_is_listed_and_replaced_by_nothing(tables: PaperTables) -> None:
    assert {gap.name for gap in tables.unavailable} == set(LEARNED)
    assert not {name for table in tables.tables for name in table.measures} & set(LEARNED)


def test_the_record_and_the_pages_say_the_same(tables: PaperTables, folder: Path) -> None:
    assert PaperTables.model_validate(json.loads((folder / TABLES_FILE).read_text())) == tables
    write_pages(folder, tables)
    page = Page((folder / "tables.html").read_text())
    markdown = (folder / "tables.md").read_text()
    for gap in tables.unavailable:
        assert gap.command in page.text and gap.command in markdown
    for table in tables.tables:
        for row in table.rows:
            for interval in row.measures.values():
                assert f"{interval.value:.4g}" in page.text and f"{interval.value:.4g}" in markdown
    assert len(page.all("table")) == len(tables.tables)
    assert not page.all("script")


def test_the_best_of_each_column_is_marked(tables: PaperTables) -> None:
    html = render_page(tables)
    measures = sum(len(table.measures) for table in tables.tables)
    assert html.count('<td class="best">') == measures
    assert "| grey world |" in render_markdown(tables).lower()


def test_names_from_outside_are_escaped(tables: PaperTables) -> None:
    odd = Unavailable(name="<b>", missing=("<script>",), command="fetch <i>")
    assert "<script>" not in render_page(tables.model_copy(update={"unavailable": (odd,)}))


def test_cases_are_frozen_and_of_their_task(photos: tuple[Path, Manifest]) -> None:
    record = next(record for record in photos[1] if record.split == "test")
    for task, names in TASKS.items():
        first, again = (list(task_cases(record, photos[0], task, QUICK)) for _ in range(2))
        for one, other in zip(first, again, strict=True):
            assert torch.equal(one.spoilt, other.spoilt) and one.operations == other.operations
            degradations = [step.name for step in one.operations if step.name in DEGRADATIONS]
            assert len(degradations) == bool(names) and set(degradations) <= set(names)
            assert any(step.name in TONE for step in one.operations) == (task in ("enhancement", "multi_edit"))
            assert (ciede2000(one.spoilt, one.intact) > 0) == (task != "intact")


def test_enhancement_is_judged_on_the_gates_held_out_views(photos: tuple[Path, Manifest]) -> None:
    record = next(record for record in photos[1] if record.split == "test")
    settings = PaperSettings(views=2, max_side=64)
    tasks = ("intact", "enhancement", "library_faults")
    ours = [case for task in tasks for case in task_cases(record, photos[0], task, settings)]
    gates = list(held_out_cases(record, photos[0], EvaluationSettings(views=2, library_views=2, max_side=64)))
    assert all(torch.equal(one.spoilt, other.faulty) for one, other in zip(ours, gates, strict=True))


def test_every_measure_has_a_direction_and_a_title() -> None:
    assert {name for names in MEASURES.values() for name in names} <= set(LOWER)
    assert LOWER["fid"] and LOWER["dists"] and not LOWER["musiq"] and not LOWER["clip"]


def test_names_may_not_repeat_and_photos_may_not_lack(
    photos: tuple[Path, Manifest], backbone: Path, tmp_path: Path, no_weights: Path
) -> None:
    with pytest.raises(ValueError, match="same name: grey_world"):
        make_tables({"grey_world": (Keeper, "")}, photos[1], photos[0], backbone.parent, tmp_path, QUICK)
    few = QUICK.model_copy(update={"split": "train"})
    with pytest.raises(ValueError, match="at least 2 photos in the split 'train', found 1"):
        make_tables({"full": (Keeper, "")}, photos[1], photos[0], backbone.parent, tmp_path, few)


def test_the_interval_of_a_set_distance_covers_what_many_photos_give() -> None:
    """Two Gaussians with means 2 apart in one of four dimensions: the Fréchet distance is 4."""
    covered = 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        ours = [rng.normal(loc=(2, 0, 0, 0), size=(2, 4)) for _ in range(60)]
        theirs = [rng.normal(size=(2, 4)) for _ in range(60)]
        interval = set_interval(ours, theirs, BootstrapSettings(resamples=100, seed=seed))
        assert interval.low <= interval.value <= interval.high
        covered += interval.low <= 4 <= interval.high
    assert covered >= 16
