"""The pages that people read: every link and every named page leads somewhere, and every page is in the navigation."""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md"), *(ROOT / "components").rglob("*.md")])
FENCE = re.compile(r"^```.*?^```|^(?: {4}|\t).*?$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)|<img[^>]+src=\"([^\"]+)\"")
HEADING = re.compile(r"^#+ (.+?)$", re.MULTILINE)
GENERATED = ("reference/settings.md", "reference/cli.md", "reference/api/")
"""Pages that docs/site/reference.py writes when the site is built; their links are checked by `mkdocs --strict`."""


def slug(heading: str) -> str:
    """The anchor of a heading, as MkDocs and GitHub make it."""
    return re.sub(r"[\s-]+", "-", re.sub(r"[^\w\s-]", "", heading).strip().lower())


def anchors(page: Path) -> set[str]:
    return set(map(slug, HEADING.findall(page.read_text(encoding="utf-8"))))


def links(page: Path) -> Iterator[str]:
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    for match in LINK.finditer(text):
        link = match.group(1) or match.group(2)
        if not re.match(r"[a-z]+:", link):
            yield link


def is_generated(target: Path) -> bool:
    return target.is_relative_to(DOCS) and target.relative_to(DOCS).as_posix().startswith(GENERATED)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_relative_link_leads_to_a_file_and_a_heading(page: Path) -> None:
    broken = []
    for link in links(page):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if is_generated(target):
            continue
        if not target.exists() or (anchor and slug(anchor) not in anchors(target)):
            broken.append(link)
    assert not broken


def test_every_page_that_code_configs_and_pages_name_exists() -> None:
    named = subprocess.run(
        ["git", "grep", "-InoE", r"\bdocs/[A-Za-z0-9_/-]+\.(md|svg|jpg|py|yml)", "--", ":!CHANGELOG.md"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.splitlines()
    places = [(line.rpartition(":")[0], line.rpartition(":")[2]) for line in named]
    assert len(places) > 10
    assert not [place for place in places if not (ROOT / place[1]).exists() and not is_generated(ROOT / place[1])]


def navigation(entries: list[object]) -> Iterator[str]:
    for entry in entries:
        (value,) = entry.values() if isinstance(entry, dict) else (entry,)
        yield from navigation(value) if isinstance(value, list) else [str(value)]


def test_the_navigation_names_every_page_once() -> None:
    site = yaml.safe_load((DOCS / "site" / "mkdocs.yml").read_text(encoding="utf-8"))
    named = [page for page in navigation(site["nav"]) if not page.startswith(GENERATED)]
    assert sorted(named) == sorted(
        str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md") if page.name != "CREDITS.md"
    )
