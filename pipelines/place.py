"""Where the state folder lies: its stores hold whole paths, which are brought along when the folder was moved.

ZenML's store names the place of every artifact, MLflow's that of every run's files, and ZenML's configuration that of
its store. In a clone that was moved or copied all of them would lead to the old place, where the next run would make
the folders anew and find nothing.
"""

import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import yaml

from components import files
from components.champion.address import SQLITE
from pipelines.environment import State, databases_of

_ADDRESSES = (("artifact_version", "uri"), ("runs", "artifact_uri"))
"""Tables and columns that say where results lie, of ZenML and of MLflow."""


def moved_from(state: State) -> Path | None:
    """The state folder as ZenML's configuration names it, where it is another one than ``state``."""
    url = str((_configuration(state).get("store") or {}).get("url", ""))
    if not url.startswith(SQLITE):
        return None
    named = Path(url.removeprefix(SQLITE))
    inner = state.store.relative_to(state.folder).parts
    if named.parts[-len(inner) :] != inner:
        return None
    old = named.parents[len(inner) - 1]
    return None if old == state.folder else old


def bring_along(state: State) -> Path | None:
    """Let the stores of a state folder that was moved name its new place; where it was, or None where it was not moved.

    What is killed in between is done again, since ZenML's configuration comes last.
    """
    old = moved_from(state)
    if old is None:
        return None
    for database in databases_of(state):
        _replace(database, f"{old}{os.sep}", f"{state.folder}{os.sep}")
    configuration = state.zenml / "config.yaml"
    for text in (*state.folder.glob("champions/*/copy.json"), configuration):
        files.write_text(text, text.read_text(encoding="utf-8").replace(f"{old}{os.sep}", f"{state.folder}{os.sep}"))
    return old


def elsewhere(state: State) -> list[str]:
    """The addresses of stored results that do not lie in the state folder."""
    found: list[str] = []
    for database in databases_of(state):
        with closing(sqlite3.connect(database, timeout=10)) as opened:
            for table, column in _ADDRESSES:
                if opened.execute("SELECT 1 FROM sqlite_master WHERE name = ?", (table,)).fetchone():
                    found += [row[0] for row in opened.execute(f"SELECT DISTINCT {column} FROM {table}") if row[0]]
    places = [uri.removeprefix("file://") for uri in found]
    return [place for place in places if place.startswith("/") and not Path(place).is_relative_to(state.folder)]


def _configuration(state: State) -> dict[str, Any]:
    try:
        read = yaml.safe_load((state.zenml / "config.yaml").read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    return read if isinstance(read, dict) else {}


def _replace(database: Path, old: str, new: str) -> None:
    """Put a path in the place of another one wherever a database holds it in a text; all of it or nothing."""
    with closing(sqlite3.connect(database, timeout=60)) as opened, opened:
        tables = [row[0] for row in opened.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        for table in tables:
            for column in [row[1] for row in opened.execute(f'PRAGMA table_info("{table}")')]:
                opened.execute(
                    f'UPDATE "{table}" SET "{column}" = replace("{column}", :old, :new) '
                    f'WHERE typeof("{column}") = \'text\' AND instr("{column}", :old)',
                    {"old": old, "new": new},
                )
