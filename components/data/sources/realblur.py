"""RealBlur: a blurred and a sharp photo taken through one lens (Rim et al. 2020, ECCV), from JPEG (J) and from raw (R).

The lists name the pairs, ground truth first; the misspelt folder name is the published one. Numbers of files repeat
across scenes. Pairs may be misaligned by a pixel or two.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field

from components.data.sources.base import MISSING, Skipped, Source, SourceRecord
from components.data.splits import PUBLISHED, Split
from components.strict import Strict

_FOLDERS = {
    "J": "RealBlur-J_ECC_IMCORR_centroid_itensity_ref",
    "R": "RealBlur-R_BM3D_ECC_IMCORR_centroid_itensity_ref",
}


class Realblur(Source):
    """Motion-blurred photos (input) with sharp ones (target), split as listed."""

    class Settings(Strict):
        subsets: tuple[Literal["J", "R"], ...] | None = Field(default=None, description="None: those that are there.")

    name: ClassVar[str] = "realblur"
    layout: ClassVar[str] = (
        f"{_FOLDERS['J']}/scene001/blur/blur_1.png and gt/gt_1.png, {_FOLDERS['R']} likewise; "
        "RealBlur_{J,R}_{train,test}_list.txt, each line 'gt blur'"
    )
    licence: ClassVar[str] = "CC BY 4.0"
    homepage: ClassVar[str] = "https://cg.postech.ac.kr/research/realblur/"

    def prepare(self) -> None:
        self.folders = {subset: path for subset, name in _FOLDERS.items() if (path := self.seek(name))}
        there = tuple(self.folders)
        if not there:
            raise self.error(self.root / _FOLDERS["J"], f"missing, and so is {_FOLDERS['R']}")
        self.lists = [
            (subset, split, self.needed(f"RealBlur_{subset}_{split}_list.txt"))
            for subset in self.settings.subsets or there
            for split in PUBLISHED
        ]
        for subset in self.settings.subsets or ():
            self.needed(_FOLDERS[subset])

    def scan(self) -> Iterator[SourceRecord | Skipped]:
        for subset, split, path in self.lists:
            for line, text in self.lines(path):
                yield from self._pair(subset, split, path, line, text)

    def _pair(self, subset: str, split: Split, path: Path, line: int, text: str) -> tuple[SourceRecord | Skipped, ...]:
        parts = [name.split("/")[-4:] for name in text.split()]
        if len(parts) != 2 or [part[2] for part in parts if len(part) == 4] != ["gt", "blur"]:
            raise self.error(path, f"line {line}: expected 'gt blur', ground truth first, found {text!r}")
        if any(part[:2] != [_FOLDERS[subset], parts[0][1]] for part in parts):
            raise self.error(path, f"line {line}: expected two files of one scene of {subset}, found {text!r}")
        target, photo = (self.photo(self.folders[subset].joinpath(*part[1:3]), part[3]) for part in parts)
        if target is None or photo is None:
            missing = parts[0 if target is None else 1]
            return (self.skip(self.folders[subset].joinpath(*missing[1:]), MISSING),)
        scene, number = parts[1][1], photo.stem.removeprefix("blur_")
        return self.paired(f"{subset}/{scene}/{number}", photo, target, split, labels=("motion_blur",))
