"""SRD: photos with a shadow and without (Qu et al. 2017, CVPR: DeshadowNet). There are no masks.

Names of the shadow-free photos end in _no_shadow in the training set and in _free in the test set; the other test
version that circulates repeats the shadow photo's name. All three are understood.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from components.data.sources import folders
from components.data.sources.base import Skipped, Source, SourceRecord
from components.data.splits import Split

_SUFFIXES: dict[Split, str] = {"train": "_no_shadow", "test": "_free"}


def _stem(stem: str) -> str:
    """The shadow photo's name from the shadow-free one's."""
    for suffix in _SUFFIXES.values():
        if stem.lower().endswith(suffix):
            return stem[: -len(suffix)]
    return stem


class Srd(Source):
    """Photos with a shadow (input) and without (target).

    The split is that of the folder; where the two folders stand in the root, that of the target's suffix.
    """

    name: ClassVar[str] = "srd"
    layout: ClassVar[str] = (
        "{train,test}/{shadow,shadow_free}, or the two folders in the root: "
        "shadow/X.jpg with shadow_free/X_no_shadow.jpg (train) or X_free.jpg or X.jpg (test); or in ISTD's folders, "
        "{train,test}/{train,test}_{A,C}"
    )
    licence: ClassVar[str] = "not stated"
    homepage: ClassVar[str] = "https://github.com/Liangqiong/DeShadowNet"

    def prepare(self) -> None:
        splits = [(split, self.find(self.root, split)) for split in _SUFFIXES]
        places: list[tuple[Split | None, Path]] = [(split, folder) for split, folder in splits if folder is not None]
        self.parts = [(split, *self._halves(split, folder)) for split, folder in places or [(None, self.root)]]

    def _halves(self, split: Split | None, folder: Path) -> tuple[Path, Path]:
        """The folders of the photos with a shadow and without."""
        as_istd = split and self.find(folder, f"{split}_A")
        if as_istd:
            return as_istd, self.require(folder, f"{split}_C")
        return self.require(folder, "shadow"), self.require(folder, "shadow_free")

    def scan(self) -> Iterator[SourceRecord | Skipped]:
        for given, inputs, targets in self.parts:
            for entry in self.matched(inputs, targets, folders.same, _stem):
                if isinstance(entry, Skipped):
                    yield entry
                    continue
                key, photo, target = entry
                split: Split = given or ("train" if target.stem.lower().endswith(_SUFFIXES["train"]) else "test")
                yield from self.paired(f"{split}/{key}", photo, target, split, labels=("shadow",))
