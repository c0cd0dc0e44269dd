"""TMM22: photos of screens with moire, and what the screens showed (Yue et al. 2022, IEEE TMM: RDNet).

The SmartPhotoCrafter paper says no more than "TMM22"; that this dataset is meant is inferred from name and task. The
raw twins beside the RGB folders are not read.
"""

from collections.abc import Iterator
from typing import ClassVar

from components.data.sources.base import Skipped, Source, SourceRecord
from components.data.sources.folders import suffixed
from components.data.splits import PUBLISHED


class Tmm22(Source):
    """Photos with moire (input) and without (target)."""

    name: ClassVar[str] = "tmm22"
    layout: ClassVar[str] = "{trainset,testset}/{moire_RGB,gt_RGB}, moire_RGB/<id>_m.png with gt_RGB/<id>_gt.png"
    licence: ClassVar[str] = "CC BY-NC-SA 4.0"
    homepage: ClassVar[str] = "https://github.com/tju-chengyijia/RDNet"

    def prepare(self) -> None:
        places = {split: self.find(self.root, f"{split}set") for split in PUBLISHED}
        self.parts = [
            (split, self.require(place, "moire_RGB"), self.require(place, "gt_RGB"))
            for split, place in places.items()
            if place is not None
        ]
        if not self.parts:
            raise self.error(self.root / "trainset", "missing, and so is testset")

    def scan(self) -> Iterator[SourceRecord | Skipped]:
        for split, inputs, targets in self.parts:
            keys = (suffixed("_m"), suffixed("_gt"))
            yield from self.paired_folders(inputs, targets, split, f"{split}/", keys, labels=("moire",))
