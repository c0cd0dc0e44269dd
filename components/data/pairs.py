"""Pairs: an input picture, the target it should become, and the record from which both can be rebuilt bit for bit.

Pairs lie in Arrow files ("shards"), which are read through the page cache without unpacking: any pair is found by its
index, and a directory larger than memory costs no memory.
"""

import json
from bisect import bisect_right
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Literal, get_args

import pyarrow
from pydantic import Field
from torch import Tensor

from components import files
from components.data.ingest import sha256_of
from components.data.records import PhotoRecord
from components.data.splits import Split
from components.data.views import View, take_view
from components.images import from_png_bytes, quantize, read_photo, to_png_bytes
from components.photometry.operations import Operation, apply_operations
from components.strict import Strict

PairKind = Literal["retouching", "restoration", "multi_edit", "depth_of_field", "enhancement"]
KINDS: tuple[PairKind, ...] = get_args(PairKind)
INDEX_FILE = "pairs.json"
SHARD_KEY = b"smartphotocrafter.key"

SCHEMA = pyarrow.schema(
    [
        pyarrow.field("id", pyarrow.string(), nullable=False),
        pyarrow.field("photo_id", pyarrow.string(), nullable=False),
        pyarrow.field("photo_path", pyarrow.string(), nullable=False),
        pyarrow.field("photo_sha256", pyarrow.string(), nullable=False),
        pyarrow.field("split", pyarrow.string(), nullable=False),
        pyarrow.field("kind", pyarrow.string(), nullable=False),
        pyarrow.field("view", pyarrow.string(), nullable=False),
        pyarrow.field("operations", pyarrow.string(), nullable=False),
        pyarrow.field("instruction", pyarrow.string(), nullable=False),
        pyarrow.field("input_png", pyarrow.binary(), nullable=False),
        pyarrow.field("target_png", pyarrow.binary(), nullable=False),
    ]
)


class Pair(Strict):
    """One training or test pair.

    The input is ``operations`` applied to the target, except for "depth_of_field", where the target is ``operations``
    applied to the input. Both are stored as 8-bit PNG of the same size.
    """

    id: str
    photo_id: str
    photo_path: str = Field(description="Of the source photo, relative to the photo directory.")
    photo_sha256: str
    split: Split
    kind: PairKind
    view: View
    operations: tuple[Operation, ...]
    instruction: str = Field(description="The edit to be done, in words.")
    input_png: bytes = Field(repr=False)
    target_png: bytes = Field(repr=False)

    def input(self) -> Tensor:
        """The input picture, (3, H, W) in [0, 1]."""
        return from_png_bytes(self.input_png)

    def target(self) -> Tensor:
        """The target picture, (3, H, W) in [0, 1]."""
        return from_png_bytes(self.target_png)


def make_pair(
    record: PhotoRecord,
    pixels: Tensor,
    *,
    index: int,
    kind: PairKind,
    view: View,
    operations: Sequence[Operation],
    instruction: str,
) -> Pair:
    """Make a pair from a photo.

    Args:
        record: of the photo.
        pixels: (3, H, W) of the whole photo, or `components.data.views.reduce` of it.
        index: of the pair among those of its kind and photo; part of the id.
    """
    input_png, target_png = _pictures(pixels, kind, view, operations)
    return Pair(
        id=f"{record.id}#{kind}-{index:02d}",
        photo_id=record.id,
        photo_path=record.path,
        photo_sha256=record.sha256,
        split=record.split,
        kind=kind,
        view=view,
        operations=tuple(operations),
        instruction=instruction,
        input_png=input_png,
        target_png=target_png,
    )


def rebuild_pair(pair: Pair, photos_dir: Path) -> Pair:
    """Make the pictures of a pair again from the source photo and the record; the result equals ``pair``.

    Raises:
        FileNotFoundError: the photo is gone. UnreadablePhoto: it does not decode.
        ValueError: it is not the file that the pair was made from.
    """
    path = Path(photos_dir) / pair.photo_path
    found = sha256_of(path)
    if found != pair.photo_sha256:
        raise ValueError(
            f"{path}: expected the file with SHA-256 {pair.photo_sha256}, found {found}; check out its data"
        )
    input_png, target_png = _pictures(read_photo(path).pixels, pair.kind, pair.view, pair.operations)
    return pair.model_copy(update={"input_png": input_png, "target_png": target_png})


def _pictures(pixels: Tensor, kind: PairKind, view: View, operations: Sequence[Operation]) -> tuple[bytes, bytes]:
    """Input and target as PNG."""
    intact = take_view(pixels, view)
    edited = to_png_bytes(quantize(apply_operations(intact, operations)))
    plain = to_png_bytes(intact)
    return (plain, edited) if kind == "depth_of_field" else (edited, plain)


def write_shard(path: Path, batches: Iterable[Sequence[Pair]], key: str) -> None:
    """Write pairs to one Arrow file, whole or not at all; ``key`` is stored in it and names what it was made from."""
    schema = SCHEMA.with_metadata({SHARD_KEY: key.encode()})
    with files.replacing(path) as temporary, pyarrow.ipc.new_file(str(temporary), schema) as writer:
        for pairs in batches:
            rows = [{name: _stored(pair, name) for name in SCHEMA.names} for pair in pairs]
            writer.write_batch(pyarrow.RecordBatch.from_pylist(rows, schema=schema))


def shard_key(path: Path) -> str | None:
    """The key of a complete shard, or None when there is no such file or it is not a complete shard."""
    try:
        with pyarrow.memory_map(str(path)) as source, pyarrow.ipc.open_file(source) as reader:
            return (reader.schema.metadata or {}).get(SHARD_KEY, b"").decode() or None
    except (FileNotFoundError, pyarrow.ArrowInvalid):
        return None


def write_index(directory: Path, shards: Sequence[str]) -> dict[str, int]:
    """Write the index that makes a directory of shards complete; returns pairs counted by "split/kind"."""
    counts: Counter[str] = Counter()
    for shard in shards:
        with pyarrow.memory_map(str(Path(directory) / shard)) as source:
            table = pyarrow.ipc.open_file(source).read_all()
            counts.update(
                f"{split}/{kind}"
                for split, kind in zip(table["split"].to_pylist(), table["kind"].to_pylist(), strict=True)
            )
    content = {"shards": list(shards), "counts": dict(sorted(counts.items()))}
    files.write_text(Path(directory) / INDEX_FILE, json.dumps(content, indent=2) + "\n")
    return content["counts"]


class PairReader:
    """The pairs of a directory, by index or in order; only the pairs that are asked for are read from disk.

    Args:
        directory: as `components.data.synthesis.synthesize` writes.
        split: only pairs of this split; None for all.
        kinds: only pairs of these kinds; None for all.

    Raises:
        FileNotFoundError: the directory is not a complete set of pairs.
        ValueError: an unknown kind or split.
    """

    def __init__(self, directory: Path, split: Split | None = None, kinds: Collection[PairKind] | None = None) -> None:
        self.directory = Path(directory)
        unknown = sorted(set(kinds or ()) - set(KINDS))
        if unknown:
            raise ValueError(f"unknown kinds of pairs: {', '.join(unknown)}; expected some of {', '.join(KINDS)}")
        if split is not None and split not in get_args(Split):
            raise ValueError(f"unknown split {split!r}; expected one of {', '.join(get_args(Split))}")
        index = self.directory / INDEX_FILE
        if not index.is_file():
            raise FileNotFoundError(f"{index}: expected a complete directory of pairs; run the synthesize stage")
        self._batches: list[pyarrow.RecordBatch] = []
        for shard in json.loads(index.read_text("utf-8"))["shards"]:
            reader = pyarrow.ipc.open_file(pyarrow.memory_map(str(self.directory / shard)))
            self._batches += [reader.get_batch(number) for number in range(reader.num_record_batches)]
        starts = [0, *accumulate(batch.num_rows for batch in self._batches)]
        self._starts = starts[:-1]
        self._rows = [
            start + row
            for start, batch in zip(self._starts, self._batches, strict=True)
            for row, (row_split, row_kind) in enumerate(
                zip(batch["split"].to_pylist(), batch["kind"].to_pylist(), strict=True)
            )
            if split in (None, row_split) and (kinds is None or row_kind in kinds)
        ]

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Pair:
        row = self._rows[index]
        number = bisect_right(self._starts, row) - 1
        (values,) = self._batches[number].slice(row - self._starts[number], 1).to_pylist()
        values["view"] = View.model_validate_json(values["view"])
        values["operations"] = tuple(Operation(**operation) for operation in json.loads(values["operations"]))
        return Pair(**values)

    def __iter__(self) -> Iterator[Pair]:
        return (self[index] for index in range(len(self)))


def _stored(pair: Pair, name: str) -> str | bytes:
    if name == "view":
        return pair.view.model_dump_json()
    if name == "operations":
        return json.dumps([operation.model_dump() for operation in pair.operations])
    return getattr(pair, name)
