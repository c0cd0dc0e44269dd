"""The files of one shot, as cameras, phones and editors name them beside each other in people's own folders."""

import re
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from components.data.sources import folders
from components.imaging.formats import RAW_SUFFIXES

Preferred = Literal["developed", "raw"]
SUFFIXES = folders.PHOTO_SUFFIXES | RAW_SUFFIXES
"""Of people's own photos: pictures and camera raw."""
_VERSION = re.compile(
    r"(?:(?:[-_ ]| - )(?:edit(?:ed)?|enhanced?(?:[- ]nr)?|copy|kopie|copie|copia)(?:[-_ ]?\d+)?| ?\(\d+\))$",
    re.IGNORECASE,
)


class Shot(NamedTuple):
    """A photo to be taken, and the name that it shares with other versions in its folder, or None."""

    path: Path
    scene: str | None


def plain_stem(stem: str) -> str:
    """The name of a shot without what editors and desktops append to that of a version: -Edit, " copy", (1)."""
    name = unicodedata.normalize("NFC", stem)
    while (shorter := _VERSION.sub("", name)) and shorter != name:
        name = shorter
    return name


def shots(folder: Path, names: Sequence[str], preferred: Preferred) -> Iterator[Shot | tuple[Path, str]]:
    """The photos among the files ``names`` of ``folder``; what is passed over comes as (path, reason).

    A shot that is there as camera raw and as a developed picture is one photo: the one that is ``preferred``. Versions
    of a shot (IMG_1.jpg, IMG_1-Edit.tif) are photos of one scene.
    """
    versions: dict[str, list[Path]] = {}
    for entry in folders.photos(folder, SUFFIXES, names):
        if isinstance(entry, tuple):
            yield entry
        else:
            versions.setdefault(unicodedata.normalize("NFC", entry.stem).lower(), []).append(entry)
    scenes: dict[str, int] = {}
    taken: list[Path] = []
    for files in versions.values():
        raw = [path for path in files if path.suffix.lower() in RAW_SUFFIXES]
        developed = [path for path in files if path.suffix.lower() not in RAW_SUFFIXES]
        if raw and developed:
            left, files = (raw, developed) if preferred == "developed" else (developed, raw)
            yield from ((path, folders.OTHER_FORMAT) for path in left)
        taken += files
        for path in files:
            scene = plain_stem(path.stem).lower()
            scenes[scene] = scenes.get(scene, 0) + 1
    for path in taken:
        scene = plain_stem(path.stem).lower()
        yield Shot(path, scene if scenes[scene] > 1 else None)
