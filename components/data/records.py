"""The manifest: one typed row for every photo, stored as Parquet, with what was left out and why beside it.

Every later stage starts from a manifest and never from a directory listing.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pandas
import pyarrow
import pyarrow.parquet
from pydantic import Field

from components import files
from components.data.splits import Split
from components.strict import Strict

MANIFEST_FILE = "manifest.parquet"
QUARANTINE_FILE = "quarantine.jsonl"
_REVISION_KEY = b"smartphotocrafter.data_revision"


class PhotoRecord(Strict):
    """One usable photo of a data set."""

    id: str = Field(description="dataset/path, unique in the manifest and stable across machines.")
    path: str = Field(description="Path relative to the photo directory, with forward slashes.")
    sha256: str = Field(pattern="^[0-9a-f]{64}$", description="Of the file's bytes.")
    perceptual_hash: str = Field(pattern="^[0-9a-f]{16}$", description="64-bit pHash of the upright picture.")
    width: int = Field(ge=1, description="Pixels, upright.")
    height: int = Field(ge=1, description="Pixels, upright.")
    bit_depth: int = Field(description="Bits a sample in the file: 8 or 16.")
    mode: str = Field(description="Pillow's mode of the file: RGB, L, CMYK, ...")
    dataset: str
    split: Split
    mos: float | None = Field(default=None, description="Mean opinion score, 0 (worst) to 100, if people rated it.")
    labels: tuple[str, ...] = Field(default=(), description="Distortions known to be in the photo, operation names.")
    licence: str | None = Field(description="As attributed; None only for a photo that fails validation.")
    author: str | None = None
    source: str | None = None


class Quarantined(Strict):
    """A file that was found, or expected, and not used."""

    path: str
    reason: str


SCHEMA = pyarrow.schema(
    [
        pyarrow.field("id", pyarrow.string(), nullable=False),
        pyarrow.field("path", pyarrow.string(), nullable=False),
        pyarrow.field("sha256", pyarrow.string(), nullable=False),
        pyarrow.field("perceptual_hash", pyarrow.string(), nullable=False),
        pyarrow.field("width", pyarrow.int32(), nullable=False),
        pyarrow.field("height", pyarrow.int32(), nullable=False),
        pyarrow.field("bit_depth", pyarrow.int32(), nullable=False),
        pyarrow.field("mode", pyarrow.string(), nullable=False),
        pyarrow.field("dataset", pyarrow.string(), nullable=False),
        pyarrow.field("split", pyarrow.string(), nullable=False),
        pyarrow.field("mos", pyarrow.float64()),
        pyarrow.field("labels", pyarrow.list_(pyarrow.string()), nullable=False),
        pyarrow.field("licence", pyarrow.string()),
        pyarrow.field("author", pyarrow.string()),
        pyarrow.field("source", pyarrow.string()),
    ]
)


@dataclass(frozen=True)
class Manifest:
    """All photos of a data version as one Arrow table in `SCHEMA`, and the files that were quarantined.

    Attributes:
        table: one row a photo.
        data_revision: the DVC hash of the data directory the photos came from, or None when it is not under DVC.
        quarantine: files left out, with the reason.
    """

    table: pyarrow.Table
    data_revision: str | None = None
    quarantine: tuple[Quarantined, ...] = ()

    @classmethod
    def of(
        cls,
        records: Iterable[PhotoRecord],
        data_revision: str | None = None,
        quarantine: Iterable[Quarantined] = (),
    ) -> "Manifest":
        """Build a manifest from records in the given order."""
        table = pyarrow.Table.from_pylist([record.model_dump() for record in records], schema=SCHEMA)
        return cls(table, data_revision, tuple(quarantine))

    def __len__(self) -> int:
        return self.table.num_rows

    def __iter__(self) -> Iterator[PhotoRecord]:
        for batch in self.table.to_batches(max_chunksize=1024):
            for row in batch.to_pylist():
                yield PhotoRecord(**row)

    def frame(self) -> pandas.DataFrame:
        """The table as a pandas frame, for validation and statistics."""
        return self.table.to_pandas()


def write_manifest(manifest: Manifest, directory: Path) -> None:
    """Write `manifest.parquet` and `quarantine.jsonl` into ``directory``, each whole or not at all."""
    directory = Path(directory)
    lines = "".join(entry.model_dump_json() + "\n" for entry in manifest.quarantine)
    files.write_text(directory / QUARANTINE_FILE, lines)
    metadata = {_REVISION_KEY: manifest.data_revision.encode()} if manifest.data_revision else None
    with files.replacing(directory / MANIFEST_FILE) as temporary:
        pyarrow.parquet.write_table(manifest.table.replace_schema_metadata(metadata), temporary, compression="zstd")


def read_manifest(directory: Path) -> Manifest:
    """Read what `write_manifest` wrote.

    Raises:
        FileNotFoundError: the directory holds no manifest.
        ValueError: the file has another schema; the message names the columns that differ.
    """
    directory = Path(directory)
    path = directory / MANIFEST_FILE
    if not path.is_file():
        raise FileNotFoundError(f"{path}: expected a manifest; run the ingest stage first")
    table = pyarrow.parquet.read_table(path)
    if not table.schema.equals(SCHEMA):
        odd = {str(field) for field in table.schema} ^ {str(field) for field in SCHEMA}
        raise ValueError(f"{path}: not a manifest of this version, columns differ: {', '.join(sorted(odd))}; re-ingest")
    revision = (table.schema.metadata or {}).get(_REVISION_KEY)
    quarantine_path = directory / QUARANTINE_FILE
    lines = quarantine_path.read_text("utf-8").splitlines() if quarantine_path.is_file() else []
    return Manifest(
        table=table,
        data_revision=revision.decode() if revision else None,
        quarantine=tuple(Quarantined(**json.loads(line)) for line in lines),
    )
