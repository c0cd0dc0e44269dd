"""Shards of a manifest, so that its photos can be worked on in several places, and what was made of them put in order.

Which shard a photo belongs to is decided by a hash of its id, as splits are by its content: a photo that is added,
changed or removed touches one shard and leaves the bytes of all others alone.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import TypeVar

import pyarrow
import pyarrow.dataset
from pydantic import Field

from components.data.records import (
    MANIFEST_FILE,
    ROW_GROUP,
    SCHEMA,
    SHARED_FILE,
    Manifest,
    PhotoRecord,
    record_batches,
    write_rows,
)
from components.strict import Strict

Item = TypeVar("Item")
_NUMBER = pyarrow.field("shard", pyarrow.int32(), nullable=False)


class ScaleOutSettings(Strict):
    """Over how many steps of their own annotation and synthesis are spread."""

    shards: int = Field(default=1, ge=1, le=512, description="Parts of the photos, each with steps of its own.")


def shard_of(photo: str, shards: int) -> int:
    """The number of the shard, from 0, of a photo by its id, or of all versions of a photo by their pair's name."""
    return int.from_bytes(hashlib.sha256(photo.encode()).digest()[:8], "big") % shards


def partition(manifest: Manifest, out: Path, shards: int, shared: Sequence[PhotoRecord] = ()) -> dict[int, Path]:
    """Write each shard of a manifest as a manifest of its own, in the same order, to a folder below ``out``.

    Neither the revision of the data nor the quarantine is written, so that a shard changes only with its photos. The
    whole is read once, and a few thousand rows per shard are held in memory.

    Args:
        out: an empty directory.
        shards: how many; at most 512, as each is a file that is open meanwhile.
        shared: photos that those of every shard are worked on with (`components.data.synthesis.shared_photos`).

    Returns:
        the folders by number, in order; a shard without photos has none.
    """
    schema = SCHEMA.append(_NUMBER)
    rows = pyarrow.RecordBatchReader.from_batches(schema, _numbered(manifest, shards, schema))
    parquet = pyarrow.dataset.ParquetFileFormat()
    pyarrow.dataset.write_dataset(
        rows,
        out,
        basename_template="part-{i}.parquet",
        format=parquet,
        partitioning=pyarrow.dataset.partitioning(pyarrow.schema([_NUMBER])),
        file_options=parquet.make_write_options(compression="zstd"),
        preserve_order=True,
        min_rows_per_group=ROW_GROUP,  # by its own rows alone, wherever the batches of the whole begin
        max_rows_per_group=ROW_GROUP,
    )
    folders = {number: out / str(number) for number in range(shards) if (out / str(number)).is_dir()}
    for folder in folders.values():
        (folder / "part-0.parquet").rename(folder / MANIFEST_FILE)
        if shared:
            write_rows(folder / SHARED_FILE, record_batches(shared))
    return folders


def by_photo(
    records: Iterable[PhotoRecord], parts: Sequence[Iterable[Item]], photo_of: Callable[[Item], str]
) -> Iterator[list[Item]]:
    """What all parts hold of each photo, in the order of ``records``; nothing for a photo that none knows.

    One photo of each part is held in memory.

    Args:
        parts: each with the items of some of the photos, in the order of ``records``.
        photo_of: id of the photo of an item.

    Raises:
        ValueError: two parts hold items of one photo, or, after the last record, one is left with items of another
            photo.
    """
    groups = [groupby(part, photo_of) for part in parts]
    waiting: dict[str, tuple[list[Item], int]] = {}

    def advance(number: int) -> None:
        photo, items = next(groups[number], (None, ()))
        if photo in waiting:
            raise ValueError(f"{photo} is in more than one part: were they made of shards of one manifest?")
        if photo is not None:
            waiting[photo] = list(items), number

    for number in range(len(groups)):
        advance(number)
    for record in records:
        if record.id not in waiting:
            yield []
            continue
        items, number = waiting.pop(record.id)
        advance(number)
        yield items
    if waiting:
        raise ValueError(f"{min(waiting)} is not among the photos in this order: were all parts made of their shards?")


def _numbered(manifest: Manifest, shards: int, schema: pyarrow.Schema) -> Iterator[pyarrow.RecordBatch]:
    """The rows of a manifest with the number of their shard."""
    for batch in manifest.batches():
        names = (pair or photo for photo, pair in zip(batch["id"].to_pylist(), batch["pair"].to_pylist(), strict=True))
        numbers = pyarrow.array([shard_of(name, shards) for name in names], pyarrow.int32())
        yield pyarrow.RecordBatch.from_arrays([*batch.columns, numbers], schema=schema)
