"""FoundIR: real photos with one or several degradations and their clean twins (Li et al. 2025, ICCV).

The name of a group is its label set: 02Blur_Noise holds photos with both. The test set has 20 groups and 1,500 pairs;
the training set is terabytes, so only the names of one group are held at a time.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from pydantic import Field

from components.data.sources import folders, places
from components.data.sources.base import MISSING, Skipped, Source, SourceRecord
from components.data.splits import Split
from components.strict import Strict

_GROUP = re.compile(r"\d+(.+)")
_LABELS = {
    "blur": "blur",
    "noise": "noise",
    "jpeg": "jpeg",
    "haze": "haze",
    "rain": "rain",
    "raindrop": "raindrop",
    "nightrain": "night_rain",
    "lowlight": "low_light",
}
_REPOSITORY = "https://github.com/House-Leo/FoundIR"
_TEST_LIST = "Testset_meta_info.txt"
NO_TWINS = "a group without LQ and GT folders"


class Foundir(Source):
    """Degraded photos (input) with their clean twins (target).

    With `Testset_meta_info.txt` the pairs are the ones it lists, and test. Without it nothing on disk tells the public
    test set from training data, so the setting ``split`` has to.
    """

    class Settings(Strict):
        split: Split | None = Field(default=None, description=f"Of all pairs, where {_TEST_LIST} is not there.")

    name: ClassVar[str] = "foundir"
    layout: ClassVar[str] = (
        "NN<Labels>/{LQ,GT}/<stem>.<ext>, as 02Blur_Noise/LQ/0151.png, paired by stem; "
        f"for the test set {_TEST_LIST}, each line 'GT_path, LQ_path'; without it the option split"
    )
    licence: ClassVar[str] = "not stated (the authors' repository, with the code, is under the MIT licence)"
    homepage: ClassVar[str] = "https://www.foundir.net"

    def prepare(self) -> None:
        between = [folder for folder in places.above(self.root) if folder.is_relative_to(self.named.absolute())]
        self.list = next((path for folder in (self.root, *between) if (path := self.find(folder, _TEST_LIST))), None)
        if self.list is not None and self.settings.split not in (None, "test"):
            raise self.error(
                self.list, f"its pairs are test, but split is set to {self.settings.split!r}: leave it out"
            )
        self.groups = [folder for folder in folders.subfolders(self.root) if _GROUP.fullmatch(folder.name)]
        if not self.groups:
            raise self.error(self.root, "no group folder like 01Blur")
        if self.list is None and self.settings.split is None:
            raise self.error(
                self.root / _TEST_LIST,
                f"missing: {len(self.groups)} groups of pairs are here, and nothing says whether they are the public "
                f"test set. If they are, put the list beside them (it is in the authors' repository, {_REPOSITORY}, "
                "and not in the download); or set the option split to train, validation or test",
                begins_here=True,
            )
        self.labels = {group.name: self._labels(group) for group in self.groups}

    def scan(self) -> Iterator[SourceRecord | Skipped]:
        yield from self._groups() if self.list is None else self._listed(self.list)

    def _groups(self) -> Iterator[SourceRecord | Skipped]:
        for group in self.groups:
            inputs, targets = self.find(group, "LQ"), self.find(group, "GT")
            if inputs is None or targets is None:
                yield self.skip(group, NO_TWINS)
                continue
            for entry in self.matched(inputs, targets):
                if isinstance(entry, Skipped):
                    yield entry
                else:
                    yield from self._pair(group, entry[1], entry[2], self.settings.split)

    def _listed(self, path: Path) -> Iterator[SourceRecord | Skipped]:
        for line, text in self.lines(path):
            names = [name.strip().replace("\\", "/").lstrip("/") for name in text.split(",")]
            parts = [name.split("/")[-3:] for name in names]
            if len(parts) != 2 or [part[1].upper() for part in parts if len(part) == 3] != ["GT", "LQ"]:
                raise self.error(path, f"line {line}: expected 'GT_path, LQ_path', found {text!r}")
            if (group := parts[1][0]) not in self.labels or parts[0][0] != group:
                raise self.error(path, f"line {line}: expected two files of one group, found {text!r}")
            target, photo = (self.photo(self.root / part[0] / part[1], part[2]) for part in parts)
            if target is None or photo is None:
                yield Skipped("/".join(parts[0 if target is None else 1]), MISSING)
            else:
                yield from self._pair(self.root / group, photo, target, "test")

    def _pair(self, group: Path, photo: Path, target: Path, split: Split) -> tuple[SourceRecord, SourceRecord]:
        return self.paired(f"{split}/{group.name}/{photo.stem}", photo, target, split, labels=self.labels[group.name])

    def _labels(self, group: Path) -> tuple[str, ...]:
        words = group.name.lstrip("0123456789").split("_")
        if unknown := [word for word in words if word.lower() not in _LABELS]:
            raise self.error(group, f"unknown degradations {', '.join(unknown)}; known: {', '.join(_LABELS)}")
        return tuple(_LABELS[word.lower()] for word in words)
