"""The report: self-contained, complete, escaped, and with the pictures and numbers it was given."""

import base64
import io
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image
from torch import Tensor

from components.evaluation.records import Evaluation, Picture, ReportSettings
from components.evaluation.report import Gallery, render_report
from components.metrics.full_reference import LOWER_IS_BETTER
from components.verdict.grammar import Verdict, render, suggest
from tests.evaluation.builders import make_evaluation

SETTINGS = ReportSettings(picture_side=48, worst_cases=2)


class Page(HTMLParser):
    """Elements with their attributes, the text, and whether every element was closed in order."""

    VOID = frozenset({"meta", "input", "img", "br", "link"})

    def __init__(self, html: str):
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(html)
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def evaluation() -> Evaluation:
    return make_evaluation()


def make_picture(photo: Tensor, name: str, view: int, error: float, text: str | None = None) -> Picture:
    verdict = Verdict(reasoning=("a", "b", "c", "d", "e"), suggestions=(suggest("exposure", 0.5),), score=61.0)
    return Picture(
        photo_id=f"sample/{name}",
        view=view,
        faults=("underexposed by 0.5 EV",),
        original=photo,
        faulty=photo * 0.7,
        enhanced=photo * 0.95,
        text=text or render(verdict),
        verdict=None if text else verdict,
        input_error=9.0,
        error=error,
        credit="J. Doe, CC BY 4.0",
    )


def gallery(pictures: list[Picture], settings: ReportSettings = SETTINGS) -> Gallery:
    """What a report shows of some pictures."""
    made = Gallery(settings)
    for picture in pictures:
        made.add(picture)
    return made


@pytest.fixture
def pictures(photo: Tensor) -> list[Picture]:
    return [
        make_picture(photo, "a.jpg", 0, 1.0),
        make_picture(photo, "a.jpg", 1, 7.5),
        make_picture(photo, "<b>.jpg", 0, 2.0, text="<script>alert(1)</script>"),
    ]


def test_it_needs_nothing_beside_it(evaluation: Evaluation, pictures: list[Picture]) -> None:
    html = render_report(evaluation, gallery(pictures), {})
    page = Page(html)
    assert all(image["src"].startswith("data:image/jpeg;base64,") for image in page.all("img"))
    assert not page.all("link") and all("src" not in script for script in page.all("script"))
    assert not re.search(r"[\"'(=](?:https?:)?//", html)  # base64 may hold //


def test_every_photo_and_the_worst_cases_are_shown(evaluation: Evaluation, pictures: list[Picture]) -> None:
    page = Page(render_report(evaluation, gallery(pictures), {}))
    assert len(page.all("article")) == 2 + 2  # the first view of each photo, two worst
    assert len(page.all("img")) == 3 * 4
    assert page.text.index("7.50") < page.text.rindex("2.00")  # worst first
    for words in ("underexposed by 0.5 EV", "Increase exposure by 0.5 EV.", "score 61", "J. Doe, CC BY 4.0"):
        assert words in page.text


def test_no_more_pictures_are_kept_than_are_shown(photo: Tensor) -> None:
    """As many cases as you like, in any order: the report is that of all of them."""
    errors = [(number * 7919) % 101 / 5 for number in range(60)]
    cases = [make_picture(photo[..., :8, :8], f"{number // 3}.jpg", number % 3, e) for number, e in enumerate(errors)]
    made = Gallery(ReportSettings(picture_side=32, worst_cases=4, photos=5))
    stand = [case for case in cases if made.add(case)]
    assert [case.photo_id for case in stand] == list(made.first) == [f"sample/{number}.jpg" for number in range(5)]
    assert [case.view for case in stand] == [0] * 5
    assert [shown["error"] for shown in made.worst] == sorted(errors, reverse=True)[:4]
    assert [shown["error"] for shown in made.harmed] == [
        error for error in sorted(errors, reverse=True)[:4] if error > 9
    ]
    assert len(made._worst) == len(made._harmed) == 4


def test_pictures_are_the_ones_given(evaluation: Evaluation, pictures: list[Picture], photo: Tensor) -> None:
    page = Page(
        render_report(
            evaluation, gallery(pictures[:1], ReportSettings(picture_side=96, worst_cases=0, jpeg_quality=95)), {}
        )
    )
    shown = {
        image["class"].split()[-1]: np.asarray(Image.open(io.BytesIO(base64.b64decode(image["src"].split(",")[1]))))
        for image in page.all("img")
    }
    for name, picture in (("original", photo), ("over", photo * 0.7), ("enhanced", photo * 0.95)):
        difference = shown[name] / 255 - picture.permute(1, 2, 0).numpy()
        assert np.abs(difference).mean() < 0.02


def test_words_from_outside_are_escaped(evaluation: Evaluation, pictures: list[Picture]) -> None:
    html = render_report(evaluation, gallery(pictures), {})
    assert "<script>alert" not in html and "<b>.jpg" not in html
    assert "<script>alert(1)</script>" in Page(html).text
    assert "did not parse" in html


def test_numbers_are_those_of_the_evaluation(evaluation: Evaluation, pictures: list[Picture]) -> None:
    page = Page(render_report(evaluation, gallery(pictures), {}))
    assert "0.612 [0.571, 0.655]" in page.text
    assert "-39%" in page.text
    for row in evaluation.rows:
        for name in LOWER_IS_BETTER:
            assert f"{row.measures[name].value:.3g}" in page.text


def test_controls_have_names_and_work_by_keyboard(evaluation: Evaluation, pictures: list[Picture]) -> None:
    page = Page(render_report(evaluation, gallery(pictures), {}))
    sliders = [control for control in page.all("input") if control["type"] == "range"]
    assert len(sliders) == 4 and all(slider["aria-label"] for slider in sliders)
    assert all(image["alt"] for image in page.all("img"))
    groups = {control["name"] for control in page.all("input") if control["type"] == "radio"}
    assert len(groups) == 4  # choosing in one card leaves the others alone
    identifiers = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(identifiers) == len(set(identifiers))
    assert any(meta.get("name") == "viewport" for meta in page.all("meta"))


def test_no_pictures_is_a_report_too(evaluation: Evaluation) -> None:
    assert not Page(render_report(evaluation, gallery([]), {})).all("article")


def test_curves_are_drawn_to_scale(evaluation: Evaluation, pictures: list[Picture]) -> None:
    curves = {"Artist, r_PA": [(1, 0.25), (3, 0.75), (2, 0.25)], "single": [(1, 1.0)], "flat": [(1, 2.0), (5, 2.0)]}
    page = Page(render_report(evaluation, gallery(pictures), curves))
    (first, flat) = page.all("polyline")
    assert first["points"] == "0.0,120.0 150.0,120.0 300.0,0.0"
    assert flat["points"] == "0.0,120.0 300.0,120.0"
    labels = [drawing["aria-label"] for drawing in page.all("svg")]
    assert labels[0] == "Artist, r_PA over iterations 1 to 3: from 0.250 to 0.750, between 0.250 and 0.750"
    assert "single" not in page.text
    assert not Page(render_report(evaluation, gallery(pictures), {})).all("svg")
