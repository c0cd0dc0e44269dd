"""Pairs: an input picture, the target it should become, and the record from which both can be rebuilt bit for bit.

Pairs lie in shards (`components.data.shards`): `<key>.input.png`, `<key>.target.png` and the record as `<key>.json`.
`PairReader` gives any pair by its number, `stream_pairs` all of them in a shuffled order; both read from local disk or
a bucket without unpacking.
"""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import Field
from torch import Tensor

from components.data import shards
from components.data.alignment import Alignment, size_of
from components.data.crops import Crop, reduce, take_crop
from components.data.facts import sha256_of
from components.data.records import PhotoRecord
from components.data.shards import Sample, ShardSet
from components.data.splits import Split
from components.data.streaming import ShardStream
from components.imaging.photo import from_png_bytes, read_photo, to_png_bytes
from components.imaging.png import encode_png
from components.photometry import fused
from components.photometry.operations import Operation
from components.photometry.samples import apply_to_samples
from components.strict import Strict

PairKind = Literal["retouching", "restoration", "multi_edit", "depth_of_field", "enhancement", "look"]
KINDS: tuple[PairKind, ...] = get_args(PairKind)
ADDED: tuple[PairKind, ...] = ("depth_of_field", "look")
"""Kinds whose operations make the target from the input; those of the others make the input from the target."""
_INPUT, _TARGET, _RECORD = "input.png", "target.png", "json"
_COUNTED_BY = ("split", "kind")
_COLUMNS = (*_COUNTED_BY, "id", "photo_id")


class Pair(Strict):
    """One training or test pair.

    The input is ``operations`` applied to the target, except for the kinds in `ADDED`, where the target is
    ``operations`` applied to the input. A pair that was published as two photos has the other photo as ``input_path``:
    its input is ``operations`` applied to that. Both are stored as 8-bit PNG of the same size.
    """

    id: str
    photo_id: str
    photo_path: str = Field(description="Of the source photo, relative to the photo directory.")
    photo_sha256: str
    split: Split
    kind: PairKind
    view: Crop
    operations: tuple[Operation, ...]
    instruction: str = Field(description="The edit to be done, in words.")
    input_path: str | None = Field(default=None, description="Of the photo of the input, if it is another one.")
    input_sha256: str | None = None
    alignment: Alignment | None = Field(
        default=None, description="Where the target lies in the photo of the input, if that is of another size."
    )
    scene: tuple[Operation, ...] = Field(
        default=(), description="What is put into both pictures, after the operations of a kind in ADDED."
    )
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
    view: Crop,
    operations: Sequence[Operation],
    instruction: str,
    scene: Sequence[Operation] = (),
    before: tuple[PhotoRecord, Tensor] | None = None,
    alignment: Alignment | None = None,
    assets: Path | None = None,
) -> Pair:
    """Make a pair from a photo, or from two.

    Args:
        record: of the photo; of the target's, if there are two.
        pixels: (3, H, W) of the whole photo, or `components.data.crops.reduce` of it.
        index: of the pair among those of its kind and photo; part of the id.
        scene: operations that put something into both pictures.
        before: record and pixels of the input's photo, if it is another one, in the frame of the target's.
        alignment: by which they were laid there, for the record.
        assets: folder of the files that operations name.
    """
    input_png, target_png = _pictures(pixels, kind, view, operations, scene, before and before[1], assets)
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
        input_path=before[0].path if before else None,
        input_sha256=before[0].sha256 if before else None,
        alignment=alignment,
        scene=tuple(scene),
        input_png=input_png,
        target_png=target_png,
    )


def rebuild_pair(pair: Pair, photos_dir: Path, assets: Path | None = None) -> Pair:
    """Make the pictures of a pair again from the source photos and the record; the result equals ``pair``.

    Raises:
        FileNotFoundError: a photo or an asset is gone. UnreadablePhoto: it does not decode.
        ValueError: it is not the file that the pair was made from.
    """
    pixels = _read(Path(photos_dir) / pair.photo_path, pair.photo_sha256)
    before = _read(Path(photos_dir) / pair.input_path, pair.input_sha256) if pair.input_path else None
    if before is not None and pair.alignment is not None:
        before = pair.alignment.lay(before, size_of(reduce(pixels, pair.view.short_side)))
    pictures = _pictures(pixels, pair.kind, pair.view, pair.operations, pair.scene, before, assets)
    return pair.model_copy(update=dict(zip(("input_png", "target_png"), pictures, strict=True)))


def _read(path: Path, sha256: str | None) -> Tensor:
    found = sha256_of(path)
    if found != sha256:
        raise ValueError(f"{path}: expected the file with SHA-256 {sha256}, found {found}; check out its data")
    return read_photo(path).pixels


def _pictures(
    pixels: Tensor,
    kind: PairKind,
    view: Crop,
    operations: Sequence[Operation],
    scene: Sequence[Operation],
    before: Tensor | None,
    assets: Path | None,
) -> tuple[bytes, bytes]:
    """Input and target as PNG."""

    def done(picture: Tensor, *runs: Sequence[Operation]) -> bytes:
        made = apply_to_samples(fused.to_samples(picture), [one for run in runs for one in run], assets)
        return encode_png(made, fast=True)

    taken = take_crop(pixels, view)
    if before is not None:
        return done(take_crop(before, view), operations), to_png_bytes(taken)
    if kind in ADDED:
        return done(taken, scene), done(taken, operations, scene)
    return done(taken, scene, operations), done(taken, scene)


def write_shard(path: Path, batches: Iterable[Sequence[Pair]], key: str) -> None:
    """Write pairs to one shard, whole or not at all; ``key`` is stored in it and names what it was made from."""
    shards.write_shard(path, (_sample(pair) for pairs in batches for pair in pairs), key)


def shard_key(path: Path) -> str | None:
    """The key of a complete shard, or None when there is no such file or it is not a complete shard."""
    return shards.shard_origin(path)


def write_index(directory: Path, names: Sequence[str]) -> dict[str, int]:
    """Write the index that makes a directory of shards complete; returns pairs counted by "split/kind"."""
    index = shards.write_index(directory, names, _COLUMNS, _INPUT)
    columns = (index[name].to_pylist() for name in _COUNTED_BY)
    counts = Counter("/".join(values) for values in zip(*columns, strict=True))
    return dict(sorted(counts.items()))


class PairReader:
    """The pairs of a directory, by index or in order; only the pairs that are asked for are read.

    Args:
        directory: as `components.data.synthesis.synthesize` writes; a local path or a URL such as s3://bucket/pairs.
        split: only pairs of this split; None for all.
        kinds: only pairs of these kinds; None for all.
        storage: options for the file system of a URL, see `components.data.shards.ShardSet`.

    Raises:
        FileNotFoundError: the directory is not a complete set of pairs.
        ValueError: an unknown kind or split.
    """

    def __init__(
        self,
        directory: str | Path,
        split: Split | None = None,
        kinds: Collection[PairKind] | None = None,
        storage: Mapping[str, Any] | None = None,
    ) -> None:
        self.directory = directory
        self.shards = _select(directory, split, kinds, storage)

    def __len__(self) -> int:
        return len(self.shards)

    def __getitem__(self, index: int) -> Pair:
        return _pair(self.shards[index])

    def column(self, name: str) -> list[Any]:
        """What the index says of every pair: split, kind, id, photo_id, and height and width of its pictures.

        Raises:
            ValueError: the index is of an earlier version and lacks it.
        """
        return self.shards.column(name)

    def __iter__(self) -> Iterator[Pair]:
        return (self[index] for index in range(len(self)))


def stream_pairs(
    directory: str | Path,
    split: Split | None = None,
    kinds: Collection[PairKind] | None = None,
    storage: Mapping[str, Any] | None = None,
    **options: Any,
) -> ShardStream[Pair]:
    """The pairs of a directory as a stream that is shuffled, split over ranks and workers, and resumed exactly.

    Args:
        directory, split, kinds, storage: as for `PairReader`, with the same errors.
        options: seed, shuffle, window, rank and ranks of `components.data.streaming.ShardStream`.
    """
    return ShardStream(_select(directory, split, kinds, storage), _pair, **options)


def _select(
    directory: str | Path,
    split: Split | None,
    kinds: Collection[PairKind] | None,
    storage: Mapping[str, Any] | None,
) -> ShardSet:
    unknown = sorted(set(kinds or ()) - set(KINDS))
    if unknown:
        raise ValueError(f"unknown kinds of pairs: {', '.join(unknown)}; expected some of {', '.join(KINDS)}")
    if split is not None and split not in get_args(Split):
        raise ValueError(f"unknown split {split!r}; expected one of {', '.join(get_args(Split))}")
    where = ({} if split is None else {"split": [split]}) | ({} if kinds is None else {"kind": sorted(kinds)})
    try:
        return ShardSet(directory, where, storage)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{error}; run the synthesize stage") from error


def _sample(pair: Pair) -> tuple[str, Sample]:
    """Key and members of a pair. The key is its id without the characters that WebDataset reads as separators."""
    digest = hashlib.sha256(pair.id.encode()).hexdigest()[:8]
    record = pair.model_dump(mode="json", exclude={"input_png", "target_png"})
    members = {
        _INPUT: pair.input_png,
        _TARGET: pair.target_png,
        _RECORD: json.dumps(record, ensure_ascii=False).encode(),
    }
    return f"{re.sub(r'[^A-Za-z0-9_-]+', '_', pair.id)}-{digest}", members


def _pair(sample: Sample) -> Pair:
    record = json.loads(sample[_RECORD])
    record["view"] = Crop(**record["view"])
    if record.get("alignment") is not None:
        record["alignment"] = Alignment(**record["alignment"])
    for name in ("operations", "scene"):
        record[name] = tuple(Operation(**operation) for operation in record[name])
    return Pair(**record, input_png=sample[_INPUT], target_png=sample[_TARGET])
