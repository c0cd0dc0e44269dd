"""The ablation: the same cases for every variant, paired differences, and rewards drawn together."""

import json
from pathlib import Path

import pandas as pd
import pytest

from components.data.records import Manifest
from components.evaluation.ablation import FULL, NO_PHOTOMETRIC, NO_RL, make_ablation, without_photometric
from components.evaluation.paper import CASES_FILE, TABLES_FILE, Difference, PaperTables
from components.evaluation.paper_page import MARKDOWN_FILE, PAGE_FILE, render_page
from components.metrics.tables import Interval
from components.reinforcement.coordinated import ReinforceSettings
from tests.evaluation.conftest import without_weights
from tests.evaluation.test_paper import QUICK, Darkener, Keeper
from tests.evaluation.test_report import Page

pytestmark = pytest.mark.slow

CURVES = {
    FULL: {"Artist, r_PA": [(1, 0.25), (2, 0.5)], "Artist, r_photo": [(1, 0.4), (2, 0.6)]},
    NO_PHOTOMETRIC: {"Artist, r_PA": [(1, 0.5), (2, 0.75)], "Artist, r_photo": [(1, 0.4), (2, 0.3)]},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ablation")


@pytest.fixture(scope="module")
def made(photos: tuple[Path, Manifest], backbone: Path, folder: Path) -> tuple[PaperTables, tuple[Difference, ...]]:
    variants = {NO_RL: (Darkener, "stage II"), NO_PHOTOMETRIC: (Darkener, "less"), FULL: (Keeper, "stage III")}
    with without_weights(folder / "caches"):
        return make_ablation(variants, CURVES, photos[1], photos[0], backbone.parent, folder, QUICK)


def test_the_variants_stand_in_the_enhancement_table_alone(made, folder: Path) -> None:
    tables, _ = made
    assert [table.name for table in tables.tables] == ["enhancement", "ablation"]
    assert [row.method for row in tables.tables[1].rows] == [NO_RL, NO_PHOTOMETRIC, FULL]
    assert PaperTables.model_validate(json.loads((folder / TABLES_FILE).read_text())) == tables
    assert "Without RL" in (folder / MARKDOWN_FILE).read_text()


def test_differences_are_paired_by_case(made, folder: Path) -> None:
    _, differences = made
    cases = pd.read_parquet(folder / CASES_FILE).set_index(["photo_id", "view"])
    assert [item.reference for item in differences] == [NO_RL] * 6 + [NO_PHOTOMETRIC] * 6
    for item in differences:
        ours, theirs = (cases[cases["method"] == name][item.measure] for name in (item.method, item.reference))
        by_photo = (ours - theirs).groupby(level="photo_id").mean()
        assert item.change.value == pytest.approx(by_photo.mean())
        assert by_photo.min() - 1e-12 <= item.change.low <= item.change.high <= by_photo.max() + 1e-12


def test_the_page_shows_differences_and_both_trainings_in_one_plot(made, folder: Path) -> None:
    page = Page((folder / PAGE_FILE).read_text())
    assert "Ablation of stage III" in page.text and "Full minus Without RL" in page.text
    assert [line["points"] for line in page.all("polyline")] == [
        "0.0,120.0 300.0,60.0",  # r_PA of both from 0.25 to 0.75
        "0.0,60.0 300.0,0.0",
        "0.0,80.0 300.0,0.0",  # r_photo of both from 0.3 to 0.6
        "0.0,80.0 300.0,120.0",
    ]
    labels = [drawing["aria-label"] for drawing in page.all("svg")]
    assert labels[0] == (
        "Artist, r_PA over iterations 1 to 2: Full from 0.250 to 0.500, RL without r_photo from 0.500 to 0.750, "
        "between 0.250 and 0.750"
    )
    assert not page.all("script")


@pytest.mark.parametrize(
    ("measure", "low", "high", "sure"),
    [
        ("ciede2000", -2.0, -1.0, True),
        ("ciede2000", 1.0, 2.0, False),
        ("musiq", 1.0, 2.0, True),
        ("lpips", -1, 1, False),
    ],
)
def test_a_difference_is_marked_only_where_it_is_surely_better(made, measure, low, high, sure) -> None:
    change = Interval(value=(low + high) / 2, low=low, high=high)
    item = Difference(method=FULL, reference=NO_RL, measure=measure, change=change)
    plain, marked = (render_page(made[0], differences=items).count('<td class="best">') for items in ((), (item,)))
    assert marked - plain == sure


def test_without_r_photo_its_weight_goes_to_r_perc_and_nothing_else_changes() -> None:
    settings = ReinforceSettings(iterations=3).model_dump(mode="json")
    settings["rollouts"]["artist"] |= {"photometric": 0.3, "perceptual": 0.6}
    before = json.loads(json.dumps(settings))
    changed = ReinforceSettings.model_validate(without_photometric(settings))
    assert settings == before
    expected = ReinforceSettings.model_validate(settings)
    assert (changed.rollouts.artist.photometric, changed.rollouts.artist.perceptual) == (0, pytest.approx(0.9))
    rollouts = changed.rollouts.model_copy(update={"artist": expected.rollouts.artist})
    assert changed.model_copy(update={"rollouts": rollouts}) == expected
