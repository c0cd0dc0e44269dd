"""Databases of the state folder: damage is found and named with the way back, and copies are whole."""

import sqlite3
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest

from components import databases
from components.champion.address import RegistrySilent, ask
from components.databases import DatabaseError, back_up, backups, check, fault_of


def made(path: Path, rows: int = 3000) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE t (name TEXT PRIMARY KEY, value TEXT)")
        database.executemany("INSERT INTO t VALUES (?, ?)", ((str(row), "x" * 100) for row in range(rows)))
        database.commit()
    return path


def damage(path: Path, start: int = 5000, length: int = 40_000) -> None:
    content = bytearray(path.read_bytes())
    content[start : start + length] = b"\xff" * length
    path.write_bytes(content)


def test_a_whole_database_has_no_fault(tmp_path: Path) -> None:
    path = made(tmp_path / "mlflow.db")
    assert fault_of(path) is None
    check(path, tmp_path)
    check(tmp_path / "absent.db", tmp_path)


@pytest.mark.parametrize("start", [0, 30, 5000, 100_000])
def test_damage_is_named_with_the_way_back(tmp_path: Path, start: int) -> None:
    path = made(tmp_path / "mlflow.db")
    copy = back_up(path, tmp_path)
    damage(path, start)
    with pytest.raises(DatabaseError) as caught:
        check(path, tmp_path)
    assert str(path) in str(caught.value) and str(copy) in str(caught.value)
    with pytest.raises(DatabaseError):
        back_up(path, tmp_path)
    assert backups(path, tmp_path) == [copy] and fault_of(copy) is None
    path.write_bytes(copy.read_bytes())
    check(path, tmp_path)


def test_without_a_copy_that_is_said(tmp_path: Path) -> None:
    path = made(tmp_path / "mlflow.db")
    damage(path)
    with pytest.raises(DatabaseError, match="there is no copy of it yet"):
        check(path, tmp_path)


def test_copies_made_while_others_write_are_whole(tmp_path: Path) -> None:
    path = made(tmp_path / "mlflow.db", rows=100)
    ended = threading.Event()

    def write() -> None:
        with closing(sqlite3.connect(path, timeout=30)) as database:
            number = 0
            while not ended.is_set():
                number += 1
                time.sleep(0.01)
                with database:
                    database.execute("INSERT INTO t VALUES (?, ?)", (f"new {number}", "y"))
                    database.execute("INSERT INTO t VALUES (?, ?)", (f"newer {number}", "y"))

    writer = threading.Thread(target=write)
    writer.start()
    try:
        copies = [back_up(path, tmp_path) for _ in range(databases.KEPT + 2)]
    finally:
        ended.set()
        writer.join()
    assert backups(path, tmp_path) == sorted(copies, reverse=True)[: databases.KEPT]
    for copy in backups(path, tmp_path):
        with closing(sqlite3.connect(copy)) as database:
            assert database.execute("SELECT count(*) FROM t").fetchone()[0] % 2 == 0, "no half of a transaction"


def test_a_registry_that_is_held_is_waited_for_with_a_message(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("components.champion.address._PATIENCE_SECONDS", 0.05)
    path = made(tmp_path / "mlflow.db", rows=1)
    holder = sqlite3.connect(path, check_same_thread=False)
    holder.execute("BEGIN EXCLUSIVE")
    threading.Timer(0.5, lambda: (holder.rollback(), holder.close())).start()
    assert ask(f"sqlite:///{path}").version is None
    assert f"{path} is held by another process" in caplog.text


def test_a_damaged_registry_is_named(tmp_path: Path) -> None:
    path = made(tmp_path / "mlflow.db")
    damage(path, 0)
    with pytest.raises(RegistrySilent, match=r"mlflow\.db cannot be read: .*make check-state"):
        ask(f"sqlite:///{path}")
