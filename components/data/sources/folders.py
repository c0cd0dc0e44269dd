"""Folders and tables as people unpack them: extensions in any case, leftovers of archivers, files without a partner."""

import csv
import os
from collections.abc import Callable, Iterator
from pathlib import Path

PHOTO_SUFFIXES = frozenset((".jpg", ".jpeg", ".png", ".tif", ".tiff", ".webp", ".avif", ".heic", ".heif", ".bmp"))
_LEFTOVERS = frozenset(("__macosx", "thumbs.db", "desktop.ini", "@eadir"))

NOT_A_PHOTO = "not a photo"
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


def suffixed(suffix: str) -> Key:
    """The key of names that end in ``suffix``, in any case."""
    return lambda stem: stem[: -len(suffix)] if stem.lower().endswith(suffix.lower()) else None


def is_leftover(name: str) -> bool:
    """Whether an archiver or a desktop left this file or folder behind: it is no part of any dataset."""
    return name.startswith(".") or name.lower() in _LEFTOVERS


def find_child(folder: Path, name: str) -> Path | None:
    """The entry ``name`` of ``folder``, by its exact name or else without regard to case."""
    exact = folder / name
    if exact.exists():
        return exact
    if not folder.is_dir():
        return None
    return next((entry for entry in sorted(folder.iterdir()) if entry.name.lower() == name.lower()), None)


def find_photo(folder: Path, name: str) -> Path | None:
    """The photo ``name`` of ``folder``, whose extension may be written in another case; None when it is missing."""
    stem, suffix = Path(name).stem, Path(name).suffix
    suffixes = [".jpg", ".jpeg"] if suffix.lower() in (".jpg", ".jpeg") else [suffix.lower()]
    for candidate in (suffix, *(form for each in suffixes for form in (each, each.upper(), each.title()))):
        path = folder / (stem + candidate)
        if path.is_file():
            return path
    return None


def entries(folder: Path) -> tuple[list[str], list[str]]:
    """Names of the files and of the folders in ``folder``, each sorted; leftovers of archivers are not listed."""
    files: list[str] = []
    inner: list[str] = []
    with os.scandir(folder) as found:
        for entry in found:
            if not is_leftover(entry.name):
                (inner if entry.is_dir() else files).append(entry.name)
    return sorted(files), sorted(inner)


def subfolders(folder: Path) -> list[Path]:
    """Folders in ``folder``, sorted by name."""
    return [folder / name for name in entries(folder)[1]]


def photos(folder: Path, suffixes: frozenset[str] = PHOTO_SUFFIXES) -> Iterator[Path | tuple[Path, str]]:
    """Photos in ``folder`` sorted by name; a file that is not a photo comes as (path, reason)."""
    for name in entries(folder)[0]:
        path = folder / name
        yield path if path.suffix.lower() in suffixes else (path, NOT_A_PHOTO)


def walk(folder: Path, suffixes: frozenset[str] = PHOTO_SUFFIXES) -> Iterator[Path | tuple[Path, str]]:
    """Like `photos`, of ``folder`` and all folders below it."""
    yield from photos(folder, suffixes)
    for inner in subfolders(folder):
        yield from walk(inner, suffixes)


def search(folder: Path, name: str) -> Path | None:
    """The first file called ``name``, in any case, in ``folder`` or below it."""
    files, inner = entries(folder)
    for file in files:
        if file.lower() == name.lower():
            return folder / file
    return next((found for each in inner if (found := search(folder / each, name)) is not None), None)


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
        shared = key(entry.stem)
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
        AlteredFile: a column is missing, a row is shorter than the header, or the file is not in UTF-8.
    """
    try:
        yield from _csv_rows(path, columns)
    except UnicodeDecodeError as error:
        found = f"byte {error.object[error.start]:#04x}"
        raise AlteredFile(f"{found} is not UTF-8: save the table as UTF-8") from error


def _csv_rows(path: Path, columns: tuple[str, ...]) -> Iterator[tuple[int, dict[str, str]]]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        header = file.readline()
        file.seek(0)
        delimiter = "," if "," in header else next((sign for sign in ";\t" if sign in header), ",")
        reader = csv.DictReader(file, skipinitialspace=True, delimiter=delimiter)
        names = [name.strip() for name in reader.fieldnames or ()]
        reader.fieldnames = names
        if missing := [column for column in columns if column not in names]:
            raise AlteredFile(f"missing columns: {', '.join(missing)}; found: {', '.join(names) or 'none'}")
        for row in reader:
            if any(row[column] is None for column in columns):
                raise AlteredFile(f"line {reader.line_num}: expected {len(names)} values")
            yield reader.line_num, {name: (row[name] or "").strip() for name in names}
