"""Small real photo files and published layouts for the tests of the adapters."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

from components.data.sources.base import Skipped, Source, SourceRecord

SIZE = (48, 32)


def picture(seed: int, size: tuple[int, int] = SIZE) -> Image.Image:
    """A smooth coloured RGB picture of width x height, different for every seed."""
    coarse = np.random.default_rng(seed).integers(20, 235, (5, 7, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)


def save(path: Path, seed: int = 0, size: tuple[int, int] = SIZE) -> Path:
    """Encode a picture in the format of the suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picture(seed, size).save(path)
    return path


def save_all(root: Path, names: Iterable[str]) -> None:
    """Encode a different picture for each name below ``root``."""
    for seed, name in enumerate(names):
        save(root / name, seed)


def write(path: Path, *lines: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(line + "\n" for line in lines), "utf-8")
    return path


def litter(folder: Path) -> None:
    """What archivers and desktops leave in a folder."""
    write(folder / "__MACOSX" / "._0001.png", "resource fork")
    write(folder / "._0001.png", "resource fork")
    write(folder / ".DS_Store", "")
    write(folder / "Thumbs.db", "")


def read(source: Source) -> dict[str, SourceRecord]:
    """All records by path."""
    records = list(source.records())
    found = {record.path: record for record in records}
    assert len(found) == len(records), "a path came twice"
    assert all((source.root / path).is_file() for path in found)
    return found


def skipped(source: Source) -> dict[str, str]:
    """Reasons by path of all that is skipped."""
    return {entry.path: entry.reason for entry in source.scan() if isinstance(entry, Skipped)}


def pairs(records: dict[str, SourceRecord]) -> dict[str, tuple[list[str], list[str]]]:
    """Inputs and targets by the name of the pair."""
    found: dict[str, tuple[list[str], list[str]]] = {}
    for path, record in records.items():
        if record.pair is not None:
            inputs, targets = found.setdefault(record.pair, ([], []))
            (inputs if record.role == "input" else targets).append(path)
    return found
