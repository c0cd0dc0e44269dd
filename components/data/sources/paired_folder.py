"""A user's own pairs: two folders of photos, before and after, with the same names."""

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from pydantic import Field

from components.data.pairs import PairKind
from components.data.sources import folders
from components.data.sources.base import Skipped, SourceRecord
from components.data.sources.own_photos import OwnFolder, Preferred, Shot, plain_stem, shots
from components.data.splits import SPLITS, Split
from components.strict import Strict

OUTSIDE = "neither among the inputs nor among the targets"


class PairedFolder(OwnFolder):
    """Photos of the folder ``inputs`` and below it with those of the same name in ``targets``, camera raw included.

    What programs append to the name of an edit (IMG_1-Edit, "IMG_1 copy") is forgiven where no name agrees as it is.
    Where the root has folders called train, validation or test, each holds the two and is that split; otherwise the two
    stand in the root and no split is given.
    """

    class Settings(Strict):
        dataset: str | None = Field(default=None, min_length=1, description="Name in the records; None: the folder's.")
        inputs: str = Field(default="input", min_length=1, description="Folder of the photos to be edited.")
        targets: str = Field(default="target", min_length=1, description="Folder of what they should become.")
        kind: PairKind = Field(default="enhancement", description="What the edit is.")
        labels: tuple[str, ...] = Field(default=(), description="Distortions that all inputs have.")
        licence: str = Field(default="the user's own", min_length=1)
        author: str | None = None
        shots: Preferred = Field(
            default="developed",
            description="What is taken of a shot that lies there as camera raw and as a picture (JPEG, HEIC, ...).",
        )

    name: ClassVar[str] = "paired_folder"
    layout: ClassVar[str] = "{input,target}/<same name>, in the root or in folders train, validation and test"
    licence: ClassVar[str] = "the user's own"
    homepage: ClassVar[None] = None

    def prepare(self) -> None:
        splits = [(split, self.find(self.root, split)) for split in SPLITS]
        places: list[tuple[Split | None, Path]] = [(split, folder) for split, folder in splits if folder is not None]
        self.parts = [
            (split, self.require(folder, self.settings.inputs), self.require(folder, self.settings.targets))
            for split, folder in places or [(None, self.root)]
        ]

    def scan(self) -> Iterator[SourceRecord | Skipped]:
        chosen = self.settings
        fields = {"kind": chosen.kind, "labels": chosen.labels, "licence": chosen.licence, "author": chosen.author}
        for split, inputs, targets in self.parts:
            sources, odd = self._photos(inputs)
            goals, more = self._photos(targets)
            yield from (self.skip(*entry) for entry in (*odd, *more))
            pairs = [(key, key) for key in sorted(sources.keys() & goals.keys())]
            left = [sorted(found.keys() - {key for key, _ in pairs}) for found in (sources, goals)]
            plain = [_by_plain_name(keys) for keys in left]
            pairs += [(plain[0][name][0], plain[1][name][0]) for name in sorted(_single(plain[0]) & _single(plain[1]))]
            yield from self._unpaired(sources, plain[0], {key for key, _ in pairs}, plain[1], folders.NO_TARGET)
            yield from self._unpaired(goals, plain[1], {key for _, key in pairs}, plain[0], folders.NO_INPUT)
            prefix = f"{split}/" if split else ""
            for source, goal in pairs:
                yield from self.paired(prefix + source, sources[source], goals[goal], split, **fields)
        yield from self._outside()

    def _photos(self, folder: Path) -> tuple[dict[str, Path], list[tuple[Path, str]]]:
        """Photos of a half by their names, as below the folder and without suffix, and what is passed over."""
        found: dict[str, Path] = {}
        odd: list[tuple[Path, str]] = []
        doubled: set[str] = set()
        for inner, names in folders.tree(folder):
            for entry in shots(inner, names, self.settings.shots):
                if not isinstance(entry, Shot):
                    odd.append(entry)
                    continue
                key = folders.composed(entry.path.relative_to(folder).with_suffix("").as_posix())
                if key in found:
                    doubled.add(key)
                    odd.append((entry.path, folders.SAME_STEM))
                else:
                    found[key] = entry.path
        odd += [(found.pop(key), folders.SAME_STEM) for key in sorted(doubled)]
        return found, odd

    def _unpaired(
        self,
        found: dict[str, Path],
        plain: dict[str, list[str]],
        paired: set[str],
        others: dict[str, list[str]],
        alone: str,
    ) -> Iterator[Skipped]:
        for name, keys in plain.items():
            several = name in others and len(keys) + len(others[name]) > 2
            for key in keys:
                if key not in paired:
                    yield self.skip(found[key], folders.SAME_STEM if several else alone)

    def _outside(self) -> Iterator[Skipped]:
        """Files of the root that are in neither folder."""
        halves = {half for _, *both in self.parts for half in both}
        for folder, names in folders.tree(self.root):
            if not any(folder.is_relative_to(half) for half in halves):
                yield from (self.skip(folder / name, OUTSIDE) for name in names)


def _by_plain_name(keys: list[str]) -> dict[str, list[str]]:
    """Keys by their names without what programs append."""
    found: dict[str, list[str]] = {}
    for key in keys:
        inner, slash, stem = key.rpartition("/")
        found.setdefault(inner + slash + plain_stem(stem), []).append(key)
    return found


def _single(plain: dict[str, list[str]]) -> set[str]:
    return {name for name, keys in plain.items() if len(keys) == 1}
