"""Synthesis of the Artist's pairs from intact photos: retouching, restoration, multi-edit, depth of field, enhancement.

Every draw comes from a generator named by the photo's hash, the kind and the index, so a pair does not change when
photos or other kinds are added, and any pair can be rebuilt alone (`components.data.pairs.rebuild_pair`).
"""

import hashlib
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from pydantic import Field
from torch import Tensor
from tqdm import tqdm

from components.data import pairs
from components.data.damage import BOKEH_LEVELS, sample_degradation, sample_seed
from components.data.faults import sample_faults
from components.data.pairs import KINDS, Pair, PairKind, make_pair
from components.data.prompts import instruction
from components.data.records import Manifest, PhotoRecord
from components.data.seeding import generator_for
from components.data.views import View, reduce, sample_view
from components.images import read_photo
from components.photometry.operations import Operation
from components.strict import Strict

log = logging.getLogger(__name__)

_RECIPE = 1  # raise it when the same settings give other pairs, so that shards on disk are made anew


class SynthesisSettings(Strict):
    """How many pairs are made of each photo, and how large."""

    short_side: int = Field(default=160, ge=16, description="Shorter side of the stored pictures, pixels.")
    retouching: int = Field(
        default=4, ge=0, description="Pairs a photo with one or several tone edits, named in words."
    )
    restoration: int = Field(default=4, ge=0, description="Pairs a photo with one degradation to remove.")
    multi_edit: int = Field(default=3, ge=0, description="Pairs a photo with a degradation and tone edits.")
    depth_of_field: int = Field(default=3, ge=0, description="Pairs a photo with a background to blur.")
    enhancement: int = Field(default=6, ge=0, description="Pairs a photo with one to three tone faults, unnamed.")
    smallest_crop: float = Field(default=0.7, gt=0, le=1, description="Smallest side of a crop, share of the photo's.")
    photos_per_shard: int = Field(default=16, ge=1, description="Photos whose pairs lie in one file.")
    seed: int = Field(default=0, ge=0)


def synthesize(manifest: Manifest, photos_dir: Path, out: Path, settings: SynthesisSettings) -> dict[str, int]:
    """Make all pairs of a manifest and write them to the directory ``out`` as Arrow shards with an index.

    A run that was killed leaves complete shards; the next one keeps those that were made from the same photos with
    the same settings and makes the rest.

    Returns:
        number of pairs by "split/kind", as in the index.

    Raises:
        UnreadablePhoto, FileNotFoundError: a photo of the manifest has been damaged or removed since ingestion.
    """
    records = list(manifest)
    size = settings.photos_per_shard
    groups = [records[start : start + size] for start in range(0, len(records), size)]
    names = [f"pairs-{number:05d}-of-{len(groups):05d}.arrow" for number in range(len(groups))]
    with tqdm(total=len(records), desc="synthesize", unit="photo") as progress:
        for name, group in zip(names, groups, strict=True):
            key = _key(group, settings)
            if pairs.shard_key(out / name) == key:
                log.info("%s is kept from an earlier run", name)
                progress.update(len(group))
            else:
                pairs.write_shard(out / name, _shard(group, photos_dir, settings, progress), key)
    for stale in set(out.glob("pairs-*.arrow")) - {out / name for name in names}:
        stale.unlink()
    counts = pairs.write_index(out, names)
    log.info("%d pairs of %d photos: %s", sum(counts.values()), len(records), counts)
    return counts


def pairs_of_photo(record: PhotoRecord, pixels: Tensor, settings: SynthesisSettings) -> list[Pair]:
    """All pairs of one photo; ``pixels`` (3, H, W) is the whole picture in [0, 1]."""
    pixels = reduce(pixels, settings.short_side)
    made = []
    for kind in KINDS:
        for index in range(getattr(settings, kind)):
            generator = generator_for(settings.seed, record.sha256, kind, index)
            whole = View(short_side=settings.short_side)
            view = whole if index == 0 else sample_view(generator, settings.short_side, settings.smallest_crop)
            operations = sample_operations(kind, index, generator)
            words = instruction(kind, operations, generator)
            made.append(
                make_pair(record, pixels, index=index, kind=kind, view=view, operations=operations, instruction=words)
            )
    return made


def sample_operations(kind: PairKind, index: int, generator: torch.Generator) -> tuple[Operation, ...]:
    """Draw the operations of the ``index``-th pair of a kind.

    Retouching alternates between a single edit and one to three; depth of field goes through the levels in turn.
    Multi-edit stacks tone faults on a degradation, in that order, as retouching stacked on restoration pairs.
    """
    if kind == "enhancement":
        return sample_faults(generator)
    if kind == "retouching":
        faults = sample_faults(generator)
        return faults if index % 2 else (faults[int(torch.randint(len(faults), (1,), generator=generator))],)
    if kind == "restoration":
        return (sample_degradation(generator),)
    if kind == "multi_edit":
        return (sample_degradation(generator), *sample_faults(generator))
    level = list(BOKEH_LEVELS.values())[index % len(BOKEH_LEVELS)]
    return (Operation(name="bokeh", amount=level, seed=sample_seed(generator)),)


def _shard(
    records: Sequence[PhotoRecord], photos_dir: Path, settings: SynthesisSettings, progress: tqdm
) -> Iterator[list[Pair]]:
    for record in records:
        yield pairs_of_photo(record, read_photo(Path(photos_dir) / record.path).pixels, settings)
        progress.update(1)


def _key(records: Sequence[PhotoRecord], settings: SynthesisSettings) -> str:
    """What a shard depends on: photos with their ids and splits, settings, and the recipe's version."""
    parts = [str(_RECIPE), settings.model_dump_json()]
    parts += [f"{record.id}:{record.sha256}:{record.split}" for record in records]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
