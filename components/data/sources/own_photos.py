"""People's own folders: how they are named apart, and the files of one shot as cameras and editors name them."""

import re
from collections.abc import Collection, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Literal, NamedTuple

from components.data.sources import folders
from components.data.sources.base import Source
from components.imaging.formats import RAW_SUFFIXES

Preferred = Literal["developed", "raw"]
SUFFIXES = folders.PHOTO_SUFFIXES | RAW_SUFFIXES
"""Of people's own photos: pictures and camera raw."""
_VERSION = re.compile(
    r"(?:(?:[-_ ]| - )(?:edit(?:ed)?|enhanced?(?:[- ]nr)?|copy|kopie|copie|copia)(?:[-_ ]?\d+)?| ?\(\d+\))$",
    re.IGNORECASE,
)


class OwnFolder(Source):
    """A folder of a user's own. Its name in the records is the setting ``dataset``, or that of the folder."""

    own: ClassVar[bool] = True

    @cached_property
    def dataset(self) -> str:
        return self.settings.dataset or self.named.resolve().name

    def name_apart(self, taken: Collection[str]) -> None:
        """Take a name that is not ``taken``: with those of the folders around it before its own (2023-holiday).

        Raises:
            ValueError: all of them are taken, or the setting ``dataset`` is.
        """
        parts = self.named.resolve().parts[1:]
        names = (parts and "-".join(parts[-count:]) for count in range(2, len(parts) + 1))
        free = None if self.settings.dataset else next((name for name in names if name not in taken), None)
        if free is None:
            raise ValueError(
                f"{self.named}: the name {self.dataset} is taken by another source: set its option dataset"
            )
        self.__dict__["dataset"] = free


class Shot(NamedTuple):
    """A photo to be taken, and the name that it shares with other versions in its folder, or None."""

    path: Path
    scene: str | None


def plain_stem(stem: str) -> str:
    """The name of a shot without what editors and desktops append to that of a version: -Edit, " copy", (1)."""
    name = folders.composed(stem)
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
            versions.setdefault(folders.composed(entry.stem).lower(), []).append(entry)
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
