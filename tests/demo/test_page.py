"""The demo page in a real browser, on the real server: drop, judge, enhance, compare, download, and what goes wrong."""

import io
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from components.demo.app import create_demo
from components.serving.limits import ServingLimits
from components.serving.service import PhotoService
from tests.browser import DESKTOP, PHONE, check_fits, chromium, open_page
from tests.serving.conftest import running
from tests.serving.stubs import Brightener, level, picture

pytestmark = pytest.mark.browser

_SIZES = pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])


@pytest.fixture(scope="module")
def browser() -> Iterator:
    with chromium() as started:
        yield started


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with running(create_demo(PhotoService(Brightener(), ServingLimits(max_bytes=200_000)))) as served:
        yield served


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "my photo.png"
    path.write_bytes(picture("PNG", 120, 80))
    return path


def pixels(screenshot: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(screenshot)).convert("RGB")).astype(int)


@_SIZES
def test_a_photo_from_choice_to_download(
    browser, address: str, photo: Path, size: dict[str, int], tmp_path: Path
) -> None:
    page, errors = open_page(browser, size)
    page.goto(address)
    assert page.get_by_role("button", name="Enhance").is_disabled()
    page.get_by_label("Choose a photo").set_input_files(photo)
    assert page.get_by_label("Strength").input_value() == "1.25"  # the model's own
    page.get_by_label("Strength").fill("2")
    page.get_by_role("button", name="Enhance").click()
    page.get_by_text("In its own words").wait_for()
    check_fits(page)

    slider = page.get_by_label("How much of the photo is shown before the edit")
    frame = page.locator("#frame")
    frame.scroll_into_view_if_needed()
    shown = pixels(frame.screenshot())
    middle = shown.shape[0] // 2
    assert shown[middle, shown.shape[1] // 4].mean() == pytest.approx(100, abs=3)  # left of the line: before
    assert shown[middle, shown.shape[1] * 3 // 4].mean() == pytest.approx(151, abs=3)  # right of it: after
    slider.focus()
    page.keyboard.press("End")
    assert pixels(frame.screenshot())[middle, shown.shape[1] * 3 // 4].mean() == pytest.approx(100, abs=3)
    page.keyboard.press("Home")
    assert pixels(frame.screenshot())[middle, shown.shape[1] // 4].mean() == pytest.approx(151, abs=3)

    with page.expect_download() as download:
        page.get_by_role("link", name="Download").click()
    assert download.value.suggested_filename == "my photo-enhanced.png"
    download.value.save_as(tmp_path / "saved.png")
    assert level((tmp_path / "saved.png").read_bytes()) == pytest.approx(151, abs=1)
    screenshot = page.screenshot(full_page=True, path=tmp_path / "page.png")
    assert pixels(screenshot).std() > 5
    assert not errors
    page.close()


def test_only_judging_shows_the_score_and_no_slider(browser, address: str, photo: Path) -> None:
    page, errors = open_page(browser, DESKTOP)
    page.goto(address)
    page.get_by_label("Choose a photo").set_input_files(photo)
    page.get_by_role("button", name="Only judge").click()
    page.get_by_text("60 of 100").wait_for()
    assert page.get_by_text("Nothing to change.").is_visible()
    assert not page.get_by_role("link", name="Download").is_visible()
    assert not page.get_by_label("How much of the photo").is_visible()
    assert not errors
    page.close()


def test_a_photo_can_be_dropped(browser, address: str, photo: Path) -> None:
    page, errors = open_page(browser, DESKTOP)
    page.goto(address)
    page.evaluate(
        """(bytes) => {
          const transfer = new DataTransfer();
          transfer.items.add(new File([new Uint8Array(bytes)], "dropped.png", { type: "image/png" }));
          const event = new DragEvent("drop", { dataTransfer: transfer, bubbles: true, cancelable: true });
          document.getElementById("drop").dispatchEvent(event);
        }""",
        list(photo.read_bytes()),
    )
    page.get_by_text("dropped.png").wait_for()
    assert page.get_by_role("button", name="Only judge").is_enabled()
    assert not errors
    page.close()


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"<script>alert(1)</script>", "not a picture"), (b"x" * 200_001, "at most 200000 bytes")],
    ids=["no picture", "too large"],
)
def test_what_goes_wrong_is_said(browser, address: str, tmp_path: Path, content: bytes, reason: str) -> None:
    (tmp_path / "odd.jpg").write_bytes(content)
    page, _ = open_page(browser, PHONE)
    page.goto(address)
    page.get_by_label("Choose a photo").set_input_files(tmp_path / "odd.jpg")
    page.get_by_role("button", name="Enhance").click()
    page.get_by_role("alert").filter(has_text=re.compile(reason)).wait_for()
    check_fits(page)
    assert page.get_by_role("button", name="Enhance").is_enabled()
    page.close()


def test_it_can_be_used_by_keyboard_alone(browser, address: str, photo: Path) -> None:
    page, errors = open_page(browser, DESKTOP)
    page.goto(address)
    page.get_by_label("Choose a photo").set_input_files(photo)
    page.locator("body").press("Tab")
    order = []
    for _ in range(5):
        order.append(page.evaluate("document.activeElement.id"))
        page.keyboard.press("Tab")
    assert order == ["file", "strength", "auto", "enhance", "critique"]
    page.keyboard.press("Shift+Tab")
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.locator("#enhance").press("Enter")
    page.get_by_role("link", name="Download").wait_for()
    assert not errors
    page.close()


def test_the_page_needs_nothing_from_elsewhere(address: str) -> None:
    import httpx

    response = httpx.get(address)
    assert "default-src 'none'" in response.headers["content-security-policy"]
    assert not re.search(r"[\"'(](?:https?:)?//", response.text)
