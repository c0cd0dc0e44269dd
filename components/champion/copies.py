"""Copies of champions in the state folder: each whole from the moment it is there, and kept while anybody reads it.

    champion                    link to the package of the one in service
    champions/<name>/package    its package, a copy of the registry's
    champions/<name>/copy.json  which version of which registry it is
    champions/.readers.lock     held shared by whoever reads or makes a copy, alone by whoever removes one

What begins with a dot in champions/ and is no lock is half made, or on its way out.
"""

import fcntl
import hashlib
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import Field, ValidationError

from components import files
from components.champion.address import CHAMPION
from components.models.package import PackageError, read_package
from components.strict import Strict

PACKAGE = "package"
_LOCK, _RECORD = ".readers.lock", "copy.json"


class Copy(Strict):
    """Of what a copy is one."""

    registry: str = Field(description="MLflow's URI of the registry.")
    stack: str = Field(description="Name of the stack whose registry it is.")
    version: str
    identity: str = Field(description="Of models and settings, as the registry has it; empty where it has none.")

    @property
    def name(self) -> str:
        """Of the copy's folder: no two versions share one, of whatever registry."""
        digest = hashlib.sha256(f"{self.registry}\0{self.identity}".encode()).hexdigest()
        return f"{self.version}-{digest[:12]}"


class ChampionCopies:
    """The copies in one state folder."""

    def __init__(self, state: Path):
        self.state = Path(state)
        self.link, self.folder = self.state / CHAMPION, self.state / "champions"

    def present(self) -> tuple[Copy, Path] | None:
        """What `champion` points to and the folder of its package; None where it points to no copy of ours."""
        package = Path(os.path.realpath(self.link))
        try:
            return Copy.model_validate_json((package.parent / _RECORD).read_text(encoding="utf-8")), package
        except (OSError, ValidationError):
            return None

    def add(self, copy: Copy, fetch: Callable[[Path], Path]) -> Path:
        """The package of ``copy``, fetched where it is not here whole.

        Call it, and go on to `point`, while holding `reading`.

        Args:
            fetch: brings the package somewhere below the empty folder that it is given; returns where.

        Raises:
            components.models.package.PackageError: what was fetched is not a whole, unaltered package.
        """
        target = self.folder / copy.name
        try:
            return read_package(target / PACKAGE).folder
        except PackageError:
            pass
        new = self.folder / f".{copy.name}-{uuid.uuid4().hex}"
        fetched = new / "fetched"
        fetched.mkdir(parents=True)
        try:
            fetch(fetched).rename(new / PACKAGE)
            shutil.rmtree(fetched)
            read_package(new / PACKAGE)
            files.write_text(new / _RECORD, copy.model_dump_json(indent=2) + "\n")
            _to_disk(new)
            self._put(new, target)
        finally:
            shutil.rmtree(new, ignore_errors=True)
        return target / PACKAGE

    def _put(self, new: Path, target: Path) -> None:
        """Give ``new`` its name. What had it is damaged, or was made just now by another process: as good as ours."""
        for _ in range(3):
            try:
                new.rename(target)
            except OSError:  # not empty
                try:
                    read_package(target / PACKAGE)
                    return
                except PackageError:
                    target.rename(self.folder / f".{target.name}-damaged-{uuid.uuid4().hex}")
            else:
                _to_disk(self.folder, deep=False)
                return
        raise PackageError(f"{target}: is damaged whenever it is made anew; is the disk whole?")

    def point(self, package: Path) -> None:
        """Let `champion` be that copy: one step, before which it is the old one and after which the new one."""
        new = self.state / f".{CHAMPION}-{uuid.uuid4().hex}"
        new.symlink_to(package.relative_to(self.state))
        try:
            if self.link.is_dir() and not self.link.is_symlink():  # a package that somebody put there
                self.link.rename(self.state / f"{CHAMPION}-before-{uuid.uuid4().hex}")
            new.replace(self.link)
        finally:
            new.unlink(missing_ok=True)
        _to_disk(self.state, deep=False)

    def sweep(self) -> None:
        """Remove all copies but the one in service, and what killed processes left; later, if any is being read."""
        with self._locked(fcntl.LOCK_EX | fcntl.LOCK_NB) as alone:
            if not alone:
                return
            kept = Path(os.path.realpath(self.link)).parent.name
            for path in self.folder.iterdir():
                if path.name not in (kept, _LOCK):
                    shutil.rmtree(path, ignore_errors=True)
            for left in self.state.glob(f".{CHAMPION}-*"):
                if left.is_symlink():
                    left.unlink(missing_ok=True)

    @contextmanager
    def reading(self) -> Iterator[None]:
        """While this is held, by however many, no copy is removed."""
        with self._locked(fcntl.LOCK_SH):
            yield

    @contextmanager
    def _locked(self, how: int) -> Iterator[bool]:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = os.open(self.folder / _LOCK, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError:  # of a state folder that may only be read nobody removes anything either
            yield not how & fcntl.LOCK_EX
            return
        try:
            try:
                fcntl.flock(lock, how)
            except BlockingIOError:
                yield False
            else:
                yield True
        finally:
            os.close(lock)


@contextmanager
def held(package: Path) -> Iterator[Path]:
    """The folder of a package, links resolved, so that all of it is of one version; not removed while this is held.

    A folder that is no copy of a champion is handed out as it is.
    """
    while True:
        folder = Path(os.path.realpath(package))
        copies = folder.parent.parent
        if not (copies / _LOCK).is_file():
            yield folder
            return
        with ChampionCopies(copies.parent).reading():
            if folder.is_dir() or Path(os.path.realpath(package)) == folder:
                yield folder
                return


def _to_disk(folder: Path, deep: bool = True) -> None:
    """Have names and contents survive a loss of power."""
    paths = [path for path in folder.rglob("*") if not path.is_symlink()] if deep else []
    for path in (*paths, folder):
        files.sync(path)
