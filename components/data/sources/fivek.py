"""MIT-Adobe FiveK: 5,000 raw photos, each retouched by five experts (Bychkovsky et al. 2011, CVPR).

Originals are DNG files and 16-bit TIFFs in ProPhoto RGB. Their ICC profile is what turns them into sRGB on reading, so
a TIFF without one is skipped: ProPhoto values taken as sRGB would be pale and wrong. The common repack holds small sRGB
JPEGs of the inputs and of expert C.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar, Literal

import tifffile
from pydantic import Field

from components.data.sources import folders
from components.data.sources.base import MISSING, Skipped, Source, SourceRecord
from components.data.splits import Split
from components.imaging.formats import RAW_SUFFIXES
from components.imaging.photo import UnreadablePhoto
from components.imaging.source import decoding
from components.strict import Strict

Expert = Literal["a", "b", "c", "d", "e"]
NO_EXPERT = "retouched by none of the experts"
NO_PROFILE = "no ICC profile: ProPhoto values would be read as sRGB"
_ATTRIBUTES = ("location", "time", "light", "subject")
_UNKNOWN = ("none", "unknown")
_LICENCES = {
    "filesAdobe.txt": "Adobe FiveK research licence (LicenseAdobe.txt)",
    "filesAdobeMIT.txt": "Adobe and MIT FiveK research licence (LicenseAdobeMIT.txt)",
}


class Fivek(Source):
    """Photos as shot (input) with experts' versions (targets, labelled "expert=c"), under one pair.

    The originals have no published split. The experts' converter and the one here may develop a few pixels more or
    less: the ingest lays such versions over each other by their content.
    """

    class Settings(Strict):
        version: Literal["originals", "480p"] | None = Field(default=None, description="None: the one that is there.")
        experts: tuple[Expert, ...] | None = Field(default=None, description="Of the originals; None: all there.")

    name: ClassVar[str] = "fivek"
    layout: ClassVar[str] = (
        "originals: raw_photos/HQa*to*/photos/*.dng, tiff16_{a,b,c,d,e}/<same name>.tif, categories.txt (name, "
        "location, time, light, subject); repack: input/JPG/480p/<name>.jpg, expertC/JPG/480p/<name>.jpg, "
        "train_input.txt and train_label.txt, or train.txt (AdaInt), test.txt"
    )
    licence: ClassVar[str] = "MIT-Adobe FiveK research licences (LicenseAdobe.txt, LicenseAdobeMIT.txt)"
    homepage: ClassVar[str] = "https://data.csail.mit.edu/graphics/fivek/"

    def prepare(self) -> None:
        self.base = self.below("fivek_dataset")
        places = {
            "originals": self.find(self.base, "raw_photos"),
            "480p": self.find(self.root, "input", "JPG", "480p"),
        }
        there = [version for version, place in places.items() if place is not None]
        version = self.settings.version or (there[0] if len(there) == 1 else None)
        if version is None:
            problem = "both the originals and the repack are here: set version" if there else "no raw_photos, no input"
            raise self.error(self.root, problem, begins_here=bool(there))
        self.version = version
        if version == "originals":
            self._prepare_originals()
        else:
            self._prepare_repack()

    def scan(self) -> Iterator[SourceRecord | Skipped]:
        return self._originals() if self.version == "originals" else self._repack()

    # ------------------------------------------------------------------------------------ originals

    def _prepare_originals(self) -> None:
        self.raws = self.require(self.base, "raw_photos")
        places = {expert: self._expert_folder(expert) for expert in self.settings.experts or "abcde"}
        if absent := [expert for expert in self.settings.experts or () if places[expert] is None]:
            raise self.error(self.root / f"tiff16_{absent[0]}", "missing")
        self.experts = {expert: folder for expert, folder in places.items() if folder is not None}
        if not self.experts:
            raise self.error(self.root / "tiff16_c", "missing, and so are all other experts")
        self.categories = self._read_categories(self.require(self.base, "categories.txt"))
        self.licences = self._read_licences()

    def _originals(self) -> Iterator[SourceRecord | Skipped]:
        for group in folders.subfolders(self.raws):
            inner = self.find(group, "photos")
            if inner is None or not group.name.lower().startswith("hqa"):
                yield self.skip(group, "not a folder like HQa1to700/photos")
                continue
            for entry in folders.photos(inner, RAW_SUFFIXES):
                if isinstance(entry, tuple):
                    yield self.skip(*entry)
                else:
                    yield from self._retouched(entry)

    def _retouched(self, raw: Path) -> Iterator[SourceRecord | Skipped]:
        targets: dict[str, Path] = {}
        for expert, folder in self.experts.items():
            target = self.photo(folder, f"{raw.stem}.tif") or self.photo(folder, f"{raw.stem}.tiff")
            if target is None:
                yield self.skip(folder / f"{raw.stem}.tif", MISSING)
            elif not _has_profile(target):
                yield self.skip(target, NO_PROFILE)
            else:
                targets[expert] = target
        if not targets:
            yield self.skip(raw, NO_EXPERT)
            return
        shared = {
            "pair": raw.stem,
            "kind": "enhancement",
            "licence": self.licences.get(raw.stem, self.licence),
        }
        scene = self.categories.get(raw.stem, ())
        yield self.record(raw, None, role="input", labels=("as_shot", *scene), **shared)
        for expert, target in targets.items():
            yield self.record(target, None, role="target", labels=(f"expert={expert}", *scene), **shared)

    def _expert_folder(self, expert: str) -> Path | None:
        name = f"tiff16_{expert}"
        return self.find(self.root, name) or self.find(self.base, name)

    def _read_categories(self, path: Path) -> dict[str, tuple[str, ...]]:
        """Labels by name of the photo; attributes that nobody could tell are left out."""
        found = {}
        for line, text in self.lines(path):
            values = [value.strip() for value in text.split(",")]
            if len(values) != 1 + len(_ATTRIBUTES):
                raise self.error(path, f"line {line}: expected name,{','.join(_ATTRIBUTES)}, found {text!r}")
            pairs = zip(_ATTRIBUTES, values[1:], strict=True)
            found[values[0]] = tuple(f"{key}={value}" for key, value in pairs if value.lower() not in _UNKNOWN)
        return found

    def _read_licences(self) -> dict[str, str]:
        """Licence by name of the photo, from the two lists in the originals' archive; copies may lack them."""
        found: dict[str, str] = {}
        for name, licence in _LICENCES.items():
            path = self.find(self.base, name) or self.find(self.base, "legal", name)
            if path is not None:
                found |= dict.fromkeys((name for _, name in self.lines(path)), licence)
        return found

    # ------------------------------------------------------------------------------------ repack

    def _prepare_repack(self) -> None:
        self.inputs = self.require(self.root, "input", "JPG", "480p")
        self.targets = self.require(self.root, "expertC", "JPG", "480p")
        whole = self.find(self.root, "train.txt")
        halves = [] if whole else [self.require(self.root, f"train_{half}.txt") for half in ("input", "label")]
        self.lists: list[tuple[Split, Path]] = [
            *(("train", path) for path in ([whole] if whole else halves)),
            ("test", self.require(self.root, "test.txt")),
        ]

    def _repack(self) -> Iterator[SourceRecord | Skipped]:
        seen: dict[str, str] = {}  # 5,000 names
        for split, path in self.lists:
            for _, text in self.lines(path):
                name = text.removesuffix(".jpg")
                if seen.setdefault(name, split) != split:
                    raise self.error(path, f"{name} is listed as {seen[name]} and as {split}")
                yield from self._listed(name, split)

    def _listed(self, name: str, split: Split) -> Iterator[SourceRecord | Skipped]:
        photo, target = self.photo(self.inputs, f"{name}.jpg"), self.photo(self.targets, f"{name}.jpg")
        if photo is None or target is None:
            yield self.skip((self.inputs if photo is None else self.targets) / f"{name}.jpg", MISSING)
            return
        labels, target_labels = ("as_shot",), ("expert=c",)
        yield from self.paired(
            name, photo, target, split, kind="enhancement", labels=labels, target_labels=target_labels
        )


def _has_profile(path: Path) -> bool:
    """Whether the first page of a TIFF carries an ICC profile; a damaged file has none."""
    try:
        with decoding(path) as source, source.open() as file, tifffile.TiffFile(file) as tiff:
            return bool(tiff.pages[0].iccprofile)
    except UnreadablePhoto:
        return False
