"""Isolates ZenML and MLflow for the tests of the steps, and makes registries with packages in them."""

import contextlib
import shutil
import sqlite3
from pathlib import Path

import pytest

from benchmarks.trial_registry import make_registry
from pipelines.environment import State
from tests.isolation import isolate

STATE = isolate()
AT_ONCE = 20
"""Versions in the registry of `packages`."""


@pytest.fixture(scope="session")
def state() -> State:
    """The temporary state folder of the session."""
    return STATE


@pytest.fixture(scope="session")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new SQLite registry with `AT_ONCE` versions, each with a package of its own; for `copy_registry`."""
    folder = tmp_path_factory.mktemp("packages")
    make_registry(f"sqlite:///{folder / 'mlflow.db'}", folder, AT_ONCE, weight_bytes=1000)
    return folder


def copy_registry(packages: Path, folder: Path) -> str:
    """Copy the registry and its packages into ``folder``; the URI of the copy."""
    database = Path(shutil.copy(packages / "mlflow.db", folder / "mlflow.db"))
    shutil.copytree(packages / "artifacts", folder / "artifacts")
    with contextlib.closing(sqlite3.connect(database)) as connection, connection:
        for column in ("source", "storage_location"):
            moved = f"UPDATE model_versions SET {column} = replace({column}, ?, ?)"
            connection.execute(moved, (str(packages), str(folder)))
    return f"sqlite:///{database}"
