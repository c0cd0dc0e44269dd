"""Synthesis of the Artist's pairs: retouching, restoration, multi-edit, depth of field, enhancement, film looks.

Intact photos get recorded faults; published pairs are taken as they are and with tone faults stacked on their input
(`components.data.aligned`); cut-outs are put before blurred backgrounds (`components.data.rendered`).

Every draw comes from a generator named by the photo's hash, the kind and the index, so a pair does not change when
photos or other kinds are added, and any pair can be rebuilt alone (`components.data.pairs.rebuild_pair`).
"""

import hashlib
import itertools
import logging
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import MappingProxyType

import torch
from pydantic import Field
from torch import Tensor
from tqdm import tqdm

from components.data import pairs
from components.data.aligned import aligned_pairs
from components.data.crops import Crop, reduce, sample_crop
from components.data.degradations import BOKEH_LEVELS, sample_degradation, sample_seed
from components.data.faults import sample_faults
from components.data.learned_looks import graded_pairs, learn_looks
from components.data.pairs import KINDS, Pair, PairKind, PairReader, make_pair
from components.data.partition import by_photo
from components.data.prompts import instruction
from components.data.records import Manifest, PhotoRecord
from components.data.rendered import BACKGROUND, CUTOUT, rendered_pairs
from components.data.shards import SUFFIX
from components.imaging.photo import Photo, read_photo
from components.photometry.assets import keep_asset
from components.photometry.looks import parse_cube
from components.photometry.operations import Operation
from components.seeding import generator_for
from components.strict import Strict

log = logging.getLogger(__name__)

ASSETS = "assets"
"""Folder beside the shards with the files that operations name; `rebuild_pair` needs it for looks and cut-outs."""
_RECIPE = 4  # raise it when the same settings give other pairs, so that shards on disk are made anew


class SynthesisSettings(Strict):
    """How many pairs are made of each photo, and how large."""

    short_side: int = Field(default=160, ge=16, description="Shorter side of the stored pictures, pixels.")
    retouching: int = Field(
        default=4, ge=0, description="Pairs per photo with one or several tone edits, named in words."
    )
    restoration: int = Field(default=4, ge=0, description="Pairs per photo with one degradation to remove.")
    multi_edit: int = Field(default=3, ge=0, description="Pairs per photo with a degradation and tone edits.")
    depth_of_field: int = Field(default=3, ge=0, description="Pairs per photo with a background to blur.")
    enhancement: int = Field(default=6, ge=0, description="Pairs per photo with one to three tone faults, unnamed.")
    enhancement_damage: float = Field(
        default=0.0, ge=0, le=1, description="Share of the enhancement pairs with a degradation beside the tone faults."
    )
    enhancement_mos: float | None = Field(
        default=None,
        description="Rated photos below this opinion score (0 to 100) are never the target of an enhancement.",
    )
    look: int = Field(default=0, ge=0, description="Pairs per photo with a film look to apply.")
    looks: dict[str, Path] = Field(default_factory=dict, description="The looks by name: .cube files.")
    learned_looks: int = Field(
        default=0,
        ge=0,
        description="Looks are also learned from the manifest's graded pairs (label look=...), each from so many of "
        "the train split; 0 learns none.",
    )
    stacked: int = Field(default=2, ge=0, description="Pairs of each published one with tone faults on its input.")
    rendered: int = Field(default=3, ge=0, description="Depth-of-field pairs of each background, with a cut-out.")
    smallest_crop: float = Field(default=0.7, gt=0, le=1, description="Smallest side of a crop, share of the photo's.")
    photos_per_shard: int = Field(default=16, ge=1, description="Photos whose pairs lie in one file.")
    seed: int = Field(default=0, ge=0, description="Of the crops, faults and degradations.")


def synthesize(manifest: Manifest, photos_dir: Path, out: Path, settings: SynthesisSettings) -> dict[str, int]:
    """Make all pairs of a manifest and write them to the directory ``out`` as shards with an index.

    A run that was killed leaves complete shards; the next one keeps those that were made from the same photos with
    the same settings and makes the rest.

    Returns:
        number of pairs by "split/kind", as in the index.

    Raises:
        UnreadablePhoto, FileNotFoundError: a photo of the manifest has been damaged or removed since ingestion.
        ValueError: pairs with a look are asked for and there is no look.
    """
    sources = _Sources(manifest, Path(photos_dir), out / ASSETS, settings)
    return _write(sources, out, settings, lambda records: _made(records, sources, settings))


def merge_pairs(
    manifest: Manifest, photos_dir: Path, parts: Sequence[Path], out: Path, settings: SynthesisSettings
) -> dict[str, int]:
    """Put the pairs of all shards of a manifest together, as `synthesize` makes them of the whole, to the byte.

    No picture is made again.

    Args:
        parts: what `synthesize` made of each shard, with the same settings.
        out: an empty directory.

    Returns:
        number of pairs by "split/kind".

    Raises:
        ValueError: a part holds pairs of photos that are not in the manifest, or that another part has as well.
    """
    sources = _Sources(manifest, Path(photos_dir), out / ASSETS, settings)
    for part in parts:
        if (part / ASSETS).is_dir():
            shutil.copytree(part / ASSETS, out / ASSETS, dirs_exist_ok=True)
    made = by_photo(sources.records, [PairReader(part) for part in parts], lambda pair: pair.photo_id)
    counts = _write(sources, out, settings, lambda records: itertools.islice(made, len(records)))
    next(made, None)  # raises where a part has pairs left
    return counts


def shared_photos(manifest: Manifest, settings: SynthesisSettings) -> list[PhotoRecord]:
    """Photos that pairs of any other photo may be made with, in order: cut-outs, and those that looks are learned from.

    A shard of the manifest needs them beside its own photos.
    """
    most = settings.learned_looks
    candidates = [
        record for record in manifest if CUTOUT in record.labels or (most and record.pair and record.split == "train")
    ]
    graded = graded_pairs(candidates, most).values()
    teaching = {record.id for pairs_of_look in graded for pair in pairs_of_look for record in pair}
    return [record for record in candidates if CUTOUT in record.labels or record.id in teaching]


def _write(
    sources: "_Sources",
    out: Path,
    settings: SynthesisSettings,
    make: Callable[[Sequence[PhotoRecord]], Iterable[list[Pair]]],
) -> dict[str, int]:
    """Write the pairs of all photos as shards with an index; ``make`` gives those of some photos, a list for each."""
    records, size = sources.records, settings.photos_per_shard
    groups = [records[start : start + size] for start in range(0, len(records), size)]
    names = [f"pairs-{number:05d}-of-{len(groups):05d}{SUFFIX}" for number in range(len(groups))]
    with tqdm(total=len(records), desc="synthesize", unit="photo") as progress:
        for name, group in zip(names, groups, strict=True):
            key = _key(group, settings, sources)
            if pairs.shard_key(out / name) == key:
                log.info("%s is kept from an earlier run", name)
                progress.update(len(group))
            else:
                pairs.write_shard(out / name, _counted(make(group), progress), key)
    for stale in set(out.glob(f"pairs-*{SUFFIX}")) - {out / name for name in names}:
        stale.unlink()
    counts = pairs.write_index(out, names)
    log.info("%d pairs of %d photos: %s", sum(counts.values()), len(records), counts)
    return counts


def _counted(made: Iterable[list[Pair]], progress: tqdm) -> Iterator[list[Pair]]:
    for of_photo in made:
        yield of_photo
        progress.update(1)


def keep_looks(settings: SynthesisSettings, assets: Path) -> dict[str, str]:
    """Put the looks of the settings among the assets; their asset names by look.

    Raises:
        ValueError: a file is not a three-dimensional .cube table.
    """
    kept = {}
    for name, path in sorted(settings.looks.items()):
        content = path.read_bytes()
        try:
            parse_cube(content.decode("utf-8"))
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
        kept[name] = keep_asset(assets, content, ".cube")
    return kept


def pairs_of_photo(
    record: PhotoRecord,
    pixels: Tensor,
    settings: SynthesisSettings,
    looks: Mapping[str, str] = MappingProxyType({}),
    assets: Path | None = None,
) -> list[Pair]:
    """All pairs of one photo; ``pixels`` (3, H, W) is the whole picture in [0, 1].

    Args:
        looks: assets by name, as `keep_looks` gives, in the folder ``assets``.
    """
    pixels = reduce(pixels, settings.short_side)
    made = []
    for kind in KINDS:
        if kind == "enhancement" and _rated_below(record, settings.enhancement_mos):
            continue
        for index in range(getattr(settings, kind)):
            generator = generator_for(settings.seed, record.sha256, kind, index)
            whole = Crop(short_side=settings.short_side)
            view = whole if index == 0 else sample_crop(generator, settings.short_side, settings.smallest_crop)
            operations, labels = sample_operations(kind, index, generator, settings.enhancement_damage, looks)
            made.append(
                make_pair(
                    record,
                    pixels,
                    index=index,
                    kind=kind,
                    view=view,
                    operations=operations,
                    instruction=instruction(kind, operations, generator, labels),
                    assets=assets,
                )
            )
    return made


def sample_operations(
    kind: PairKind,
    index: int,
    generator: torch.Generator,
    damage: float = 0.0,
    looks: Mapping[str, str] = MappingProxyType({}),
) -> tuple[tuple[Operation, ...], tuple[str, ...]]:
    """Draw the operations of the ``index``-th pair of a kind, and the labels that name what they do not say.

    Retouching alternates between a single edit and one to three; depth of field goes through the levels in turn, and
    film looks through ``looks``. Multi-edit stacks tone faults on a degradation, in that order, as retouching stacked
    on restoration pairs; an enhancement does so in a share ``damage`` of the pairs.
    """
    match kind:
        case "enhancement":
            faults = sample_faults(generator)
            if damage and float(torch.rand(1, generator=generator)) < damage:
                faults = (sample_degradation(generator), *faults)
            return faults, ()
        case "retouching":
            faults = sample_faults(generator)
            return (faults if index % 2 else (faults[int(torch.randint(len(faults), (1,), generator=generator))],)), ()
        case "restoration":
            return (sample_degradation(generator),), ()
        case "multi_edit":
            return (sample_degradation(generator), *sample_faults(generator)), ()
        case "look":
            name = sorted(looks)[index % len(looks)]
            return (Operation(name="look", amount=1.0, asset=looks[name]),), (f"look={name}",)
    level = list(BOKEH_LEVELS.values())[index % len(BOKEH_LEVELS)]
    return (Operation(name="bokeh", amount=level, seed=sample_seed(generator)),), ()


class _Sources:
    """The photos of a manifest, where they are, which of them belong together, and the looks for them."""

    def __init__(self, manifest: Manifest, photos_dir: Path, assets: Path, settings: SynthesisSettings) -> None:
        self.photos_dir, self.assets = photos_dir, assets
        self.records = list(manifest)
        shared = manifest.shared or self.records  # a whole manifest has them among its own
        self.inputs: dict[str, list[PhotoRecord]] = {}
        for record in self.records:
            if record.pair and record.role == "input":
                self.inputs.setdefault(record.pair, []).append(record)
        self.cutouts: dict[str, list[PhotoRecord]] = {}
        for record in shared:
            if CUTOUT in record.labels:
                self.cutouts.setdefault(record.split, []).append(record)
        self.looks = keep_looks(settings, assets) | learn_looks(shared, self.read, assets, settings.learned_looks)
        if settings.look and not self.looks:
            raise ValueError(
                "expected looks for pairs with a look (.cube files by name, or graded pairs to learn from), found "
                "none; set look to 0"
            )

    def read(self, record: PhotoRecord) -> Photo:
        return read_photo(self.photos_dir / record.path)

    def partners(self, record: PhotoRecord) -> list[PhotoRecord]:
        """Other photos that the pairs of this one are made with."""
        if record.pair:
            return self.inputs.get(record.pair, []) if record.role == "target" else []
        return self.cutouts.get(record.split, []) if BACKGROUND in record.labels else []


def _pairs_of(record: PhotoRecord, sources: _Sources, settings: SynthesisSettings) -> list[Pair]:
    """Pairs of one row of the manifest: an input's are made with its target, a cut-out's with a background."""
    if CUTOUT in record.labels or (record.pair and record.role == "input"):
        return []
    pixels = sources.read(record).pixels
    if record.pair:
        return [
            pair
            for number, partner in enumerate(sources.partners(record))
            for pair in aligned_pairs(record, pixels, partner, sources.read(partner).pixels, number, settings)
        ]
    made = pairs_of_photo(record, pixels, settings, sources.looks, sources.assets)
    if cutouts := sources.partners(record):
        made += rendered_pairs(record, pixels, cutouts, sources.read, settings, sources.assets)
    return made


def _made(records: Sequence[PhotoRecord], sources: _Sources, settings: SynthesisSettings) -> Iterator[list[Pair]]:
    """Pairs of each photo in order, made on as many threads as torch may use; most of the work holds no lock."""
    with ThreadPoolExecutor(max(1, torch.get_num_threads())) as pool:
        yield from pool.map(lambda record: _pairs_of(record, sources, settings), records)


def _rated_below(record: PhotoRecord, mos: float | None) -> bool:
    return mos is not None and record.mos is not None and record.mos < mos


def _key(records: Sequence[PhotoRecord], settings: SynthesisSettings, sources: _Sources) -> str:
    """What a shard depends on: photos with their ids and splits, settings, looks, and the recipe's version."""
    parts = [str(_RECIPE), settings.model_dump_json(exclude={"looks"}), *map(":".join, sources.looks.items())]
    for record in records:
        parts.append(
            f"{record.id}:{record.sha256}:{record.split}:{record.pair}:{record.role}:{record.kind}:{record.labels}:"
            f"{record.operations}:{record.mos}"
        )
        parts += [f"  {other.sha256}:{other.labels}:{other.operations}" for other in sources.partners(record)]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
