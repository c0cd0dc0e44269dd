"""Annotated views and pairs at the paper's counts, or a share of them, built once and gone on with after a kill.

Sizes are those of production, a short side of 512 pixels; the pictures are those of a few sample photos again and again
under other ids. A full corpus takes about 220 GB, nearly all of it the pairs.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from tqdm import tqdm

from components import files
from components.annotation.offline import describe
from components.annotation.records import ANNOTATIONS_FILE, AnnotatedPhoto, faulty
from components.data import pairs
from components.data.crops import Crop, reduce, take_crop
from components.data.faults import sample_faults
from components.data.pairs import Pair, PairKind, make_pair
from components.data.prompts import instruction
from components.data.records import Manifest, PhotoRecord
from components.data.shards import INDEX_FILE
from components.data.splits import Split
from components.data.synthesis import sample_operations
from components.imaging.photo import read_photo
from components.seeding import generator_for
from components.verdict.grammar import render

VIEWS = 80_000
PAIRS: dict[PairKind, int] = {"restoration": 160_000, "multi_edit": 30_000, "enhancement": 18_000}
"""What the paper trains on."""
SHORT_SIDE = 512
_HELD_OUT = 10  # one sample in so many is of the validation split
_DISTINCT = 24  # of each kind
_SHARD = 500


@dataclass(frozen=True)
class Corpus:
    """Folders of annotations and of pairs, and how many samples each has."""

    annotations: Path
    pairs: Path
    views: int
    of_pairs: int


def build(folder: Path, share: float, manifest: Manifest, photos_dir: Path) -> Corpus:
    """Build what is missing of a share of the paper's counts.

    Args:
        manifest: of the sample photos; the annotations name their files in ``photos_dir``.
    """
    views = max(_HELD_OUT, round(share * VIEWS))
    counts = {kind: max(_HELD_OUT, round(share * count)) for kind, count in PAIRS.items()}
    _write_views(folder / "annotations", views, list(manifest), photos_dir)
    _write_pairs(folder / "pairs", counts, list(manifest), photos_dir)
    return Corpus(folder / "annotations", folder / "pairs", views, sum(counts.values()))


def _split(number: int) -> Split:
    return "train" if number % _HELD_OUT else "validation"


def _write_views(out: Path, count: int, records: list[PhotoRecord], photos_dir: Path) -> None:
    path = out / ANNOTATIONS_FILE
    if path.is_file():
        return
    made = list(_views(records, photos_dir))
    with files.replacing(path) as temporary, temporary.open("w", encoding="utf-8") as stream:
        for number in tqdm(range(count), desc="annotations", unit="view"):
            entry = made[number % len(made)]
            known = {"id": f"{entry.photo_id}#{number:06d}", "split": _split(number)}
            stream.write(entry.model_copy(update=known).model_dump_json() + "\n")


def _views(records: list[PhotoRecord], photos_dir: Path) -> Iterator[AnnotatedPhoto]:
    for number in range(_DISTINCT):
        record = records[number % len(records)]
        generator = generator_for(0, "scale", "view", number)
        faults, view = sample_faults(generator), Crop(short_side=SHORT_SIDE)
        intact = take_crop(read_photo(photos_dir / record.path).pixels, view)
        verdict = describe(faulty(intact, faults), intact, faults)
        yield AnnotatedPhoto(
            id=record.id,
            photo_id=record.id,
            path=record.path,
            split=record.split,
            view=view,
            operations=faults,
            completion=render(verdict),
            score=verdict.score,
            annotator="offline",
        )


def _write_pairs(out: Path, counts: dict[PairKind, int], records: list[PhotoRecord], photos_dir: Path) -> None:
    if (out / INDEX_FILE).is_file():
        return
    names = []
    with tqdm(total=sum(counts.values()), desc="pairs", unit="pair") as progress:
        for kind, count in counts.items():
            made: list[Pair] = []
            for start in range(0, count, _SHARD):
                names.append(f"{kind}-{start // _SHARD:05d}.tar")
                numbers = range(start, min(start + _SHARD, count))
                key = f"{kind} {numbers}"
                if pairs.shard_key(out / names[-1]) != key:
                    made = made or list(_pairs(kind, records, photos_dir))
                    pairs.write_shard(out / names[-1], ([_renamed(made, kind, number)] for number in numbers), key)
                progress.update(len(numbers))
    pairs.write_index(out, names)


def _renamed(made: list[Pair], kind: PairKind, number: int) -> Pair:
    return made[number % len(made)].model_copy(update={"id": f"scale/{kind}-{number:06d}", "split": _split(number)})


def _pairs(kind: PairKind, records: list[PhotoRecord], photos_dir: Path) -> Iterator[Pair]:
    for number in range(_DISTINCT):
        record = records[number % len(records)]
        generator = generator_for(0, "scale", kind, number)
        operations, labels = sample_operations(kind, number, generator)
        yield make_pair(
            record,
            reduce(read_photo(photos_dir / record.path).pixels, SHORT_SIDE),
            index=number,
            kind=kind,
            view=Crop(short_side=SHORT_SIDE),
            operations=operations,
            instruction=instruction(kind, operations, generator, labels),
        )


def seeded_adapters(base: Path, out: Path) -> tuple[Path, Path]:
    """Adapters of both models that change little, for the stages that go on from some."""
    from components.models.artist import Artist
    from components.models.critic import Critic
    from components.models.lora import LoraSettings, adapter_tensors

    generator = torch.Generator().manual_seed(0)
    folders = out / "critic", out / "artist"
    for model, folder in zip((Critic.load(base / "critic"), Artist.load(base / "artist")), folders, strict=True):
        model.add_adapter(LoraSettings())
        for name, tensor in adapter_tensors(model.model if isinstance(model, Critic) else model.transformer).items():
            if "lora_B" in name:
                torch.nn.init.normal_(tensor, std=0.003, generator=generator)
        model.save_adapter(folder)
    return folders
