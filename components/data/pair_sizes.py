"""Pairs whose photos differ in size: those that can be laid over each other stay, of the others a side is left out.

Of the user's own pairs those of one size are looked at, too: a photo that was taken again, or cropped elsewhere, would
teach to move the picture. Published pairs of one size are taken to be aligned, as their authors say.

What stays is laid over each other once more when pairs are made of it, from the same pixels and so in the same way.
"""

import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import pyarrow
import pyarrow.parquet
from pyarrow import compute

from components.data.registration import align, is_displaced
from components.imaging.photo import read_photo

log = logging.getLogger(__name__)

_AT_ONCE = 4  # pairs, each two decoded photos


class Unfit(NamedTuple):
    """Photos that cannot be laid over their partners.

    Attributes:
        reasons: by path.
        broken: pairs that lost all of their inputs or of their targets that way, with the role.
    """

    reasons: dict[str, str]
    broken: dict[str, str]


class _Photo(NamedTuple):
    path: str
    pair: str
    role: str
    width: int
    height: int
    dataset: str


def unfit(rows: Path, photos_dir: Path, workers: int, own: frozenset[str] = frozenset()) -> Unfit:
    """Look at every pair of several sizes.

    Args:
        rows: a Parquet file with the columns of a manifest.
        photos_dir: where relative paths begin.
        own: datasets whose pairs of one size are looked at, too.

    Raises:
        UnreadablePhoto, OSError: a photo has been damaged or removed since it was read.
    """
    found = Unfit({}, {})
    looked_at = 0
    with ThreadPoolExecutor(min(workers, _AT_ONCE), thread_name_prefix="align") as pool:
        for photos, fits in pool.map(lambda photos: (photos, _fits(photos, photos_dir, own)), _uneven(rows, own)):
            looked_at += 1
            found.reasons.update(fits)
            for role in ("input", "target"):
                if all(photo.path in fits for photo in photos if photo.role == role):
                    found.broken[photos[0].pair] = role
    if looked_at:
        log.info(
            "%d pairs of several sizes, or of the user's own: %d lie over each other by content, %d do not",
            *(looked_at, looked_at - len(found.broken), len(found.broken)),
        )
    return found


def _uneven(rows: Path, own: frozenset[str]) -> Iterator[list[_Photo]]:
    """The photos of each pair that has several sizes, or is of one of the datasets."""
    table = pyarrow.parquet.read_table(rows, columns=list(_Photo._fields), filters=compute.field("pair").is_valid())
    theirs = compute.is_in(table["dataset"], pyarrow.array(sorted(own), pyarrow.string()))
    ends = [(side, end) for side in ("width", "height") for end in ("min", "max")]
    sizes = table.group_by("pair").aggregate(ends)
    differ = [compute.not_equal(sizes[f"{side}_min"], sizes[f"{side}_max"]) for side in ("width", "height")]
    uneven = sizes.filter(compute.or_(*differ))["pair"].combine_chunks()
    chosen = table.filter(compute.or_(compute.is_in(table["pair"], uneven), theirs)).sort_by("pair")
    for _, photos in groupby((_Photo(**row) for row in chosen.to_pylist()), key=lambda photo: photo.pair):
        yield list(photos)


def _fits(photos: list[_Photo], photos_dir: Path, own: frozenset[str]) -> dict[str, str]:
    """Reasons, by path, of the photos that cannot be laid over those they are paired with.

    Of one input and several targets the targets are judged, else the inputs.
    """
    inputs, targets = ([photo for photo in photos if photo.role == role] for role in ("input", "target"))
    single = len(inputs) == 1
    judged, others = (targets, inputs) if single else (inputs, targets)
    reasons = {}
    for photo in judged:
        for other in others:
            picture, target = (photos_dir / one.path for one in ((other, photo) if single else (photo, other)))
            if (photo.width, photo.height) == (other.width, other.height):
                if photo.dataset in own and is_displaced(read_photo(picture).pixels, read_photo(target).pixels):
                    reasons[photo.path] = f"its content is shifted against {other.path}: crop both to what they share"
                    break
                continue
            if align(read_photo(picture).pixels, read_photo(target).pixels) is None:
                reasons[photo.path] = (
                    f"{photo.width}x{photo.height} pixels beside {other.width}x{other.height} of {other.path}: not one "
                    "picture cropped, turned or reduced, so the two cannot be laid over each other"
                )
                break
    return reasons
