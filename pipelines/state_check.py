"""`make check-state`: is all that lies in the state folder whole? Every file is read, and nothing is changed."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from components import databases
from components.annotation.journal import JournalEntry
from components.champion.copies import ChampionCopies
from components.models.package import PackageError, read_package
from components.training.checkpoints import CheckpointError, read_checkpoint
from pipelines.environment import State, databases_of


class Finding(NamedTuple):
    """What was found of one thing in the state folder."""

    path: Path
    fault: str | None
    """What is wrong with it and what to do; None where nothing is."""
    note: str = ""


def examine(state: State) -> Iterator[Finding]:
    """One finding after the other: databases and their copies, the champion, checkpoints, journals."""
    for path in databases_of(state):
        yield _database(path, state.folder)
    for path in sorted((state.folder / databases.FOLDER).glob("*.db")):
        fault = databases.fault_of(path)
        yield Finding(path, fault and f"{fault}; remove it, it is no way back")
    yield from _champion(state.folder)
    for path in sorted((state.folder / "checkpoints").glob("*/**/step-*")):
        try:
            yield Finding(path, None, f"step {read_checkpoint(path).step}")
        except CheckpointError as error:
            yield Finding(path, f"{error}; remove it: the stage goes on from the one before, or begins anew")
    for path in sorted((state.folder / "answers").glob("*.jsonl")):
        yield _journal(path)


def _database(path: Path, state: Path) -> Finding:
    try:
        databases.check(path, state)
    except databases.DatabaseError as error:
        return Finding(path, str(error).removeprefix(f"{path} "))
    copies = len(databases.backups(path, state))
    return Finding(path, None, f"{copies} copies")


def _champion(state: Path) -> Iterator[Finding]:
    copies = ChampionCopies(state)
    if not copies.link.exists():
        return
    with copies.reading():
        for package in sorted({copies.link.resolve(), *copies.folder.glob("[!.]*/package")}):
            try:
                read_package(package)
                yield Finding(package, None, "champion" if package == copies.link.resolve() else "")
            except PackageError as error:
                yield Finding(package, f"{error}; `make champion` copies it from the registry again")


def _journal(path: Path) -> Finding:
    good, bad = 0, []
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                JournalEntry.model_validate_json(line)
                good += 1
            except ValueError:
                bad.append(str(number))
    if bad:
        return Finding(path, f"lines {', '.join(bad[:10])} are damaged; their photos are asked about again")
    return Finding(path, None, f"{good} answers")
