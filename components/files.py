"""Files that are whole or absent: write beside the target, flush to disk, rename over it; and folders as trees."""

import errno
import os
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from glob import escape
from pathlib import Path

MAX_NAME_BYTES = 255
"""Longest name of a file that the usual file systems take."""


@contextmanager
def replacing(path: Path, like_old: bool = False) -> Iterator[Path]:
    """Yield a temporary path in the folder of ``path``; on a clean exit it takes the place of ``path`` in one step.

    A process that is killed, or a disk that fills up, in the middle leaves the old file (or none), never half a file.
    The temporary file keeps the target's suffix, so that writers which choose a format by suffix work on it.

    Args:
        like_old: give the new file the old one's owner, permissions and extended attributes, where there is an old one
            and the system lets it.

    Raises:
        OSError: the folder cannot be written or the disk is full; the temporary file is removed, and the message names
            ``path`` in its place.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with _replacing(path, like_old) as temporary:
            yield temporary
    except OSError as error:
        if Path(str(error.filename)).name.startswith(_prefix(path)):
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise


@contextmanager
def _replacing(path: Path, like_old: bool) -> Iterator[Path]:
    handle, name = tempfile.mkstemp(prefix=_prefix(path), suffix=f".tmp{path.suffix}", dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb+") as written:
            os.fsync(written.fileno())
        if like_old and path.exists():
            _dress(temporary, path)
        else:
            umask = os.umask(0)
            os.umask(umask)
            temporary.chmod(0o666 & ~umask)  # mkstemp makes files private; a result is as readable as any other file
        temporary.replace(path)
        sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def leftovers(path: Path) -> list[Path]:
    """The temporary files that processes which were killed while replacing ``path`` left beside it."""
    path = Path(path)
    return list(path.parent.glob(f"{escape(_prefix(path))}*.tmp{escape(path.suffix)}"))


def listing(folder: Path) -> list[os.DirEntry[str]]:
    """The entries of a folder, sorted by name.

    Raises:
        OSError: it cannot be listed; the message says what to do.
    """
    try:
        with os.scandir(folder) as found:
            return sorted(found, key=lambda entry: entry.name)
    except PermissionError as error:
        advice = "this folder cannot be listed: let this user read it (chmod u+rx), or take it out"
        raise PermissionError(error.errno, advice, str(folder)) from error


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a folder or a link to one; a link to itself is none."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def tree(
    folder: Path, skip: Callable[[str], bool] = lambda name: False
) -> Iterator[tuple[Path, list[os.DirEntry[str]]]]:
    """``folder`` and all folders below it, each with its other entries, in the order of their names, links followed.

    Each folder is listed once, and nothing but links is looked at.

    Args:
        skip: of the names of entries, those to pass over.

    Raises:
        OSError: a folder cannot be listed, or a link leads back to a folder that it lies in; the message says what to
            do.
    """
    yield from _tree(Path(folder), skip, ())


def _tree(
    folder: Path, skip: Callable[[str], bool], above: tuple[Path, ...]
) -> Iterator[tuple[Path, list[os.DirEntry[str]]]]:
    real = folder.resolve()
    if real in above:
        raise OSError(errno.ELOOP, f"this link leads back to {real}, in which it lies: remove it", str(folder))
    entries = [entry for entry in listing(folder) if not skip(entry.name)]
    inner = [entry for entry in entries if is_folder(entry)]
    names = {entry.name for entry in inner}
    yield folder, [entry for entry in entries if entry.name not in names]
    for entry in inner:
        yield from _tree(folder / entry.name, skip, (*above, real))


def write_bytes(path: Path, content: bytes, like_old: bool = False) -> None:
    """Write ``content`` to ``path`` whole or not at all; ``like_old`` as for `replacing`."""
    with replacing(path, like_old) as temporary:
        temporary.write_bytes(content)


def write_text(path: Path, content: str) -> None:
    """Write ``content`` as UTF-8 to ``path`` whole or not at all."""
    write_bytes(path, content.encode("utf-8"))


def _prefix(path: Path) -> str:
    """How the temporary file for ``path`` begins: as its name does, as far as there is room for the rest."""
    room = MAX_NAME_BYTES - len(f"..12345678.tmp{path.suffix}".encode())
    return f".{path.stem.encode()[: max(room, 0)].decode(errors='ignore')}."


def _dress(new: Path, old: Path) -> None:
    """Owner, permissions and extended attributes (which hold access control lists) of one file for another."""
    status = old.stat()
    with suppress(PermissionError):
        os.chown(new, status.st_uid, status.st_gid)
    new.chmod(stat.S_IMODE(status.st_mode))
    with suppress(OSError):  # a file system without them
        for name in os.listxattr(old):
            with suppress(OSError):
                os.setxattr(new, name, os.getxattr(old, name))


def sync(path: Path) -> None:
    """Have a file's content, or the names in a folder, survive a loss of power."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
