"""LOL: photos taken in low light and in good light, all versions (Wei et al. 2018; Yang et al. 2021, IEEE TIP 30).

Version 1 (our485, eval15), version 2 (Real_captured and Synthetic) and the common repack (Train, Test) may stand in one
root, each or together. The test photos of version 2 are also training photos of version 1: where a training pair shows
the very picture of a test pair, the training pair is skipped.
"""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar, NamedTuple

from components.data.sources import folders
from components.data.sources.base import Skipped, Source, SourceRecord
from components.data.splits import PUBLISHED, Split
from components.imaging.photo import UnreadablePhoto, read_photo, to_png_bytes

_VERSION_1 = ("LOLdataset", "lol_dataset", "LOL-v1", "LOLv1")
SEEN_IN_TEST = "the same picture as a test photo of another version"


class _Part(NamedTuple):
    """One split of one version."""

    version: str
    split: Split
    inputs: Path
    targets: Path
    input_key: folders.Key
    target_key: folders.Key


class Lol(Source):
    """Photos in low light (input) and in good light (target)."""

    name: ClassVar[str] = "lol"
    layout: ClassVar[str] = (
        "v1: {our485,eval15}/{low,high}/N.png, same name; "
        "v2: LOL-v2/{Real_captured,Synthetic}/{Train,Test}/{Low,Normal}, low00001.png with normal00001.png "
        "(Real_captured) or same name; "
        "repack: {Train,Test}/{input,target}, same name"
    )
    licence: ClassVar[str] = "not stated"
    homepage: ClassVar[str] = "https://daooshee.github.io/BMVC2018website/"

    def prepare(self) -> None:
        self.parts = [*self._version_1(), *self._version_2(), *self._repack()]
        if not self.parts:
            raise self.error(self.root, "neither our485 nor LOL-v2 nor Train/input is there")

    def scan(self) -> Iterator[SourceRecord | Skipped]:
        tested = self._tested()
        for part in self.parts:
            for entry in self.matched(part.inputs, part.targets, part.input_key, part.target_key):
                if isinstance(entry, Skipped):
                    yield entry
                    continue
                key, photo, target = entry
                if part.split == "train" and tested and _picture(target) in tested:
                    yield self.skip(photo, SEEN_IN_TEST)
                    yield self.skip(target, SEEN_IN_TEST)
                    continue
                pair = f"{part.version}/{part.split}/{key}"
                yield from self.paired(pair, photo, target, part.split, labels=("low_light",))

    def _version_1(self) -> Iterator[_Part]:
        base = self.below(*_VERSION_1)
        for split, name in zip(PUBLISHED, ("our485", "eval15"), strict=True):
            folder = self.find(base, name)
            if folder is not None:
                low, high = self.require(folder, "low"), self.require(folder, "high")
                yield _Part("v1", split, low, high, folders.same, folders.same)

    def _version_2(self) -> Iterator[_Part]:
        base = self.below("LOL-v2", "LOLv2")
        captured = (folders.without_prefix("low"), folders.without_prefix("normal"))
        for version, name, keys in (
            ("v2-real", "Real_captured", captured),
            ("v2-synthetic", "Synthetic", (folders.same, folders.same)),
        ):
            folder = self.find(base, name)
            if folder is None:
                continue
            for split in PUBLISHED:
                low, normal = (self.require(folder, split.title(), name) for name in ("Low", "Normal"))
                yield _Part(version, split, low, normal, *keys)

    def _repack(self) -> Iterator[_Part]:
        base = self.root if self.find(self.root, "train", "input") else self.below(*_VERSION_1)
        for split in PUBLISHED:
            inputs = self.find(base, split, "input")
            if inputs is not None:
                targets = self.require(base, split, "target")
                yield _Part("repack", split, inputs, targets, folders.same, folders.same)

    def _tested(self) -> frozenset[str]:
        """Pictures of the test targets (a few hundred at most), or none when there is only one version."""
        if len({part.version for part in self.parts}) == 1:
            return frozenset()
        found: set[str] = set()
        for part in self.parts:
            if part.split == "test":
                photos, _ = folders.by_key(part.targets, part.target_key)
                found |= {picture for path in photos.values() if (picture := _picture(path)) is not None}
        return frozenset(found)


def _picture(path: Path) -> str | None:
    """A hash of the pixels, the same in every file format without loss; None when the file does not decode."""
    try:
        return hashlib.sha256(to_png_bytes(read_photo(path).pixels)).hexdigest()
    except UnreadablePhoto:
        return None
