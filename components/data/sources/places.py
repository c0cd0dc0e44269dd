"""Where a dataset begins: the folder that people name is often one or two levels above it or below, or holds archives.

An archive makes a folder of its own when it is unpacked, or two; parts that were downloaded one by one lie in one
folder each. What is found so is used; where nothing is, the error says what is there.
"""

import itertools
from collections.abc import Iterator
from pathlib import Path

from components.data.sources import folders

LEVELS = 2
"""Folders between the one that is named and the dataset's own."""
_MOST = 500  # folders looked into a level; datasets have their tens of thousands of scenes further down
_NAMED = 6
_ARCHIVES = (".zip", ".tar", ".tgz", ".gz", ".bz2", ".xz", ".7z", ".rar", ".lmdb")
_PARTS = (".z01", ".001", ".part1")


def below(root: Path, levels: int = LEVELS) -> Iterator[list[Path]]:
    """The folders one level below ``root``, then those two levels below, and so on; none that cannot be listed."""
    level = [root]
    for _ in range(levels):
        level = [inner for folder in level[:_MOST] for inner in _inner(folder)][:_MOST]
        if not level:
            return
        yield level


def above(root: Path, levels: int = LEVELS) -> list[Path]:
    """The folder that ``root`` lies in, then the one that this lies in, and so on."""
    return list(itertools.islice(root.absolute().parents, levels))


def uses(value: object, folder: Path) -> bool:
    """Whether a path in ``value``, or in what it holds, is ``folder`` or lies in it."""
    match value:
        case Path():
            return value.absolute().is_relative_to(folder.absolute())
        case dict():
            return any(uses(one, folder) for one in value.values())
        case list() | tuple():
            return any(uses(one, folder) for one in value)
    return False


def is_packed(name: str) -> bool:
    """Whether a file is an archive, or the first part of one, by its name."""
    return name.lower().endswith((*_ARCHIVES, *_PARTS))


def told(root: Path) -> str:
    """What a folder holds, for the error that it is not a dataset: archives first, as they are mostly the reason."""
    if not root.is_dir():
        beside = [
            name for name in _files(root.parent) if is_packed(name) and name.lower().startswith(root.name.lower())
        ]
        if root.is_file():
            return "this is a file: unpack it and name the folder" if is_packed(root.name) else "this is a file"
        return f"no such folder; {beside[0]} beside it is still packed: unpack it" if beside else "no such folder"
    packed = [f"{folder.name}/{name}" if folder != root else name for folder, name in _packed(root)]
    files, inner = folders.entries(root)
    held = [*(f"{name}/" for name in inner), *(name for name in files if not is_packed(name))]
    parts = [f"still packed, unpack first: {_listed(packed)}"] if packed else []
    parts.append(f"the folder holds {_listed(held)}" if held else "the folder is empty" if not packed else "")
    return "; ".join(part for part in parts if part)


def _packed(root: Path) -> Iterator[tuple[Path, str]]:
    for folder in (root, *_inner(root)[:_MOST]):
        yield from ((folder, name) for name in _files(folder) if is_packed(name))


def _inner(folder: Path) -> list[Path]:
    try:
        return folders.subfolders(folder)
    except OSError:
        return []


def _files(folder: Path) -> list[str]:
    try:
        return folders.entries(folder)[0]
    except OSError:
        return []


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return folders.printable(", ".join(names[:_NAMED])) + more
