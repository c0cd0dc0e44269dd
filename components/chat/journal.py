"""Answers on disk before anybody relies on them, found again by the question's key, so a killed run loses none.

JSON Lines, append only. A line is written by one `write` and forced to the disk by `fsync`; a kill or a power failure
can therefore only cut the last line short, and that is repaired when the journal is opened again. A lock keeps a second
process out, and the operating system lifts it when its holder dies, however it dies.
"""

import fcntl
import logging
import os
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Generic, Self, TypeVar

from pydantic import Field, ValidationError

from components import files
from components.strict import Strict

log = logging.getLogger(__name__)


class KeyedEntry(Strict):
    """A line of a journal."""

    key: str = Field(pattern="^[0-9a-f]{64}$", description="SHA-256 of the whole question.")


Entry = TypeVar("Entry", bound=KeyedEntry)


class JournalError(ValueError):
    """The file is no journal, is in use by another process, or holds what this version cannot read."""


class Journal(Generic[Entry]):
    """Answers by question, on disk; use as a context manager.

    Only the place of each entry is held in memory, about 200 bytes an answer.

    Args:
        path: created when missing, with its folder.
        entry: what a line is.
        others: further journals whose answers count as known. They are only read, as they are on entering, and may be
            written by other processes at the same time; ``path`` may be among them.

    Raises:
        JournalError: on entering, when another process holds the journal, or it has lines and none of them is an entry.
    """

    damaged: int
    """Lines that are no entries, of all the files, as they were on entering; their questions count as not answered.
    """

    def __init__(self, path: Path, entry: type[Entry], others: Iterable[Path] = ()) -> None:
        self.path = Path(path)
        self._others = [other for other in map(Path, others) if other != self.path]
        self._entry = entry
        self._file = -1
        self._open: list[int] = []
        self._size = self.damaged = 0
        self._places: dict[str, tuple[int, int, int]] = {}
        """File, first byte and length of each entry."""

    def __enter__(self) -> Self:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self._opened(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND)
        try:
            self._lock()
            self._size = self._read(self.path, self._file)
            os.ftruncate(self._file, self._size)  # a last line that was not written completely
            files.sync(self.path.parent)
            for other in self._others:
                self._read(other, self._opened(other, os.O_RDONLY))
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def __len__(self) -> int:
        return len(self._places)

    def known(self, key: str) -> Entry:
        """The entry for a question that has been answered.

        Raises:
            JournalError: it has not.
        """
        if (entry := self.get(key)) is None:
            raise JournalError(f"{self.path}: expected an answer to the question {key}, found none")
        return entry

    def get(self, key: str) -> Entry | None:
        """The entry for a question, or None when it has no final answer yet."""
        if key not in self._places:
            return None
        file, start, length = self._places[key]
        return self._entry.model_validate_json(os.pread(file, length, start))

    def append(self, entry: Entry) -> None:
        """Record a final answer; it is on the disk when this returns.

        Raises:
            ValueError: the question has an answer already.
            OSError: the disk is full or failing; the journal is left as it was.
        """
        if entry.key in self._places:
            raise ValueError(f"{self.path}: {entry.key} has an answer already")
        line = entry.model_dump_json().encode() + b"\n"
        try:
            written = os.write(self._file, line)
            if written < len(line):
                raise OSError(f"{self.path}: only {written} of {len(line)} bytes could be written: is the disk full?")
            os.fsync(self._file)
        except OSError:
            os.ftruncate(self._file, self._size)
            raise
        self._places[entry.key] = (self._file, self._size, len(line))
        self._size += len(line)

    def _opened(self, path: Path, flags: int) -> int:
        self._open.append(os.open(path, flags, 0o644))
        return self._open[-1]

    def _close(self) -> None:
        while self._open:
            os.close(self._open.pop())

    def _lock(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise JournalError(
                f"{self.path}: another process is writing into this journal; wait for it, or stop it first"
            ) from error

    def _read(self, path: Path, file: int) -> int:
        """Find the entries of one file; the number of bytes they take, without a last line that is not complete."""
        size = good = bad = 0
        first = ""
        with path.open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                if not line.endswith(b"\n"):
                    break
                try:
                    entry = self._entry.model_validate_json(line)
                except ValidationError:
                    bad += 1
                    first = (
                        first or f"{path}:{number}: expected one answer per line as a JSON object, found {line[:60]!r}"
                    )
                else:
                    good += 1
                    self._places.setdefault(entry.key, (file, size, len(line)))
                size += len(line)
        if bad and not good:
            raise JournalError(f"{first}; name another file, or remove this one if its answers are not needed")
        if bad:
            log.warning("%s; %d of %d lines are damaged, and their questions are asked again", first, bad, bad + good)
        self.damaged += bad
        return size
