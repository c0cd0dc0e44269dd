"""`make check-state`: what is whole is counted, and each kind of damage is found, named and leaves with status 1."""

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
import torch

from components.databases import back_up
from components.training.checkpoints import STATE_FILE, Checkpoint, CheckpointStore
from pipelines.environment import State, databases_of
from pipelines.state_check import examine


@pytest.fixture
def state(tmp_path: Path) -> State:
    made = State(tmp_path)
    made.artifacts.mkdir()
    with closing(sqlite3.connect(made.artifacts / "mlflow.db")) as database:
        database.execute("CREATE TABLE t (value TEXT)")
        database.executemany("INSERT INTO t VALUES (?)", (("x" * 500,) for _ in range(200)))
        database.commit()
    back_up(made.artifacts / "mlflow.db", tmp_path)
    CheckpointStore(tmp_path / "checkpoints" / "train-1").save(Checkpoint(1, {"w": torch.ones(3)}, {}))
    (tmp_path / "answers").mkdir()
    return made


def faults(state: State) -> dict[str, str]:
    return {finding.path.name: finding.fault for finding in examine(state) if finding.fault}


def test_what_is_whole(state: State) -> None:
    assert faults(state) == {}
    assert len(list(examine(state))) == 3
    assert databases_of(state) == [state.artifacts / "mlflow.db"]


def test_each_kind_of_damage(state: State) -> None:
    for path in (state.artifacts / "mlflow.db", *(state.folder / "backups").iterdir()):
        path.write_bytes(path.read_bytes()[:8000] + b"\xff" * 40_000)
    checkpoint = state.folder / "checkpoints" / "train-1" / "step-00000001"
    (checkpoint / STATE_FILE).write_text((checkpoint / STATE_FILE).read_text().replace('"step": 1', '"step": 2'))
    (state.folder / "answers" / "m.jsonl").write_text('{"key": "no"}\n')
    package = state.folder / "champions" / "1-abc" / "package"
    package.mkdir(parents=True)
    (state.folder / "champion").symlink_to(package)
    found = faults(state)
    assert "the way back" not in found["mlflow.db"] and "last copy" in found["mlflow.db"]
    assert any("no way back" in fault for fault in found.values())
    assert STATE_FILE in found["step-00000001"]
    assert "lines 1 are damaged" in found["m.jsonl"]
    assert "make champion" in found["package"]


def test_an_empty_state_folder_is_whole(tmp_path: Path) -> None:
    shutil.rmtree(tmp_path)
    assert list(examine(State(tmp_path))) == []
