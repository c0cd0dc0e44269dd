"""Retraining beside a pipeline that runs, all of it by real processes: what the run reads stays as it was.

The processes work in a clone of a small repository with the project's code, whose training pipeline waits for a file.
"""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines import alerts
from pipelines.environment import ROOT

CODE = ("components", "steps", "pipelines", "configs", "requirements.lock")
GRAPH = '''
"""A training pipeline of three steps, the first of which reads the data, waits for the file `go` and reads it again."""

import time
from pathlib import Path
from typing import Annotated, Any

from zenml import pipeline

from components.registry.decision import Decision
from steps.folders import output_folder
from steps.lineage import data_folder
from steps.stage import stage
from steps.tracking import tracked


@stage
def read(data_revision: str) -> Annotated[Path, "seen"]:
    with tracked({}):
        before = (data_folder(data_revision) / "photos" / "a.txt").read_text()
        Path("reading").touch()
        while not Path("go").exists():
            time.sleep(0.02)
        after = (data_folder(data_revision) / "photos" / "a.txt").read_text()
        out = output_folder()
        (out / "report.html").write_text(f"{before} then {after}")
        return out


@stage
def evaluate(seen: Path) -> Annotated[Path, "evaluation"]:
    with tracked({}):
        out = output_folder()
        (out / "report.html").write_text((seen / "report.html").read_text())
        return out


@stage
def promote(evaluation: Path) -> Annotated[Decision, "decision"]:
    with tracked({}):
        return Decision(promoted=False, reference="nobody", photos=1, comparisons=(), reasons=("a test",))


@pipeline(name="training")
def training(settings: dict[str, Any], data_revision: str, working_copy: str) -> None:
    promote(evaluate(read(data_revision)))
'''


def git(folder: Path, *arguments: str) -> None:
    identity = ["-c", "user.name=Test", "-c", "user.email=test@example.org"]
    subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True)


def environment(folder: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("ZENML", "MLFLOW", "SPC"))}
    return kept | {"DVC_NO_ANALYTICS": "1", "SPC_STATE": str(folder / ".spc"), "PYTHONPATH": str(folder)}


def start(folder: Path, *arguments: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", *arguments],
        cwd=folder,
        env=environment(folder),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def finish(process: "subprocess.Popen[str]") -> tuple[int, str]:
    output, _ = process.communicate(timeout=120)
    return process.returncode, output


def commit_data(folder: Path, text: str) -> None:
    """A new data revision with its pointer under git; the files are in the cache that all clones share."""
    (folder / "data" / "photos" / "a.txt").write_text(text)
    code, output = finish(start(folder, "dvc", "add", "--quiet", "data"))
    assert code == 0, output
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", text)


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A clone with the data revision "old", whose origin has "new" by now."""
    folder = tmp_path_factory.mktemp("upstream")
    origin = folder / "origin"
    origin.mkdir()
    for name in CODE:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, origin / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, origin / name)
    (origin / "pipelines" / "training.py").write_text(GRAPH)
    (origin / ".gitignore").write_text(".spc\n/reading\n/go\n/reports\n")
    for name in ("photos", "base"):
        (origin / "data" / name).mkdir(parents=True)
        (origin / "data" / name / "a.txt").write_text("")
    git(origin, "init", "--quiet", "--initial-branch", "main")
    (origin / ".dvc").mkdir()
    store = (
        f"[core]\nremote = store\n[cache]\ndir = {folder / 'cache'}\n['remote \"store\"']\nurl = {folder / 'store'}\n"
    )
    (origin / ".dvc" / "config").write_text(store)
    (folder / "store").mkdir()
    commit_data(origin, "old")
    git(folder, "clone", "--quiet", str(origin), "clone")
    shutil.copytree(origin / "data", folder / "clone" / "data")
    commit_data(origin, "new")
    yield folder / "clone"


def seen(clone: Path) -> str | None:
    """What the last report says; None in the moment in which a new one takes its place."""
    try:
        return (clone / "reports" / "latest" / "report.html").read_text()
    except FileNotFoundError:
        return None


@pytest.mark.slow
def test_a_pipeline_that_runs_keeps_its_data_and_a_retraining_after_it_takes_the_new(clone: Path) -> None:
    run = start(clone, "pipelines", "run")
    try:
        while not (clone / "reading").exists():
            assert run.poll() is None, run.communicate()[0]
            time.sleep(0.05)
        code, output = finish(start(clone, "pipelines", "retrain"))
        assert (code, output.count("Nothing done: another pipeline is running here")) == (0, 1), output
        assert (clone / "data" / "photos" / "a.txt").read_text() == "old"
        assert not (clone / ".spc" / alerts.FILE).exists()
    finally:
        (clone / "go").touch()
        code, output = finish(run)
    assert code == 0, output
    assert seen(clone) == "old then old"
    (clone / "go").unlink()
    (clone / "reading").unlink()

    deadline = time.monotonic() + 900
    retraining = start(clone, "pipelines", "retrain")
    while not (clone / "reading").exists():
        assert retraining.poll() is None, retraining.communicate()[0]
        time.sleep(0.05)
    retraining.kill()  # the run that it started holds the lock, too
    retraining.wait()
    code, output = finish(start(clone, "pipelines", "fetch", "data"))
    assert (code, output.count("another pipeline is running here")) == (2, 1), output
    assert (clone / "data" / "photos" / "a.txt").read_text() == "new"
    (clone / "go").touch()
    while seen(clone) != "new then new":
        time.sleep(0.05)
        assert time.monotonic() < deadline
