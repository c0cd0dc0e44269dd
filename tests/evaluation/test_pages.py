"""The report and the tables in a real browser: they fit, the sliders work by keyboard, there are no errors."""

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torch import Tensor

from components.evaluation.paper import Difference, MethodRow, PaperTable, PaperTables
from components.evaluation.paper_page import render_page
from components.evaluation.records import Evaluation, Picture
from components.evaluation.report import render_report
from components.evaluation.tasks import PaperSettings
from components.metrics.learned import Unavailable
from components.metrics.tables import Interval
from tests.browser import DESKTOP, PHONE, check_fits, chromium, open_page
from tests.evaluation.test_report import evaluation, gallery, make_picture  # noqa: F401 (a fixture)

pytestmark = pytest.mark.browser

_SIZES = pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])


@pytest.fixture(scope="module")
def browser() -> Iterator:
    with chromium() as started:
        yield started


@pytest.fixture
def report(evaluation: Evaluation, photo: Tensor, tmp_path: Path) -> Path:  # noqa: F811
    pictures: list[Picture] = [make_picture(photo, f"{name}.jpg", 0, 1.0) for name in "ab"]
    curves = {"Artist, r_PA": [(n, n % 3 / 3) for n in range(12)]}
    path = tmp_path / "report.html"
    path.write_text(render_report(evaluation, gallery(pictures), curves), encoding="utf-8")
    return path


def mean_of(locator, left: float, right: float) -> float:
    """Mean level between two fractions of an element's width, at its middle height."""
    image = np.asarray(Image.open(io.BytesIO(locator.screenshot())).convert("RGB")).astype(float)
    height, width = image.shape[:2]
    return float(image[height // 3 : 2 * height // 3, round(left * width) : round(right * width)].mean())


@_SIZES
def test_the_report_is_used_by_keyboard(browser, report: Path, size: dict[str, int], tmp_path: Path) -> None:
    page, errors = open_page(browser, size)
    page.goto(report.as_uri())
    check_fits(page)
    frame, slider = page.locator(".frame").first, page.locator(".split").first
    frame.scroll_into_view_if_needed()
    before_and_after = mean_of(frame, 0.1, 0.4), mean_of(frame, 0.6, 0.9)
    slider.focus()
    page.keyboard.press("Home")
    assert page.evaluate("document.querySelector('.frame').style.getPropertyValue('--split')") == "0%"
    after = mean_of(frame, 0.1, 0.4)
    page.keyboard.press("End")
    before = mean_of(frame, 0.6, 0.9)
    assert after > before_and_after[0] * 1.1  # left showed the darker, faulty picture
    assert before < before_and_after[1] * 0.95
    page.keyboard.press("ArrowLeft")
    assert slider.input_value() == "99"

    page.get_by_role("radio", name="original").first.focus()
    page.keyboard.press("Space")
    slider.focus()
    page.keyboard.press("Home")
    assert mean_of(frame, 0.1, 0.4) > after  # the original is brighter than the enhanced picture
    summary = page.get_by_text("The Critic's words").first
    summary.focus()
    page.keyboard.press("Enter")
    assert page.locator("details pre").first.is_visible()
    plot = page.get_by_role("img", name="Artist, r_PA over iterations 0 to 11")
    assert plot.bounding_box()["width"] > 100
    page.screenshot(full_page=True, path=tmp_path / "report.png")
    assert not errors
    page.close()


@_SIZES
def test_the_tables_fit_and_scroll_by_keyboard(browser, size: dict[str, int], tmp_path: Path) -> None:
    cell = Interval(value=12.3456, low=11.1111, high=13.3333)
    names = ("ciede2000", "lpips", "exposure_error", "contrast_error", "saturation_error", "temperature_error")
    rows = tuple(MethodRow(method=name, measures=dict.fromkeys(names, cell)) for name in ("input", "enhance", "clahe"))
    table = PaperTable(name="enhancement", title="Automatic enhancement", measures=names, rows=rows)
    tables = PaperTables(
        photos=10,
        cases=30,
        settings=PaperSettings(),
        variants={"enhance": "version 3"},
        tables=(table,),
        unavailable=(
            Unavailable(
                name="nima", missing=("timm/some_long_name_of_a_model.in1k/model.safetensors",), command="fetch"
            ),
        ),
    )
    path = tmp_path / "tables.html"
    change = Difference(method="full", reference="no_r_photo", measure="temperature_error", change=cell)
    curves = {name: {"Artist, r_PA": [(n, n % 3 / 3) for n in range(12)]} for name in ("full", "no_r_photo")}
    path.write_text(render_page(tables, differences=[change], curves=curves), encoding="utf-8")
    page, errors = open_page(browser, size)
    page.goto(path.as_uri())
    check_fits(page)
    region = page.get_by_role("region", name="Automatic enhancement")
    region.focus()
    page.keyboard.press("ArrowRight")
    assert page.get_by_role("rowheader", name="SmartPhotoCrafter").is_visible()
    page.screenshot(full_page=True, path=tmp_path / "tables.png")
    assert not errors
    page.close()
