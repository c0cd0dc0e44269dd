"""A state folder that was moved: what it stores is found, and nothing is made where it was."""

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from pipelines.doctor import examine
from pipelines.environment import ROOT, State
from pipelines.place import bring_along, elsewhere, moved_from
from pipelines.stack_file import read_stack_file

pytestmark = pytest.mark.slow


def run_small(state: State) -> dict:
    environment = os.environ | {"SPC_STATE": str(state.folder)}
    command = [sys.executable, "-m", "tests.pipelines.drive", "{}"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def place(state: State):
    return next(one for one in examine(read_stack_file("local", state), state, {}) if one.check == "place")


def uris(database: Path, query: str) -> list[str]:
    with closing(sqlite3.connect(database)) as opened:
        return [row[0] for row in opened.execute(query)]


def test_a_folder_that_was_moved_is_told_mended_and_used(tmp_path: Path) -> None:
    before, after = State(tmp_path / "before"), State(tmp_path / "after it")
    first = run_small(before)
    assert place(before).ok and moved_from(before) is None and bring_along(before) is None
    shutil.copytree(before.folder, tmp_path / "copy")
    before.folder.rename(after.folder)
    assert moved_from(after) == before.folder
    assert not place(after).ok and str(before.folder) in place(after).detail
    assert elsewhere(after)

    assert bring_along(after) == before.folder
    assert place(after).ok and not elsewhere(after)
    again = run_small(after)
    assert set(again["outputs"]) == set(first["outputs"])
    assert all(Path(path).exists() for path in again["outputs"].values())
    assert not before.folder.exists(), "nothing is made at the old place"
    for uri in (
        *uris(after.store, "SELECT uri FROM artifact_version"),
        *uris(after.artifacts / "mlflow.db", "SELECT artifact_uri FROM runs"),
    ):
        assert uri.removeprefix("file://").startswith(str(after.folder)), uri
    assert place(after).ok

    copied = State(tmp_path / "copy")
    assert bring_along(copied) == before.folder and place(copied).ok


def test_results_that_lie_elsewhere_are_told(tmp_path: Path) -> None:
    state = State(tmp_path)
    state.artifacts.mkdir()
    with closing(sqlite3.connect(state.artifacts / "mlflow.db")) as database, database:
        database.execute("CREATE TABLE runs (artifact_uri TEXT)")
        places = [(f"file://{state.artifacts}/1",), ("file:///mnt/old/.spc/artifacts/2",), ("s3://bucket/3",), (None,)]
        database.executemany("INSERT INTO runs VALUES (?)", places)
    assert elsewhere(state) == ["/mnt/old/.spc/artifacts/2"]
    found = place(state)
    assert not found.ok and "/mnt/old/.spc/artifacts/2" in found.detail and "mv " in found.remedy
