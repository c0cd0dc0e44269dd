"""SQLite files of MLflow and ZenML: whether one is whole, copies of it while it is in use, and the way back to one."""

import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

from components import files

FOLDER = "backups"
"""Of the state folder."""
KEPT = 5
"""Copies of each database that are kept."""
_WAIT_SECONDS = 30.0


class DatabaseError(RuntimeError):
    """A database is damaged; the message names the file and the way back."""


def fault_of(path: Path) -> str | None:
    """What is wrong with a database; None where nothing is, or another process holds it for now.

    Its pages and indexes are read through; what it says is another matter.
    """
    try:
        with closing(sqlite3.connect(f"file:{quote(str(path))}?mode=rw", uri=True, timeout=_WAIT_SECONDS)) as database:
            rows = database.execute("PRAGMA quick_check(3)").fetchall()
    except sqlite3.OperationalError as error:
        return None if "locked" in str(error) else str(error)
    except sqlite3.Error as error:
        return str(error)
    found = [str(row[0]) for row in rows]
    return None if found == ["ok"] else "; ".join(found)


def check(path: Path, state: Path) -> None:
    """Nothing, where a database is whole or not there.

    Args:
        state: the state folder, in which its copies are.

    Raises:
        DatabaseError: it is damaged.
    """
    if not path.is_file() or (fault := fault_of(path)) is None:
        return
    if copies := backups(path, state):
        way = (
            f"its last copy is {copies[0]}: stop what uses it, move {path.name} away with {path.name}-wal and -shm if "
            "they are there, and copy that one to its place; what was written since is lost"
        )
    else:
        way = "there is no copy of it yet: move it away to begin anew, or save what `sqlite3 FILE .recover` still reads"
    raise DatabaseError(f"{path} is damaged: {fault}; {way}")


def backups(path: Path, state: Path) -> list[Path]:
    """The copies of a database, the newest first."""
    return sorted((state / FOLDER).glob(f"{path.stem}-*{path.suffix}"), reverse=True)


def back_up(path: Path, state: Path) -> Path:
    """A copy of a database as it is between two transactions, on disk; of the older ones `KEPT` stay.

    Raises:
        DatabaseError: the database is damaged, and its copies stay as they are.
        OSError: the disk is full.
    """
    check(path, state)
    target = state / FOLDER / f"{path.stem}-{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}{path.suffix}"
    with (
        files.replacing(target) as temporary,
        closing(sqlite3.connect(path, timeout=_WAIT_SECONDS)) as database,
        closing(sqlite3.connect(temporary)) as copy,
    ):
        database.backup(copy)
    for old in backups(path, state)[KEPT:]:
        old.unlink(missing_ok=True)
    return target
