"""The manifest: one typed row for every photo, stored as Parquet, with what was left out and why beside it.

Every later stage starts from a manifest and never from a directory listing. Rows are written and read in batches, so
neither needs memory for more than a few thousand of them.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import pandas
import pyarrow
import pyarrow.dataset
import pyarrow.parquet
from pydantic import Field

from components import files
from components.data.splits import Split
from components.photometry.operations import Operation
from components.strict import Strict

MANIFEST_FILE = "manifest.parquet"
QUARANTINE_FILE = "quarantine.jsonl"
SHARED_FILE = "shared.parquet"
_REVISION_KEY = b"smartphotocrafter.data_revision"
ROW_GROUP = 4096
"""Rows of a group in the Parquet files, and of a batch in memory."""


class PhotoRecord(Strict):
    """One usable photo of a data set."""

    id: str = Field(description="dataset/path, unique in the manifest and stable across machines.")
    path: str = Field(
        description="Relative to the photo directory, with forward slashes; absolute for a photo that lies elsewhere."
    )
    sha256: str = Field(pattern="^[0-9a-f]{64}$", description="Of the file's bytes.")
    perceptual_hash: str = Field(pattern="^[0-9a-f]{16}$", description="64-bit pHash of the upright picture.")
    width: int = Field(ge=1, description="Pixels, upright.")
    height: int = Field(ge=1, description="Pixels, upright.")
    bit_depth: int = Field(description="Bits a sample in the file: 8 or 16.")
    mode: str = Field(description="Pillow's mode of the file: RGB, L, CMYK, ...")
    dataset: str
    split: Split
    mos: float | None = Field(default=None, description="Mean opinion score, 0 (worst) to 100, if people rated it.")
    mos_original: float | None = Field(default=None, description="The score as published.")
    mos_low: float | None = Field(default=None, description="Lower end of the published scale.")
    mos_high: float | None = Field(default=None, description="Upper end of the published scale.")
    mos_ascending: bool | None = Field(default=None, description="Whether a higher published score is better.")
    labels: tuple[str, ...] = Field(default=(), description="Distortions known to be in the photo, operation names.")
    pair: str | None = Field(
        default=None, description="dataset/name that versions of one photo share: one input and its targets, or more."
    )
    role: str | None = Field(default=None, description='What this file is in its pair, such as "input" or "target".')
    kind: str | None = Field(default=None, description="The task that the pair or photo is for, as its dataset has it.")
    operations: tuple[str, ...] = Field(
        default=(),
        description="What was done to make this version, as JSON, in order: to the input, what spoilt it; to the "
        "target, what makes it from the input.",
    )
    licence: str | None = Field(description="As attributed; None only for a photo that fails validation.")
    author: str | None = None
    source: str | None = None


def recorded_operations(record: PhotoRecord) -> tuple[Operation, ...]:
    """The operations of a row; see `PhotoRecord.operations`."""
    return tuple(Operation.model_validate_json(text) for text in record.operations)


class Quarantined(Strict):
    """A file that was found, or expected, and not used."""

    path: str
    reason: str
    unread: bool = Field(default=False, description="The system could not read it: of the file that says nothing.")
    absent: bool = Field(default=False, description="The dataset lists it and it is not there, as of a partial copy.")


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
        pyarrow.field("mos_original", pyarrow.float64()),
        pyarrow.field("mos_low", pyarrow.float64()),
        pyarrow.field("mos_high", pyarrow.float64()),
        pyarrow.field("mos_ascending", pyarrow.bool_()),
        pyarrow.field("labels", pyarrow.list_(pyarrow.string()), nullable=False),
        pyarrow.field("pair", pyarrow.string()),
        pyarrow.field("role", pyarrow.string()),
        pyarrow.field("kind", pyarrow.string()),
        pyarrow.field("operations", pyarrow.list_(pyarrow.string()), nullable=False),
        pyarrow.field("licence", pyarrow.string()),
        pyarrow.field("author", pyarrow.string()),
        pyarrow.field("source", pyarrow.string()),
    ]
)


@dataclass(frozen=True)
class Manifest:
    """All photos of a data version, and the files that were quarantined.

    Attributes:
        rows: one row per photo in `SCHEMA`; of a written manifest they stay on disk until they are asked for.
        data_revision: the DVC hash of the data directory the photos came from, or None when it is not under DVC.
        quarantine: files left out, with the reason.
        shared: of a shard (`components.data.partition`), the photos of the whole manifest that its pairs may be made
            with, in order; some may be among its rows.
    """

    rows: pyarrow.dataset.Dataset
    data_revision: str | None = None
    quarantine: tuple[Quarantined, ...] = ()
    shared: tuple[PhotoRecord, ...] = ()

    @classmethod
    def of(
        cls,
        records: Iterable[PhotoRecord],
        data_revision: str | None = None,
        quarantine: Iterable[Quarantined] = (),
    ) -> "Manifest":
        """Build a manifest in memory from records in the given order."""
        table = pyarrow.Table.from_batches(record_batches(records), schema=SCHEMA)
        return cls(pyarrow.dataset.dataset(table), data_revision, tuple(quarantine))

    def __len__(self) -> int:
        return self.rows.count_rows()

    def __iter__(self) -> Iterator[PhotoRecord]:
        return _records(self.batches())

    def batches(self, columns: Sequence[str] | None = None) -> Iterator[pyarrow.RecordBatch]:
        """The rows in order, some thousand at a time; only ``columns`` if they are named."""
        names = None if columns is None else list(columns)
        yield from self.rows.to_batches(columns=names, batch_size=ROW_GROUP, batch_readahead=2, fragment_readahead=1)

    def frame(self, columns: Sequence[str] | None = None) -> pandas.DataFrame:
        """The rows as a pandas frame, for validation and statistics; name ``columns`` to hold no others in memory."""
        return pyarrow.Table.from_batches(self.batches(columns), schema=_schema_of(columns)).to_pandas()


def _records(batches: Iterable[pyarrow.RecordBatch]) -> Iterator[PhotoRecord]:
    return (PhotoRecord(**row) for batch in batches for row in batch.to_pylist())


def record_batches(records: Iterable[PhotoRecord]) -> Iterator[pyarrow.RecordBatch]:
    """Records as Arrow batches of a row group each."""
    source = iter(records)
    while rows := [record.model_dump() for record in islice(source, ROW_GROUP)]:
        yield pyarrow.RecordBatch.from_pylist(rows, schema=SCHEMA)


def write_rows(path: Path, batches: Iterable[pyarrow.RecordBatch], data_revision: str | None = None) -> None:
    """Write batches in `SCHEMA` to one Parquet file, whole or not at all, holding one batch in memory."""
    metadata = {_REVISION_KEY: data_revision.encode()} if data_revision else None
    schema = SCHEMA.with_metadata(metadata)
    with (
        files.replacing(path) as temporary,
        pyarrow.parquet.ParquetWriter(temporary, schema, compression="zstd") as writer,
    ):
        for batch in batches:
            writer.write_batch(batch.replace_schema_metadata(metadata), row_group_size=ROW_GROUP)


def write_quarantine(quarantine: Iterable[Quarantined], directory: Path) -> None:
    """Write `quarantine.jsonl` into ``directory``, whole or not at all."""
    lines = "".join(entry.model_dump_json() + "\n" for entry in quarantine)
    files.write_text(Path(directory) / QUARANTINE_FILE, lines)


def write_manifest(manifest: Manifest, directory: Path) -> None:
    """Write `manifest.parquet` and `quarantine.jsonl` into ``directory``, each whole or not at all."""
    write_quarantine(manifest.quarantine, directory)
    write_rows(Path(directory) / MANIFEST_FILE, manifest.batches(), manifest.data_revision)


def read_manifest(directory: Path) -> Manifest:
    """Open what `write_manifest` wrote; the rows are read when they are asked for.

    Raises:
        FileNotFoundError: the directory holds no manifest.
        ValueError: the file has another schema; the message names the columns that differ.
    """
    directory = Path(directory)
    path = directory / MANIFEST_FILE
    if not path.is_file():
        raise FileNotFoundError(f"{path}: expected a manifest; run the ingest stage first")
    schema = pyarrow.parquet.read_schema(path)
    if not schema.equals(SCHEMA):
        odd = {str(field) for field in schema} ^ {str(field) for field in SCHEMA}
        raise ValueError(f"{path}: not a manifest of this version, columns differ: {', '.join(sorted(odd))}; re-ingest")
    revision = (schema.metadata or {}).get(_REVISION_KEY)
    quarantine_path = directory / QUARANTINE_FILE
    lines = quarantine_path.read_text("utf-8").splitlines() if quarantine_path.is_file() else []
    shared_path = directory / SHARED_FILE
    shared = pyarrow.parquet.read_table(shared_path, schema=SCHEMA).to_batches() if shared_path.is_file() else []
    return Manifest(
        rows=pyarrow.dataset.dataset(path, schema=SCHEMA, format="parquet"),
        data_revision=revision.decode() if revision else None,
        quarantine=tuple(Quarantined(**json.loads(line)) for line in lines),
        shared=tuple(_records(shared)),
    )


def _schema_of(columns: Sequence[str] | None) -> pyarrow.Schema:
    return SCHEMA if columns is None else pyarrow.schema([SCHEMA.field(name) for name in columns])
