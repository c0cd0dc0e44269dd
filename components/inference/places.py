"""Where photos come from and go to: a folder, an archive, or a bucket (any fsspec URL such as s3:// or gs://).

Names are relative to the place, with forward slashes. A name that would lead out of the place it is written to, which
archives and buckets can hold, is refused. Files appear whole or not at all: on disk by renaming, in a bucket because
an object does. What comes out of an archive or a bucket is in memory only: a run that is killed leaves no photo in a
temporary folder.
"""

import os
import re
import unicodedata
from collections.abc import Hashable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from components import files
from components.files import MAX_NAME_BYTES
from components.imaging.source import MemoryFile, PictureFile

MAX_FILE_BYTES = 2**30
"""Largest file that is taken out of an archive or a bucket."""
_SEPARATORS, _DRIVE = re.compile(r"[/\\]"), re.compile(r"[A-Za-z]:[/\\]|\\")
_WINDOWS_SIGNS = '\\:*?"<>|'
_ARCHIVES = {".zip": "zip", ".tar": "tar", ".tgz": "tar", ".tar.gz": "tar"}


class UnsafeNameError(ValueError):
    """A name that would lead out of the folder it belongs to, or that no file can have."""


class OversizedFileError(ValueError):
    """A file in an archive or bucket is larger than is read, whatever its directory entry says."""


@dataclass(frozen=True)
class Place:
    """A folder, bucket prefix or archive.

    Attributes:
        url: as the user named it.
        files: the fsspec file system.
        root: path in it, without a slash at the end; of a folder on this machine, the one that links lead to.
        only: when the user named a single file, its name in ``root``.
    """

    url: str
    files: Any
    root: str
    only: str | None = None

    @classmethod
    def open(cls, url: str) -> "Place":
        """A place by its path or URL.

        Raises:
            ValueError: no fsspec implementation is known or installed for the URL's protocol.
        """
        for suffix, protocol in _ARCHIVES.items():
            if "://" not in url and url.lower().endswith(suffix) and Path(url).is_file():
                return cls(url, fsspec.filesystem(protocol, fo=url), "")
        try:
            if "://" not in url and Path(url).exists():  # whatever characters it has, it is no URL
                system, root = LocalFileSystem(), str(Path(url).absolute())
            else:
                system, root = fsspec.core.url_to_fs(url)
        except ImportError as error:
            raise ValueError(f"{url}: {error}") from error
        root, only = root.rstrip("/"), None
        if system.isfile(root):
            root, _, only = root.rpartition("/")
        if isinstance(system, LocalFileSystem):
            root = str(Path(root or "/").resolve()).rstrip("/")
        return cls(url, system, root, only)

    @property
    def folder(self) -> Path | None:
        """The folder on this machine, or None for buckets and archives."""
        return Path(self.root or "/") if isinstance(self.files, LocalFileSystem) else None

    def is_same(self, other: "Place") -> bool:
        """Whether both are one and the same folder, prefix or archive, however they are spelled or linked."""
        if self.folder is not None and other.folder is not None and self.folder.exists() and other.folder.exists():
            return self.folder.samefile(other.folder)
        return self.files == other.files and self.root == other.root

    def identity(self, name: str) -> Hashable:
        """What two names of one and the same file have in common, in this place and any other; None for no file."""
        if self.folder is None:
            return (self.files, self._path(name)) if self.exists(name) else None
        try:
            status = (self.folder / name).stat()
        except (OSError, ValueError):
            return None
        return status.st_dev, status.st_ino

    def names(self) -> dict[str, str]:
        """Names of all files, hidden ones left out, in order, each with a fingerprint that changes with the file.

        Raises:
            OSError: the place cannot be listed.
        """
        if self.only:
            return {self.only: _fingerprint(self.files.info(self._path(self.only)))}
        found = {}
        for path, info in self.files.find(self.root, detail=True).items():
            name = path.removeprefix(self.root).lstrip("/") if self.root else path
            if not any(part.startswith(".") and part not in (".", "..") for part in name.split("/")):
                found[name] = _fingerprint(info)
        return dict(sorted(found.items()))

    def mark(self, name: str) -> str:
        """The fingerprint of one file, as `names` gives it."""
        return _fingerprint(self.files.info(self._path(name)))

    def read(self, name: str) -> PictureFile:
        """A file to read a picture from: in its place on this machine's disk, out of anything else in memory.

        Raises:
            OversizedFileError: it holds more than `MAX_FILE_BYTES`. UnsafeNameError: no file can have its name.
            OSError: it cannot be read.
        """
        if self.folder is not None:
            return self.folder / name
        with self.files.open(self._path(check_name(name)), "rb") as source:
            content = source.read(MAX_FILE_BYTES + 1)
        if len(content) > MAX_FILE_BYTES:
            raise OversizedFileError(f"{name}: more than {MAX_FILE_BYTES:,} bytes")
        return MemoryFile(PurePosixPath(name).name, content)

    def exists(self, name: str) -> bool:
        return self.files.isfile(self._path(name))

    def read_bytes(self, name: str) -> bytes | None:
        """A small file, or None when there is none."""
        try:
            return self.files.cat_file(self._path(name))
        except FileNotFoundError:
            return None

    def write_text(self, name: str, content: str) -> None:
        """Write a small text file whole or not at all. Raises: as `put`."""
        self.put(content.encode("utf-8"), name)

    def put(self, content: bytes, name: str, like_old: bool = False) -> None:
        """Store a file under a name, whole or not at all; ``like_old`` as for `components.files.replacing`.

        Raises:
            UnsafeNameError: the name leads out of this place. OSError: it cannot be written.
        """
        if self.folder is not None:
            files.write_bytes(self._inside(name), content, like_old)
        else:
            self.files.pipe_file(self._path(check_name(name)), content)

    def sweep(self, name: str) -> None:
        """Remove what a run that was killed while it stored ``name`` left beside it."""
        if self.folder is not None:
            for path in files.leftovers(self._inside(name)):
                path.unlink(missing_ok=True)

    def _inside(self, name: str) -> Path:
        """The path of a name in the folder, after following links."""
        if self.folder is None:
            raise TypeError(f"{self.url} is no folder of this machine")
        folder = self.folder.resolve()
        path = (folder / check_name(name)).resolve()
        if not path.is_relative_to(folder):
            raise UnsafeNameError(f"{name!r} leads out of {self.url}")
        return path

    def _path(self, name: str) -> str:
        return f"{self.root}/{name}" if self.root else name


def check_name(name: str) -> str:
    """The name, if it stays within the place it is relative to, on whatever system it was made.

    Spaces of any kind, joined emoji, colons and backslashes are in the names of sound photos. Windows alone gives the
    last two a meaning, and so refuses them.

    Raises:
        UnsafeNameError: it is absolute, climbs up, has control characters, is not Unicode, or is longer than file
            systems allow.
    """
    parts = name.split("/")
    if any(part in ("", ".", "..") for part in parts) or ".." in _SEPARATORS.split(name) or _DRIVE.match(name):
        raise UnsafeNameError(f"{name!r} is no name within a folder")
    if any(unicodedata.category(letter) == "Cc" for letter in name):
        raise UnsafeNameError(f"{name!r} has control characters: rename it")
    if any(unicodedata.category(letter) == "Cs" for letter in name):
        raise UnsafeNameError(f"{name!r} is not in UTF-8: rename it")
    if any(len(part.encode()) > MAX_NAME_BYTES for part in parts):
        raise UnsafeNameError(f"{name!r} is longer than {MAX_NAME_BYTES} bytes: rename it")
    if os.name == "nt" and any(sign in name for sign in _WINDOWS_SIGNS):
        raise UnsafeNameError(f"{name!r} has a sign that no name has on Windows: rename it")
    return name


def _fingerprint(info: dict[str, Any]) -> str:
    """Size and whatever the file system knows that changes with the content."""
    changing = next(
        (info[key] for key in ("ETag", "etag", "mtime", "LastModified", "CRC", "created") if key in info), ""
    )
    return f"{info.get('size')}:{changing}"
