"""Ingestion: a folder of photos and its attribution become a manifest; what cannot be used is quarantined and counted.

Every file of the folder ends up in exactly one of the two lists.
"""

import csv
import hashlib
import logging
from collections import Counter
from pathlib import Path

import imagehash
import torch
from PIL import Image
from pydantic import Field
from torch import Tensor
from tqdm import tqdm

from components.data.records import Manifest, PhotoRecord, Quarantined, write_manifest
from components.data.splits import SplitSettings, split_of
from components.images import MAX_PIXELS, Photo, UnreadablePhoto, read_photo, resize_short_side
from components.strict import Strict

log = logging.getLogger(__name__)

_COLUMNS = ("file", "author", "licence", "source")
_HASHED_SHORT_SIDE = 256


class IngestSettings(Strict):
    """What counts as a usable photo."""

    min_short_side: int = Field(default=64, ge=1, description="Photos with a shorter side are quarantined. Pixels.")
    max_pixels: int = Field(default=MAX_PIXELS, ge=1, description="Larger pictures are quarantined undecoded.")
    splits: SplitSettings = Field(default_factory=SplitSettings)


def build_manifest(
    photos_dir: Path,
    attribution: Path,
    out: Path,
    settings: IngestSettings,
    dataset: str = "sample",
    data_revision: str | None = None,
) -> Manifest:
    """Decode every file under ``photos_dir`` once and write the manifest into the directory ``out``.

    Args:
        photos_dir: folder of photos, searched recursively; hidden files and ``attribution`` itself are not photos.
        attribution: CSV with the columns file, author, licence, source and optionally mos (0 to 100, higher is
            better) and labels (operation names separated by ";"). ``file`` is relative to ``photos_dir``.
        dataset: name that the ids begin with.
        data_revision: recorded in the manifest; see `components.data.versioning.data_revision`.

    Quarantined are: files that do not decode, photos smaller than the minimum, files without attribution, copies of
    another file (same bytes), and attributed files that do not exist.

    Raises:
        FileNotFoundError: ``photos_dir`` or ``attribution`` is missing.
        ValueError: the attribution lacks a column, lists a file twice or has a malformed mos; or no photo is usable.
    """
    photos_dir, attribution = Path(photos_dir), Path(attribution)
    if not photos_dir.is_dir():
        raise FileNotFoundError(f"{photos_dir}: expected the folder of photos; run `dvc pull`")
    attributed = read_attribution(attribution)
    paths = sorted(
        path
        for path in photos_dir.rglob("*")
        if path.is_file() and not path.name.startswith(".") and path.resolve() != attribution.resolve()
    )
    records: list[PhotoRecord] = []
    quarantine: list[Quarantined] = []
    seen: dict[str, str] = {}
    for path in tqdm(paths, desc="ingest", unit="photo"):
        relative = path.relative_to(photos_dir).as_posix()
        try:
            record = _record(path, relative, attributed.get(relative), settings, dataset)
        except UnreadablePhoto as error:
            quarantine.append(Quarantined(path=relative, reason=error.reason))
            continue
        if (original := seen.setdefault(record.sha256, relative)) != relative:
            quarantine.append(Quarantined(path=relative, reason=f"the same bytes as {original}"))
            continue
        records.append(record)
    found = {path.relative_to(photos_dir).as_posix() for path in paths}
    quarantine += [
        Quarantined(path=file, reason=f"listed in {attribution.name} but missing from the folder")
        for file in sorted(set(attributed) - found)
    ]
    _report(records, quarantine)
    if not records:
        reasons = "; ".join(f"{entry.path}: {entry.reason}" for entry in quarantine[:5]) or "the folder is empty"
        raise ValueError(f"{photos_dir}: no usable photo among {len(paths)} files ({reasons})")
    manifest = Manifest.of(records, data_revision, quarantine)
    write_manifest(manifest, out)
    return manifest


def read_attribution(path: Path) -> dict[str, dict[str, str]]:
    """Rows of an attribution CSV by their ``file`` column; see `build_manifest` for columns and errors."""
    with Path(path).open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        missing = [column for column in _COLUMNS if column not in (reader.fieldnames or ())]
        if missing:
            raise ValueError(f"{path}: expected the columns {', '.join(_COLUMNS)}; missing: {', '.join(missing)}")
        rows: dict[str, dict[str, str]] = {}
        for row in reader:
            if row["file"] in rows:
                raise ValueError(f"{path}: line {reader.line_num} lists {row['file']} a second time")
            rows[row["file"]] = {key: (value or "").strip() for key, value in row.items() if key}
    return rows


def perceptual_hash(image: Tensor) -> str:
    """64-bit pHash of (3, H, W) as 16 hexadecimal digits: low DCT frequencies of a 32x32 grey picture against their
    median (Zauner 2010, Implementation and Benchmarking of Perceptual Image Hash Functions)."""
    small = resize_short_side(image, _HASHED_SHORT_SIDE)
    samples = (small * 255).round().to(torch.uint8).permute(1, 2, 0).contiguous().numpy()
    return str(imagehash.phash(Image.fromarray(samples)))


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's bytes, 64 hexadecimal digits."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _record(
    path: Path, relative: str, attributed: dict[str, str] | None, settings: IngestSettings, dataset: str
) -> PhotoRecord:
    """The record of a usable photo; raises `UnreadablePhoto` with the reason otherwise."""
    photo = read_photo(path, settings.max_pixels)
    _check_size(path, photo, settings)
    if attributed is None or not attributed["licence"]:
        raise UnreadablePhoto(path, "no licence in the attribution file: add a row for it")
    sha256 = sha256_of(path)
    return PhotoRecord(
        id=f"{dataset}/{relative}",
        path=relative,
        sha256=sha256,
        perceptual_hash=perceptual_hash(photo.pixels),
        width=photo.width,
        height=photo.height,
        bit_depth=photo.bit_depth,
        mode=photo.mode,
        dataset=dataset,
        split=split_of(sha256, settings.splits),
        mos=_mos(attributed.get("mos", ""), relative),
        labels=tuple(label.strip() for label in attributed.get("labels", "").split(";") if label.strip()),
        licence=attributed["licence"],
        author=attributed["author"] or None,
        source=attributed["source"] or None,
    )


def _check_size(path: Path, photo: Photo, settings: IngestSettings) -> None:
    if min(photo.width, photo.height) < settings.min_short_side:
        minimum = settings.min_short_side
        raise UnreadablePhoto(path, f"{photo.width}x{photo.height} pixels, the shorter side is below {minimum}")


def _mos(text: str, relative: str) -> float | None:
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 100:
        raise ValueError(f"attribution of {relative}: expected a mos from 0 to 100, found {text!r}")
    return value


def _report(records: list[PhotoRecord], quarantine: list[Quarantined]) -> None:
    splits = Counter(record.split for record in records)
    log.info("%d photos: %s", len(records), ", ".join(f"{count} {split}" for split, count in sorted(splits.items())))
    for entry in quarantine:
        log.warning("quarantined %s: %s", entry.path, entry.reason)
