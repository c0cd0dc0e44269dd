"""RDD: photos of documents with a shadow and without (Zhang et al. 2023, CVPR: BGShadowNet).

The SmartPhotoCrafter paper says no more than "RDD"; that this dataset is meant is inferred from name and task.
"""

from collections.abc import Iterator
from typing import ClassVar

from components.data.sources.base import Skipped, Source, SourceRecord
from components.data.splits import PUBLISHED


class Rdd(Source):
    """Documents with a shadow (input) and without (target)."""

    name: ClassVar[str] = "rdd"
    layout: ClassVar[str] = "{train,test}/{img,gt}/0001.JPG, same name, the extension's case may differ"
    licence: ClassVar[str] = "not stated"
    homepage: ClassVar[str] = "https://github.com/hyyh1314/RDD"

    def prepare(self) -> None:
        self.parts = [
            (split, self.require(self.root, split, "img"), self.require(self.root, split, "gt"))
            for split in PUBLISHED
            if self.find(self.root, split)
        ]
        if not self.parts:
            raise self.error(self.root / "train", "missing, and so is test")

    def scan(self) -> Iterator[SourceRecord | Skipped]:
        for split, inputs, targets in self.parts:
            yield from self.paired_folders(inputs, targets, split, f"{split}/", labels=("shadow", "document"))
