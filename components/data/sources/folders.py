"""Folders and tables as people unpack them: extensions in any case, leftovers of archivers, files without a partner."""

import codecs
import csv
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from components import files
from components.files import is_folder, listing
from components.imaging.formats import RAW_SUFFIXES

# fmt: off
PHOTO_SUFFIXES = frozenset((
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".tif", ".tiff", ".webp", ".avif", ".heic", ".heif", ".hif", ".bmp",
    ".gif",
))
# fmt: on
"""Of pictures; a file of another suffix is one if its first bytes say so (`is_picture`)."""
_SIGNATURES = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_BRANDS = (b"avif", b"avis", b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1")
SIDECAR_SUFFIXES = frozenset(
    (".xmp", ".aae", ".thm", ".pp3", ".dop", ".on1", ".lrv", ".wav", ".mov", ".mp4", ".m4v", ".avi", ".mts")
)
"""Of what cameras, phones and editors put beside photos: settings, thumbnails, sound, clips."""
_LEFTOVERS = frozenset(("__macosx", "thumbs.db", "desktop.ini", "@eadir"))

NOT_A_PHOTO = "not a photo"
NOT_UTF8 = (
    "its name is not UTF-8, as in archives from Windows: rename it, e.g. `convmv -r -f gbk -t utf8 --notest FOLDER`"
)
NOT_TEXT = "not UTF-8 text: save it as CSV in UTF-8"
SIDECAR = "a sidecar: settings, thumbnail, sound or clip beside photos"
OTHER_FORMAT = "another format of a shot that is taken"
BESIDE = frozenset((SIDECAR, OTHER_FORMAT))
"""Reasons of files that are no photos of their own: they are told and counted, and not quarantined."""
UNEXPECTED_NAME = "the name does not follow the dataset's pattern"
SAME_STEM = "another file of the folder has the same name but for the extension"
NO_TARGET = "no target of the same name"
NO_INPUT = "no input of the same name"

Key = Callable[[str], str | None]
"""From the stem of a file's name to what it has in common with its partner; None when the name is not of the kind."""


class AlteredFile(Exception):  # noqa: N818 (reads as a sentence where it is caught)
    """An annotation file that is not as published; the message says how."""


def same(stem: str) -> str:
    """The key where partners have the same name."""
    return stem


def prefixed(prefix: str) -> Key:
    """The key of names that begin with ``prefix``, in any case."""
    return lambda stem: stem[len(prefix) :] if stem.lower().startswith(prefix.lower()) else None


def without_prefix(prefix: str) -> Key:
    """The key of names that may begin with ``prefix``, in any case: what follows it, or the whole."""
    return lambda stem: stem[len(prefix) :] if stem.lower().startswith(prefix.lower()) else stem


def suffixed(suffix: str) -> Key:
    """The key of names that end in ``suffix``, in any case."""
    return lambda stem: stem[: -len(suffix)] if stem.lower().endswith(suffix.lower()) else None


def is_leftover(name: str) -> bool:
    """Whether an archiver or a desktop left this file or folder behind: it is no part of any dataset."""
    return name.startswith(".") or name.lower() in _LEFTOVERS


def composed(name: str) -> str:
    """A name whose accents are written in one way: macOS takes letters apart (NFD), others do not (NFC)."""
    return unicodedata.normalize("NFC", name)


def same_name(name: str) -> str:
    """What the spellings of one name have in common: the accents of macOS (NFD) and of all others (NFC), upper case."""
    return composed(name).lower()


def is_utf8(path: Path) -> bool:
    """Whether the bytes of a path are UTF-8, as those of an archive from another system may not be."""
    try:
        str(path).encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def printable(path: str) -> str:
    """A path for people: bytes that are not UTF-8 as \\xNN."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def find_child(folder: Path, name: str) -> Path | None:
    """The entry ``name`` of ``folder``, by its exact name or else in another spelling (`same_name`)."""
    exact = folder / name
    if exact.exists():
        return exact
    if not folder.is_dir():
        return None
    return next((folder / entry.name for entry in listing(folder) if same_name(entry.name) == same_name(name)), None)


class Names:
    """The files of one folder by their names, from one listing: other cases of the extension, .jpeg for .jpg, accents.

    Args:
        folder: one that is not there has no files.

    Attributes:
        files, folders: names in it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        found, self.folders = entries(folder) if folder.is_dir() else ([], [])
        self.files = frozenset(found)
        self._known: dict[str, str] = {}
        for name in found:
            self._known.setdefault(self._spelling(name), name)

    def find(self, name: str) -> Path | None:
        """The photo ``name``, or None when it is missing."""
        if name in self.files:
            return self._folder / name
        known = self._known.get(self._spelling(name))
        return None if known is None else self._folder / known

    @staticmethod
    def _spelling(name: str) -> str:
        stem, dot, suffix = composed(name).rpartition(".")
        suffix = suffix.lower()
        return f"{stem}{dot}{'jpg' if suffix == 'jpeg' else suffix}"


def entries(folder: Path) -> tuple[list[str], list[str]]:
    """Names of the files and of the folders in ``folder``, each sorted; leftovers of archivers are not listed.

    Raises:
        OSError: the folder cannot be listed; the message says what to do.
    """
    outer: list[str] = []
    inner: list[str] = []
    for entry in listing(folder):
        if not is_leftover(entry.name):
            (inner if is_folder(entry) else outer).append(entry.name)
    return outer, inner


def subfolders(folder: Path) -> list[Path]:
    """Folders in ``folder``, sorted by name."""
    return [folder / name for name in entries(folder)[1]]


def photos(
    folder: Path, suffixes: frozenset[str] = PHOTO_SUFFIXES, names: Sequence[str] | None = None
) -> Iterator[Path | tuple[Path, str]]:
    """Photos in ``folder`` sorted by name; a file that cannot be taken for one comes as (path, reason).

    Args:
        suffixes: of photos; where those of all pictures are among them, a file of an unknown suffix is looked into.
        names: of the files in the folder, where it has been listed already.
    """
    for name in entries(folder)[0] if names is None else names:
        path = folder / name
        if not is_utf8(path):
            yield path, NOT_UTF8
            continue
        suffix = path.suffix.lower()
        if suffix in SIDECAR_SUFFIXES:
            yield path, SIDECAR
        elif suffix in suffixes or (suffixes >= PHOTO_SUFFIXES and suffix not in RAW_SUFFIXES and is_picture(path)):
            yield path
        else:
            yield path, NOT_A_PHOTO


def is_picture(path: Path) -> bool:
    """Whether a file begins as a picture does, whatever its name; one that cannot be read does not."""
    try:
        with path.open("rb") as file:
            start = file.read(12)
    except OSError:
        return False
    webp = start[:4] == b"RIFF" and start[8:12] == b"WEBP"
    return start.startswith(_SIGNATURES) or webp or (start[4:8] == b"ftyp" and start[8:12] in _BRANDS)


def tree(folder: Path) -> Iterator[tuple[Path, list[str]]]:
    """``folder`` and all folders below it, each with the names of its files; leftovers of archivers are passed over.

    Raises:
        OSError: as of `components.files.tree`.
    """
    for each, found in files.tree(folder, is_leftover):
        yield each, [entry.name for entry in found]


def walk(folder: Path, suffixes: frozenset[str] = PHOTO_SUFFIXES) -> Iterator[Path | tuple[Path, str]]:
    """Like `photos`, of ``folder`` and all folders below it."""
    for each, names in tree(folder):
        yield from photos(each, suffixes, names)


def search(folder: Path, name: str, levels: int = 3) -> Path | None:
    """The first file called ``name``, in any spelling, in ``folder`` or up to so many levels below it."""
    found, inner = entries(folder)
    for other in found:
        if same_name(other) == same_name(name):
            return folder / other
    if not levels:
        return None
    return next((path for each in inner if (path := search(folder / each, name, levels - 1)) is not None), None)


def by_key(
    folder: Path, key: Key, suffixes: frozenset[str] = PHOTO_SUFFIXES
) -> tuple[dict[str, Path], list[tuple[Path, str]]]:
    """Photos of one folder by key, and the files that have none, with the reason.

    Two files with one key (0001.png beside 0001.jpg) are both left out: neither is more right than the other.
    """
    found: dict[str, Path] = {}
    odd: list[tuple[Path, str]] = []
    doubled: set[str] = set()
    for entry in photos(folder, suffixes):
        if isinstance(entry, tuple):
            odd.append(entry)
            continue
        shared = key(composed(entry.stem))
        if shared is None:
            odd.append((entry, UNEXPECTED_NAME))
        elif shared in found:
            doubled.add(shared)
            odd.append((entry, SAME_STEM))
        else:
            found[shared] = entry
    odd += [(found.pop(shared), SAME_STEM) for shared in sorted(doubled)]
    return found, odd


def match(
    inputs: Path, targets: Path, input_key: Key, target_key: Key
) -> Iterator[tuple[str, Path, Path] | tuple[Path, str]]:
    """Partners in two folders: (key, input, target) sorted by key; a file without one comes as (path, reason).

    Names decide, never order or number. Only the names of these two folders are held in memory.
    """
    sources, odd = by_key(inputs, input_key)
    yield from odd
    goals, odd = by_key(targets, target_key)
    yield from odd
    for key in sorted(sources.keys() | goals.keys()):
        if key not in goals:
            yield sources[key], NO_TARGET
        elif key not in sources:
            yield goals[key], NO_INPUT
        else:
            yield key, sources[key], goals[key]


def csv_rows(path: Path, columns: tuple[str, ...]) -> Iterator[tuple[int, dict[str, str]]]:
    """Line number and values by column of each row of a CSV file with a header, read as it goes.

    Values are separated by commas, or by semicolons or tabs where the header is.

    Raises:
        AlteredFile: a column is missing, a row is shorter than the header, or the file is no text (`text_of`).
    """
    with text_of(path) as file:
        reader = csv.DictReader(file, skipinitialspace=True, delimiter=_delimiter(path))
        try:
            names = [name.strip() for name in reader.fieldnames or ()]
            reader.fieldnames = names
            if missing := [column for column in columns if column not in names]:
                raise AlteredFile(f"missing columns: {', '.join(missing)}; found: {', '.join(names) or 'none'}")
            for row in reader:
                if any(row[column] is None for column in columns):
                    raise AlteredFile(f"line {reader.line_num}: expected {len(names)} values")
                yield reader.line_num, {name: (row[name] or "").strip() for name in names}
        except (UnicodeDecodeError, csv.Error) as problem:
            raise AlteredFile(f"line {reader.line_num + 1}: {NOT_TEXT} ({problem})") from problem


def _delimiter(path: Path) -> str:
    """The first of comma, semicolon and tab that the header holds, in whichever encoding."""
    with path.open("rb") as file:
        header = file.readline()
    return next((sign for sign in ",;\t" if sign.encode() in header), ",")


@contextmanager
def text_of(path: Path) -> Iterator[TextIO]:
    """A text file as people save it: UTF-8, or the UTF-16 that Excel and PowerShell write with a byte order mark."""
    with path.open("rb") as file:
        mark = file.read(2)
    encoding = "utf-16" if mark in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else "utf-8-sig"
    with path.open(newline="", encoding=encoding) as text:
        yield text
