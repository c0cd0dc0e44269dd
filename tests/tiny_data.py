"""A few synthetic pairs and annotated views on disk, in the real formats, for tests of the training stages."""

from collections.abc import Collection
from pathlib import Path

import torch

from components.annotation.offline import describe
from components.annotation.records import ANNOTATIONS_FILE, AnnotatedPhoto
from components.data.crops import Crop, take_crop
from components.data.faults import sample_faults
from components.data.pairs import PairKind, make_pair, write_index, write_shard
from components.data.prompts import instruction
from components.data.records import PhotoRecord
from components.data.splits import Split
from components.imaging.photo import Photo, quantize, write_photo
from components.photometry.operations import apply_operations
from components.verdict.grammar import render
from tests.conftest import make_photo
from tests.data.builders import record

LANDSCAPE, PORTRAIT = (48, 72), (72, 48)
PHOTOS: tuple[tuple[Split, tuple[int, int]], ...] = (
    ("train", LANDSCAPE),
    ("train", PORTRAIT),
    ("train", LANDSCAPE),
    ("validation", LANDSCAPE),
)
SHORT_SIDE = 40


def write_pairs(out: Path, kinds: Collection[PairKind] = ("enhancement",), each: int = 2) -> Path:
    """``each`` pairs of every kind for every photo of `PHOTOS`, all with tone faults, as one shard with its index."""
    rows = []
    for number, (photo, (_, size)) in enumerate(zip(_records(), PHOTOS, strict=True)):
        generator = torch.Generator().manual_seed(number)
        made = []
        for kind in kinds:
            for index in range(each):
                faults = sample_faults(generator)
                made.append(
                    make_pair(
                        photo,
                        make_photo(*size, seed=number),
                        index=index,
                        kind=kind,
                        view=Crop(short_side=SHORT_SIDE),
                        operations=faults,
                        instruction=instruction(kind, faults, generator) if kind != "enhancement" else "Enhance.",
                    )
                )
        rows.append(made)
    out.mkdir(parents=True, exist_ok=True)
    write_shard(out / "pairs.tar", rows, "test")
    write_index(out, ["pairs.tar"])
    return out


def write_annotations(out: Path, photos_dir: Path, each: int = 2) -> Path:
    """The photos of `PHOTOS` as files in ``photos_dir``, and ``each`` annotated faulty views of every one."""
    lines = []
    photos_dir.mkdir(parents=True, exist_ok=True)
    for number, (photo, (split, size)) in enumerate(zip(_records(), PHOTOS, strict=True)):
        generator = torch.Generator().manual_seed(number)
        pixels = quantize(make_photo(*size, seed=number))
        write_photo(Photo(pixels), photos_dir / photo.path)
        for index in range(each):
            view, faults = Crop(short_side=SHORT_SIDE), sample_faults(generator)
            intact = take_crop(pixels, view)
            verdict = describe(quantize(apply_operations(intact, faults)), intact, faults)
            annotated = AnnotatedPhoto(
                id=f"{photo.id}#{index:02d}",
                photo_id=photo.id,
                path=photo.path,
                split=split,
                view=view,
                operations=faults,
                completion=render(verdict),
                score=verdict.score,
                annotator="offline",
            )
            lines.append(annotated.model_dump_json() + "\n")
    out.mkdir(parents=True, exist_ok=True)
    (out / ANNOTATIONS_FILE).write_text("".join(lines), encoding="utf-8")
    return out


def _records() -> list[PhotoRecord]:
    return [record(f"photo-{number}.png", split=split) for number, (split, _) in enumerate(PHOTOS)]
