"""A real headless Chromium for the tests of the pages, or a reason to skip them."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

DESKTOP, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
_NAMES = ("chromium", "chromium-browser", "google-chrome")


@contextmanager
def chromium() -> Iterator:
    """Playwright's browser: the system's Chromium, or the one that `make browser` installs."""
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="playwright is not installed: it is in requirements-dev.lock"
    )
    installed = next((path for name in _NAMES if (path := shutil.which(name))), None)
    with playwright.sync_playwright() as started:
        try:
            browser = started.chromium.launch(executable_path=installed, args=["--no-sandbox", "--disable-gpu"])
        except playwright.Error as error:
            if installed is None and "Executable doesn't exist" in str(error):
                pytest.skip("there is no Chromium on this machine: `make browser` installs one")
            raise
        try:
            yield browser
        finally:
            browser.close()


def open_page(browser, size: dict[str, int]):
    """A new page of that size, and the list of errors that it reports from now on."""
    page = browser.new_page(viewport=size, device_scale_factor=1)
    page.set_default_timeout(60_000)
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    return page, errors


def check_fits(page) -> None:
    """Nothing is wider than the window, so that nobody has to scroll sideways."""
    assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
