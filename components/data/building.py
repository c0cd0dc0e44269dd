"""Building a manifest from datasets of any origin: files are read in parallel, once, and rows written as they come.

Memory holds a few photos a worker, for each record a digest, a path, its hash and a few words, and nothing else that
grows. What was read of a file is remembered (`components.data.facts`): a build that was killed goes on where it was and
gives the same manifest, and a later one reads only what changed.

A file that the system cannot read (an input or output error, no permission, a mount that is away) is another matter
than a damaged one: it is quarantined for this time, told and counted as unread, never remembered, and more than a few
of them stop the build.
"""

import logging
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow
import pyarrow.parquet
from pyarrow import compute
from pydantic import Field

from components import files
from components.data.duplicates import twins_in_other_groups
from components.data.facts import FactStore, FileFacts
from components.data.pair_sizes import unfit
from components.data.reading import UnreadFilesError, read_sources, unread_text
from components.data.records import (
    MANIFEST_FILE,
    QUARANTINE_FILE,
    SCHEMA,
    Manifest,
    PhotoRecord,
    Quarantined,
    read_manifest,
    record_batches,
    write_quarantine,
    write_rows,
)
from components.data.scenes import Scenes
from components.data.sources.base import Skipped, Source, SourceRecord
from components.data.splits import SplitSettings, split_of, split_of_pair
from components.imaging.photo import MAX_PIXELS
from components.strict import Strict

log = logging.getLogger(__name__)

_SPLIT = SCHEMA.field("split")
_UNFILTERED = ".unfiltered.parquet"
_SHOWN = 20  # quarantined files named in the log, one line each


class BuildSettings(Strict):
    """What counts as a usable photo, and how it is read."""

    min_short_side: int = Field(default=64, ge=1, description="Photos with a shorter side are quarantined. Pixels.")
    max_pixels: int = Field(default=MAX_PIXELS, ge=1, description="Larger pictures are quarantined undecoded.")
    workers: int = Field(default=0, ge=0, description="Threads that read files; 0 for one per processor.")
    overlap_distance: int | None = Field(
        default=None,
        ge=0,
        lt=16,
        description="Photos of train that look like one of validation or test, and photos of validation that look like "
        "one of test, up to this many bits of their perceptual hashes, are quarantined. None leaves them in, and the "
        "validation to report them.",
    )
    scene_distance: int | None = Field(
        default=6,
        ge=0,
        lt=16,
        description="Photos without a published split that look like others, up to this many bits of their perceptual "
        "hashes, get the split of those. None lets a hash decide for each.",
    )
    burst_pause: float | None = Field(
        default=2.0,
        ge=0,
        description="Photos without a published split that one camera took with at most so many seconds from the end "
        "of one to the beginning of the next (a burst, a bracket) share a split. None lets a hash decide for each.",
    )
    max_unread: int = Field(
        default=3,
        ge=0,
        description="Files that may be left out because the system cannot read them; one more stops the build.",
    )
    splits: SplitSettings = Field(default_factory=SplitSettings)


class _Unusable(Exception):  # noqa: N818  (a reason, not a fault of the program)
    pass


class _Pairs:
    """Which roles each pair was announced with, and which of them were kept."""

    def __init__(self) -> None:
        self._roles: list[str] = []
        self._announced: dict[str, int] = {}
        self._kept: dict[str, int] = {}

    def announce(self, pair: str, role: str) -> None:
        self._announced[pair] = self._announced.get(pair, 0) | self._bit(role)

    def keep(self, pair: str, role: str) -> None:
        self._kept[pair] = self._kept.get(pair, 0) | self._bit(role)

    def broken(self) -> dict[str, str]:
        """The pairs that lost a role, with the roles that are missing; pairs that are gone altogether are not named."""
        return {
            pair: " and ".join(
                role for number, role in enumerate(self._roles) if (self._announced[pair] & ~kept) >> number & 1
            )
            for pair, kept in self._kept.items()
            if kept != self._announced[pair]
        }

    def _bit(self, role: str) -> int:
        if role not in self._roles:
            self._roles.append(role)
        return 1 << self._roles.index(role)


def build(
    sources: Iterable[Source],
    out: Path,
    settings: BuildSettings,
    *,
    photos_dir: Path,
    facts: Path | None = None,
    data_revision: str | None = None,
) -> Manifest:
    """Read every file that the sources name and write the manifest into the directory ``out``.

    Quarantined are: what an adapter skips (but what lies beside photos, `Skipped.beside`, which it counts), files that
    are missing or do not decode, files that the system cannot read now (``Quarantined.unread``), photos smaller than
    the minimum, photos without a licence, copies of another file (same bytes; a target that several pairs share stays),
    what looks like a photo of another split if ``settings`` say so, a side of a pair whose photos do not lie over each
    other (`components.data.pair_sizes`), and the rest of a pair that lost its input or its target that way. Rated
    inputs of a pair whose target's file is lost stay, as rated photos without a pair.

    Args:
        sources: adapters, read in turn; the manifest keeps their order.
        photos_dir: paths below it are kept relative to it, others absolute.
        facts: file in which what was read of each photo is remembered between builds; None to remember nothing.

    Raises:
        SourceError: a dataset is not laid out as published.
        UnreadFilesError: more files than ``settings.max_unread`` cannot be read; what was read is remembered.
        OSError: a folder cannot be listed, or a file that an adapter looks into cannot be read.
        ValueError: no photo is usable.
    """
    out, sources = Path(out), list(sources)
    out.mkdir(parents=True, exist_ok=True)
    quarantine: list[Quarantined] = []
    for name in (_UNFILTERED, MANIFEST_FILE, QUARANTINE_FILE):  # of builds that were killed
        for left in files.leftovers(out / name):
            left.unlink(missing_ok=True)
    (out / _UNFILTERED).unlink(missing_ok=True)
    pairs, scenes = _Pairs(), Scenes()
    unfiltered = out / _UNFILTERED
    try:
        with FactStore(facts) as store:
            records = _usable(sources, settings, Path(photos_dir), store, pairs, scenes, quarantine)
            write_rows(unfiltered, record_batches(records), data_revision)
        splits = _shared_splits(unfiltered, scenes, settings)
        overlaps = _overlaps(unfiltered, splits, settings.overlap_distance)
        workers, own = settings.workers or os.cpu_count() or 1, frozenset(one.dataset for one in sources if one.own)
        apart = unfit(unfiltered, Path(photos_dir).resolve(), workers, own)
        left_out = apart.reasons | {path: overlap.reason for path, overlap in overlaps.items()}
        broken = pairs.broken()
        widowed = frozenset(pair for pair, role in broken.items() if role == "target")
        broken |= apart.broken
        broken |= {overlap.pair: overlap.role or "" for overlap in overlaps.values() if overlap.pair}
        overlapping = {overlap.pair for overlap in overlaps.values()}
        _filter(
            unfiltered, out / MANIFEST_FILE, splits, left_out, broken, widowed - overlapping, quarantine, data_revision
        )
    finally:
        unfiltered.unlink(missing_ok=True)
    write_quarantine(quarantine, out)
    _report(Counter(splits.tolist()), quarantine)
    manifest = read_manifest(out)
    if not len(manifest):
        reasons = "; ".join(f"{entry.path}: {entry.reason}" for entry in quarantine[:5]) or "there are no files"
        raise ValueError(f"{photos_dir}: no usable photo among {len(quarantine)} files ({reasons})")
    return manifest


def _usable(
    sources: Iterable[Source],
    settings: BuildSettings,
    photos_dir: Path,
    store: FactStore,
    pairs: _Pairs,
    scenes: Scenes,
    quarantine: list[Quarantined],
) -> Iterator[PhotoRecord]:
    """Records of the usable photos in order; the others go to ``quarantine``."""
    photos_dir = photos_dir.resolve()
    seen: dict[bytes, str] = {}
    unread: list[tuple[Path, OSError]] = []
    workers = settings.workers or os.cpu_count() or 1
    for found, path, facts in read_sources(sources, store, settings.max_pixels, workers):
        place = (path.relative_to(photos_dir) if path.is_relative_to(photos_dir) else path).as_posix()
        if isinstance(found, Skipped):
            if not found.beside:  # the source has counted and told it
                quarantine.append(Quarantined(path=place, reason=found.reason, absent=found.absent))
            continue
        if found.pair and found.role:
            pairs.announce(found.pair, found.role)
        if isinstance(facts, OSError):
            unread.append((path, facts))
            if len(unread) > settings.max_unread:
                raise UnreadFilesError(unread_text(unread))
            reason = f"not read this time: {facts.strerror or facts}"
            quarantine.append(Quarantined(path=place, reason=reason, unread=True))
            continue
        try:
            record = _record(found, place, facts, settings)
            original = seen.setdefault(bytes.fromhex(record.sha256), place)
            if original != place and found.role != "target":
                raise _Unusable(f"the same bytes as {original}")
        except _Unusable as error:
            quarantine.append(Quarantined(path=place, reason=str(error)))
            continue
        if found.pair and found.role:
            pairs.keep(found.pair, found.role)
        scenes.add(found.dataset, found.split is not None, found.pair or found.scene, facts.shot)
        yield record


def _record(found: SourceRecord, place: str, facts: FileFacts, settings: BuildSettings) -> PhotoRecord:
    """The row of a usable photo."""
    if facts.reason:
        raise _Unusable(facts.reason)
    if min(facts.width, facts.height) < settings.min_short_side:
        minimum = settings.min_short_side
        raise _Unusable(f"{facts.width}x{facts.height} pixels, the shorter side is below {minimum}")
    if not found.licence:
        raise _Unusable("no licence: add a row for it to the attribution file")
    split = found.split
    if split is None:
        name = found.pair or found.scene
        split = split_of_pair(name, settings.splits) if name else split_of(facts.sha256, settings.splits)
    return PhotoRecord(
        id=f"{found.dataset}/{found.path}",
        path=place,
        sha256=facts.sha256,
        perceptual_hash=facts.perceptual_hash,
        width=facts.width,
        height=facts.height,
        bit_depth=facts.bit_depth,
        mode=facts.mode,
        dataset=found.dataset,
        split=split,
        mos=found.mos,
        mos_original=found.mos_original,
        mos_low=found.mos_low,
        mos_high=found.mos_high,
        mos_ascending=found.mos_ascending,
        labels=found.labels,
        pair=found.pair,
        role=found.role,
        kind=found.kind,
        operations=tuple(operation.model_dump_json() for operation in found.operations),
        licence=found.licence,
        author=found.author,
        source=found.source,
    )


class _Overlap(NamedTuple):
    reason: str
    pair: str | None
    role: str | None


def _shared_splits(unfiltered: Path, scenes: Scenes, settings: BuildSettings) -> np.ndarray:
    """The split of every row, (N,) of str, the same for all photos of a scene whose dataset publishes none."""
    table = pyarrow.parquet.read_table(unfiltered, columns=["split", "sha256", "perceptual_hash"])
    splits, digests, hashes = (table[name].to_pylist() for name in ("split", "sha256", "perceptual_hash"))
    return scenes.splits(splits, digests, hashes, settings.scene_distance, settings.burst_pause)


def _overlaps(unfiltered: Path, splits: np.ndarray, distance: int | None) -> dict[str, _Overlap]:
    """The photos, by path, that look like one of a split that is to judge what is learnt from theirs."""
    if distance is None:
        return {}
    table = pyarrow.parquet.read_table(unfiltered, columns=["path", "perceptual_hash", "pair", "role"])
    hashes = table["perceptual_hash"].to_numpy()
    found: dict[str, _Overlap] = {}
    for learning, judging in (("train", ("validation", "test")), ("validation", ("test",))):
        rows = np.flatnonzero(np.isin(splits, [learning, *judging]))
        learns = splits[rows] == learning
        twins = twins_in_other_groups(hashes[rows], learns, distance)
        for one in np.flatnonzero(learns & (twins >= 0)):
            row, other = table.slice(int(rows[one]), 1).to_pylist()[0], int(rows[twins[one]])
            reason = f"looks like {table['path'][other].as_py()} of the {splits[other]} split"
            found[row["path"]] = _Overlap(reason, row["pair"], row["role"])
    return found


def _filter(
    unfiltered: Path,
    target: Path,
    splits: np.ndarray,
    reasons: dict[str, str],
    broken: dict[str, str],
    widowed: frozenset[str],
    quarantine: list[Quarantined],
    data_revision: str | None,
) -> None:
    """Copy the rows with their splits, leaving out those with a reason, by path, and what is left of broken pairs.

    Args:
        widowed: broken pairs whose rated photos stay, without a pair.
    """
    alone = pyarrow.array(list(widowed), pyarrow.string())
    pairs, paths = pyarrow.array(list(broken), pyarrow.string()), pyarrow.array(list(reasons), pyarrow.string())

    def kept() -> Iterator[pyarrow.RecordBatch]:
        start = 0
        for batch in pyarrow.parquet.ParquetFile(unfiltered).iter_batches():
            own = pyarrow.array(splits[start : start + len(batch)], pyarrow.string())
            batch, start = batch.set_column(SCHEMA.get_field_index("split"), _SPLIT, own), start + len(batch)
            rated = compute.and_(compute.is_in(batch["pair"], alone), compute.is_valid(batch["mos"]))
            for name in ("pair", "role", "kind"):
                column = compute.if_else(rated, None, batch[name])
                batch = batch.set_column(SCHEMA.get_field_index(name), SCHEMA.field(name), column)
            lost = compute.or_(compute.is_in(batch["pair"], pairs), compute.is_in(batch["path"], paths))
            for row in batch.filter(lost).select(["path", "pair"]).to_pylist():
                path, pair = row["path"], row["pair"]
                reason = reasons.get(path) or f"its pair {pair} has no usable {broken[pair]}"
                quarantine.append(Quarantined(path=path, reason=reason))
            yield batch.filter(compute.invert(lost)).cast(SCHEMA)

    write_rows(target, kept(), data_revision)


def _report(counts: Counter[str], quarantine: Sequence[Quarantined]) -> None:
    found = ", ".join(f"{count} {split}" for split, count in sorted(counts.items()))
    log.info("%d photos read: %s", sum(counts.values()), found)
    unread = sum(entry.unread for entry in quarantine)
    if unread:
        log.error("%d files could not be read and are left out of this manifest; the next build looks again", unread)
    for entry in quarantine[:_SHOWN]:
        log.warning("quarantined %s: %s", entry.path, entry.reason)
    if len(quarantine) > _SHOWN:
        log.warning("quarantined %d more; quarantine.jsonl names them all", len(quarantine) - _SHOWN)
