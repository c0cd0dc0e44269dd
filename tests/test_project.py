"""Promises of the project's own files: the layers of the code, the Makefile."""

import ast
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("benchmarks", "components", "pipelines", "steps", "tests", "tools")
SOURCES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


UPWARD = [
    ("components/files.py", "import components.photometry.colour", "The rooms of components.* BROKEN"),
    ("components/models/lora.py", "from components.training import loop", "The rooms of components.* BROKEN"),
    ("components/data/records.py", "from components.chat import server", "The rooms of components.* BROKEN"),
    ("components/registry/card.py", "import mlflow", "knows neither ZenML nor MLflow BROKEN"),
    ("components/strict.py", "from steps import code", "Pipelines call steps.* BROKEN"),
    ("steps/code.py", "from pipelines.environment import ROOT", "Pipelines call steps.* BROKEN"),
    ("steps/code.py", "from tests.tiny_models import write_base", "imports no benchmarks, tests or tools BROKEN"),
    ("components/files.py", "import benchmarks.main", "imports no benchmarks, tests or tools BROKEN"),
    ("components/new_room/__init__.py", "", r"- components\.new_room"),
]


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The code without what it works on, for tests that change it."""
    folder = tmp_path_factory.mktemp("copy")
    shutil.copy(ROOT / "pyproject.toml", folder)
    for package in PACKAGES:
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    """Check the contracts of [tool.importlinter] in a folder with the code."""
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command as c; c()", "--no-cache"]
    return subprocess.run(
        command, cwd=folder, env={"PYTHONPATH": str(folder)}, capture_output=True, text=True, check=False
    )


def test_the_layers_hold(copy: Path) -> None:
    done = lint_imports(copy)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(("name", "line", "said"), UPWARD)
def test_an_import_that_looks_up_is_found(copy: Path, name: str, line: str, said: str) -> None:
    path = copy / name
    before = path.read_text() if path.exists() else None
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"{before or ''}\n{line}\n")
    try:
        done = lint_imports(copy)
    finally:
        path.unlink() if before is None else path.write_text(before)
    assert done.returncode == 1
    assert re.search(said, done.stdout), done.stdout


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_file_says_what_it_is_for_and_is_of_readable_length(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    assert ast.get_docstring(ast.parse(source)), "the file has no docstring"
    assert len(source.splitlines()) < 400


def test_make_help_lists_every_target_on_one_line() -> None:
    makefile = (ROOT / "Makefile").read_text()
    (phony,) = re.findall(r"^\.PHONY: (.+)$", makefile, re.MULTILINE)
    done = subprocess.run(["make", "help"], cwd=ROOT, check=True, capture_output=True, text=True)
    listed = re.findall(r"^  make (\S+) +\S", done.stdout, re.MULTILINE)
    assert sorted(listed) == sorted(set(phony.split()) - {"force"})
    assert len(done.stdout.splitlines()) == len(listed)
