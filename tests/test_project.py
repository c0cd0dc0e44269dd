"""Promises of the project's own files: the layering of the code, the lock, the Makefile, the Dockerfile."""

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("benchmarks", "components", "pipelines", "steps", "tests", "tools")
SOURCES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


@pytest.mark.parametrize(
    ("package", "forbidden"),
    [("components", {"zenml", "mlflow", "steps", "pipelines", "tests"}), ("steps", {"pipelines", "tests"})],
)
def test_the_layers_do_not_look_up(package: str, forbidden: set[str]) -> None:
    found = {
        f"{path.relative_to(ROOT)} imports {name}"
        for path in (ROOT / package).rglob("*.py")
        for name in imports(path)
        if name.split(".")[0] in forbidden
    }
    assert not found


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_file_says_what_it_is_for_and_is_of_readable_length(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    assert ast.get_docstring(ast.parse(source)), "the file has no docstring"
    assert len(source.splitlines()) < 400


def names(text: str) -> set[str]:
    """Normalised names of the packages in a requirements file."""
    lines = [line.split("#")[0].strip() for line in text.splitlines()]
    found = (re.match(r"[A-Za-z0-9._-]+", line) for line in lines if line)
    return {re.sub(r"[-_.]+", "-", match.group()).lower() for match in found if match}


def test_the_lock_pins_everything_that_is_asked_for() -> None:
    lock = (ROOT / "requirements.lock").read_text()
    lines = [line for line in lock.splitlines() if line and not line.startswith("#")]
    loose = [line for line in lines if not re.match(r"[A-Za-z0-9._-]+==[^ ]+( ; .+)?$", line)]
    assert not loose
    assert not names((ROOT / "requirements.in").read_text()) - names(lock)


def test_make_help_lists_every_target_on_one_line() -> None:
    makefile = (ROOT / "Makefile").read_text()
    (phony,) = re.findall(r"^\.PHONY: (.+)$", makefile, re.MULTILINE)
    done = subprocess.run(["make", "help"], cwd=ROOT, check=True, capture_output=True, text=True)
    listed = re.findall(r"^  make (\S+) +\S", done.stdout, re.MULTILINE)
    assert sorted(listed) == sorted(set(phony.split()) - {"force"})
    assert len(done.stdout.splitlines()) == len(listed)


def test_the_image_is_pinned_and_not_run_by_root() -> None:
    instructions = [
        line.split() for line in (ROOT / "Dockerfile").read_text().splitlines() if re.match("[A-Z]+ ", line)
    ]
    bases = [words[1] for words in instructions if words[0] == "FROM"]
    users = [words[1] for words in instructions if words[0] == "USER"]
    assert all(re.fullmatch(r"python:3\.11-\S+", base) for base in bases)
    assert users
    assert users[-1] not in {"root", "0"}
    assert not [words for words in instructions if words[0] == "ADD"]
