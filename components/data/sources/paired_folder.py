"""A user's own pairs: two folders of photos, before and after, with the same names."""

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import ClassVar

from pydantic import Field

from components.data.pairs import PairKind
from components.data.sources.base import Skipped, Source, SourceRecord
from components.data.splits import SPLITS, Split
from components.strict import Strict


class PairedFolder(Source):
    """Photos of the folder ``inputs`` with those of the same stem in ``targets``.

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

    name: ClassVar[str] = "paired_folder"
    layout: ClassVar[str] = "{input,target}/<same name>, in the root or in folders train, validation and test"
    licence: ClassVar[str] = "the user's own"
    homepage: ClassVar[None] = None

    @cached_property
    def dataset(self) -> str:
        return self.settings.dataset or self.root.resolve().name

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
            yield from self.paired_folders(inputs, targets, split, f"{split}/" if split else "", **fields)
