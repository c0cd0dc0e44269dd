"""FilmSet: photos and their grades in three film looks (Li et al. 2023, IJCAI: FilmNet)."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

from components.data.sources import folders
from components.data.sources.base import Skipped, Source, SourceRecord
from components.data.splits import PUBLISHED, Split

LOOKS = {"Cinema": "cinema", "ClassNeg": "classic_negative", "Velvia": "velvia"}
NO_LOOK = "graded in none of the looks"
NO_INPUT = "a graded photo without its input"
NOT_GRADED = "not graded in this look"


class Filmset(Source):
    """Plain photos (input), each with up to three targets labelled "look=cinema" and so on, under one pair."""

    name: ClassVar[str] = "filmset"
    layout: ClassVar[str] = "{train,test}/{input,Cinema,ClassNeg,Velvia}/<same name>"
    licence: ClassVar[str] = "not stated (the authors' repository, with the code, is under the MIT licence)"
    homepage: ClassVar[str] = "https://github.com/CXH-Research/FilmNet"

    def prepare(self) -> None:
        self.parts: list[tuple[Split, Path, dict[str, Path]]] = []
        for split in PUBLISHED:
            if self.find(self.root, split) is not None:
                looks = {look: self.require(self.root, split, look) for look in LOOKS}
                self.parts.append((split, self.require(self.root, split, "input"), looks))
        if not self.parts:
            raise self.error(self.root / "train", "missing, and so is test")

    def scan(self) -> Iterator[SourceRecord | Skipped]:
        for split, inputs, looks in self.parts:
            photos, odd = folders.by_key(inputs, folders.same)
            graded: dict[str, dict[str, Path]] = {}
            for look, folder in looks.items():
                graded[look], more = folders.by_key(folder, folders.same)
                odd += more
                odd += [(path, NO_INPUT) for key, path in graded[look].items() if key not in photos]
            yield from (self.skip(*entry) for entry in odd)
            for key, photo in photos.items():
                targets = {look: found[key] for look, found in graded.items() if key in found}
                if not targets:
                    yield self.skip(photo, NO_LOOK)
                    continue
                shared: dict[str, Any] = {"pair": f"{split}/{key}", "kind": "retouching"}
                yield self.record(photo, split, role="input", **shared)
                for look, folder in looks.items():
                    if look in targets:
                        labels = (f"look={LOOKS[look]}",)
                        yield self.record(targets[look], split, role="target", labels=labels, **shared)
                    else:
                        yield self.skip(folder / photo.name, NOT_GRADED)
