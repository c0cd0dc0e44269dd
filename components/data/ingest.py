"""Ingestion: a folder of photos and its attribution, and any datasets beside it, become a manifest.

Every file that is found or announced ends up in one of two lists: the manifest, or the quarantine with a reason.
"""

import csv
import logging
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field, ValidationError, field_validator, model_validator

from components import files
from components.data.building import BuildSettings, build
from components.data.records import Manifest
from components.data.sources.base import Skipped, Source, SourceRecord, known_sources, open_source, source_class
from components.data.sources.folders import NOT_UTF8, SIDECAR, SIDECAR_SUFFIXES, composed, is_utf8, text_of
from components.data.sources.own_photos import OwnFolder
from components.strict import Strict

log = logging.getLogger(__name__)

_COLUMNS = ("file", "author", "licence", "source")


class DatasetSettings(Strict):
    """A public dataset, or a folder of one's own, to take in beside the sample photos."""

    name: str = Field(description="One of the adapters in components/data/sources.")
    root: Path = Field(description="Folder into which the original download was unpacked; ~ is the home folder.")
    options: dict[str, Any] = Field(default_factory=dict, description="The adapter's own settings.")

    @field_validator("name")
    @classmethod
    def _is_known(cls, name: str) -> str:
        if name not in known_sources():
            raise ValueError(f"unknown dataset {name!r}; expected one of {', '.join(known_sources())}")
        return name

    @field_validator("root", mode="after")
    @classmethod
    def _at_home(cls, root: Path) -> Path:
        return root.expanduser()

    @model_validator(mode="after")
    def _options_are_the_adapters(self) -> "DatasetSettings":
        try:
            source_class(self.name).Settings(**self.options)
        except ValidationError as error:
            wrong = (f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors(include_url=False))
            known = ", ".join(source_class(self.name).Settings.model_fields) or "none"
            raise ValueError(f"options of {self.name}: {'; '.join(wrong)} (there are: {known})") from None
        return self


class IngestSettings(BuildSettings):
    """What counts as a usable photo, and which datasets there are beside the sample photos."""

    sources: tuple[DatasetSettings, ...] = Field(default=(), description="Datasets to take in, in this order.")


class AttributedFolder(Source):
    """A folder of photos with a CSV that says whose they are; see `build_manifest` for both."""

    class Settings(Strict):
        attribution: Path
        dataset: str = "sample"

    name: ClassVar[str] = "sample"
    layout: ClassVar[str] = f"photos and a CSV with the columns {', '.join(_COLUMNS)} and optionally mos and labels"
    licence: ClassVar[str] = ""
    homepage: ClassVar[None] = None

    @property
    def dataset(self) -> str:
        return self.settings.dataset

    def prepare(self) -> None:
        """Read the attribution and list the folder."""
        own = self.settings.attribution.resolve()
        self.attributed = read_attribution(self.settings.attribution)
        self.found: list[str] = []
        self.odd: list[Path] = []
        for folder, names in files.tree(self.root, lambda name: name.startswith(".")):
            for path in (folder / entry.name for entry in names):
                if not is_utf8(path):
                    self.odd.append(path)
                elif path.name != own.name or path.resolve() != own:
                    self.found.append(self.relative(path))
        self.found.sort()

    def scan(self) -> Iterator[SourceRecord | Skipped]:
        """The files of the folder in order of their paths, then those that only the attribution knows."""
        yield from (self.skip(path, NOT_UTF8) for path in self.odd)
        known = {composed(file): row for file, row in self.attributed.items()}
        found = {composed(file) for file in self.found}
        for file in [*self.found, *sorted(file for file in self.attributed if composed(file) not in found)]:
            row = known.get(composed(file), {})
            if not row and Path(file).suffix.lower() in SIDECAR_SUFFIXES:
                yield self.skip(self.root / file, SIDECAR)
                continue
            yield self.record(
                self.root / file,
                None,
                licence=row.get("licence", ""),
                author=row.get("author") or None,
                source=row.get("source") or None,
                labels=tuple(label.strip() for label in row.get("labels", "").split(";") if label.strip()),
                **self._opinion(row.get("mos", ""), file),
            )

    def _opinion(self, text: str, file: str) -> dict[str, Any]:
        try:
            value = float(text) if text else None
        except ValueError:
            value = -1.0
        if value is None:
            return {}
        if not 0 <= value <= 100:
            raise ValueError(f"attribution of {file}: expected a mos from 0 to 100, found {text!r}")
        return self.score(value, 0.0, 100.0, self.settings.attribution, 0)


def open_sources(settings: IngestSettings, sample: str = "sample") -> list[Source]:
    """The adapters of all datasets that the settings name, each of which has found its folder; no photo is opened.

    Own folders of one name are named apart.

    Args:
        sample: the name of the dataset that they are taken in beside.

    Raises:
        SourceError: a folder does not hold its dataset. ValueError: two datasets were given one name.
    """
    named = [open_source(entry.name, entry.root, **entry.options) for entry in settings.sources]
    taken = {sample}
    for source in named:
        if isinstance(source, OwnFolder) and source.dataset in taken:
            source.name_apart(taken)
            log.info("%s: its photos are called %s, the folder's name is taken", source.named, source.dataset)
        taken.add(source.dataset)
    return named


def build_manifest(
    photos_dir: Path,
    attribution: Path,
    out: Path,
    settings: IngestSettings,
    dataset: str = "sample",
    data_revision: str | None = None,
    *,
    sources: Iterable[Source] = (),
    facts: Path | None = None,
) -> Manifest:
    """Read every file under ``photos_dir``, and those of further datasets, and write the manifest into ``out``.

    Args:
        photos_dir: folder of photos, searched recursively; hidden files and ``attribution`` itself are not photos.
        attribution: CSV with the columns file, author, licence, source and optionally mos (0 to 100, higher is
            better) and labels (operation names separated by ";"). ``file`` is relative to ``photos_dir``.
        settings: datasets named in them are taken in after the folder. Own folders of one name are named apart.
        dataset: name that the ids begin with.
        data_revision: recorded in the manifest; see `components.data.versioning.data_revision`.
        sources: adapters to take in after those of the settings.
        facts: file in which what was read of each photo is remembered between builds, see `components.data.building`.

    What is quarantined is listed at `components.data.building.build`; here it includes files without attribution and
    attributed files that do not exist.

    Raises:
        FileNotFoundError: ``photos_dir`` or ``attribution`` is missing.
        SourceError: a dataset is not laid out as published.
        ValueError: the attribution lacks a column, lists a file twice or has a malformed mos; or no photo is usable.
    """
    photos_dir, attribution = Path(photos_dir), Path(attribution)
    if not photos_dir.is_dir():
        raise FileNotFoundError(f"{photos_dir}: expected the folder of photos; run `dvc pull`")
    folder = AttributedFolder(photos_dir, AttributedFolder.Settings(attribution=attribution, dataset=dataset))
    named = open_sources(settings, folder.dataset)
    return build(
        [folder, *named, *sources], out, settings, photos_dir=photos_dir, facts=facts, data_revision=data_revision
    )


def read_attribution(path: Path) -> dict[str, dict[str, str]]:
    """Rows of an attribution CSV by their ``file`` column; see `build_manifest` for columns and errors."""
    with text_of(Path(path)) as file:
        reader = csv.DictReader(file)
        missing = [column for column in _COLUMNS if column not in (reader.fieldnames or ())]
        if missing:
            raise ValueError(f"{path}: expected the columns {', '.join(_COLUMNS)}; missing: {', '.join(missing)}")
        rows: dict[str, dict[str, str]] = {}
        for row in reader:
            if row["file"] in rows:
                raise ValueError(f"{path}: line {reader.line_num} lists {row['file']} a second time")
            rows[row["file"]] = {key: (value or "").strip() for key, value in row.items() if key}
    return rows
