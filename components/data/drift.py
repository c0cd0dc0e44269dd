"""Data drift: how a data version differs from the one before, attribute by attribute, as JSON and as a page.

Every photo is measured once (a version takes over the measurements of photos that it shares with the one before) and
the distributions are compared with the population stability index and the two-sample Kolmogorov-Smirnov statistic.
"""

import hashlib
import json
import logging
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from heapq import nsmallest
from pathlib import Path
from typing import Literal

import numpy as np
import pandas
import pyarrow
import pyarrow.parquet
import scipy.stats
import torch
from pydantic import Field, model_validator
from torch import Tensor
from tqdm import tqdm

from components import files
from components.data.drift_page import render_page
from components.data.records import Manifest, PhotoRecord
from components.imaging.photo import read_photo, resize_short_side
from components.photometry.attributes import measure
from components.photometry.colour import luminance, srgb_to_linear
from components.strict import Strict

log = logging.getLogger(__name__)

PROFILE_FILE, REPORT_FILE, PAGE_FILE = "profile.parquet", "drift.json", "drift.html"
ATTRIBUTES: dict[str, str] = {
    "exposure": "EV about mid-grey",
    "contrast": "standard deviation of L*",
    "chroma": "mean C*ab",
    "temperature": "mired of the grey world",
    "sharpness": "log10 variance of the Laplacian",
    "size": "log2 megapixels",
    "mos": "opinion score, 0 to 100",
}
CATEGORIES = ("dataset", "split", "label", "kind")
_REVISION_KEY = b"smartphotocrafter.data_revision"
_MEASURED = tuple(ATTRIBUTES)[:5]
_NO_VALUE = "(none)"

DriftLevel = Literal["stable", "moderate", "large", "not comparable"]


class DriftSettings(Strict):
    """How versions are compared."""

    photos: int = Field(default=5000, ge=1, description="Photos that are measured per version, chosen by their hashes.")
    short_side: int = Field(default=256, ge=16, description="Pixels to which photos are reduced for measuring.")
    bins: int = Field(default=10, ge=2, le=100, description="Quantiles of the previous version that PSI compares.")
    moderate: float = Field(default=0.1, gt=0, description="PSI from which a shift is moderate.")
    large: float = Field(default=0.25, gt=0, description="PSI from which a shift is large.")
    seed: int = Field(default=0, ge=0, description="Of the choice of photos.")

    @model_validator(mode="after")
    def _ordered(self) -> "DriftSettings":
        if not self.moderate < self.large:
            raise ValueError(f"expected moderate < large, found {self.moderate:g} and {self.large:g}")
        return self


class Shift(Strict):
    """One distribution in two versions.

    For an attribute the bins are intervals (``edges`` is one longer than the shares, and its ends are what occurs); for
    a category they are its values.
    """

    name: str
    unit: str
    bins: tuple[str, ...] = Field(description="Values of a category; empty for an attribute.")
    edges: tuple[float, ...] = Field(description="Of the bins drawn, equally wide; empty for a category.")
    current: tuple[float, ...] = Field(description="Shares of the bins in the current version.")
    previous: tuple[float, ...] = Field(description="Shares in the previous version; empty without one.")
    current_count: int
    previous_count: int
    current_median: float | None = None
    previous_median: float | None = None
    psi: float | None = Field(description="Population stability index; None without anything to compare with.")
    ks: float | None = Field(default=None, description="Largest distance of the cumulative distributions.")
    ks_p_value: float | None = None
    verdict: DriftLevel


class DriftReport(Strict):
    """All shifts between two data versions."""

    current_revision: str | None
    previous_revision: str | None
    current_photos: int
    previous_photos: int | None = Field(description="None for the first version, which has nothing before it.")
    moderate: float
    large: float
    shifts: tuple[Shift, ...]

    @property
    def worst(self) -> DriftLevel:
        """The largest shift's verdict; "not comparable" for a first version."""
        order: tuple[DriftLevel, ...] = ("not comparable", "stable", "moderate", "large")
        return max((shift.verdict for shift in self.shifts), key=order.index, default="not comparable")


def profile(
    manifest: Manifest, photos_dir: Path, settings: DriftSettings, previous: pandas.DataFrame | None = None
) -> pandas.DataFrame:
    """Measure a version's photos.

    Args:
        manifest: the version; photos in it are read from ``photos_dir``.
        previous: what this function gave for the version before; photos with the same bytes are not read again.

    Returns:
        one row a measured photo: sha256, the `ATTRIBUTES`, dataset, split, kind, and labels as a list.

    Raises:
        UnreadablePhoto, FileNotFoundError: a photo has been damaged or removed since ingestion.
    """
    known = {} if previous is None else previous.set_index("sha256")[list(_MEASURED)].to_dict("index")
    records = list(_chosen(manifest, settings))
    rows = []

    def measured(record: PhotoRecord) -> dict[str, float]:
        if record.sha256 in known:
            return known[record.sha256]
        return attributes_of(read_photo(Path(photos_dir) / record.path).pixels, settings.short_side)

    with ThreadPoolExecutor(max(1, torch.get_num_threads())) as pool:
        values_of = tqdm(pool.map(measured, records), total=len(records), desc="measure", unit="photo")
        for record, values in zip(records, values_of, strict=True):
            rows.append(
                {
                    "sha256": record.sha256,
                    **values,
                    "size": math.log2(record.width * record.height / 1e6),
                    "mos": math.nan if record.mos is None else record.mos,
                    "dataset": record.dataset,
                    "split": record.split,
                    "kind": record.kind or _NO_VALUE,
                    "labels": [label for label in record.labels if "=" not in label],
                }
            )
    return pandas.DataFrame(rows, columns=["sha256", *ATTRIBUTES, "dataset", "split", "kind", "labels"])


def attributes_of(pixels: Tensor, short_side: int) -> dict[str, float]:
    """Exposure, contrast, chroma, temperature and sharpness of a photo (3, H, W), reduced to ``short_side``.

    Sharpness is log10 of the variance of the Laplacian of luminance, in 8-bit units (Pech-Pacheco et al. 2000), at the
    reduced size, so that photos of different resolution compare.
    """
    pixels = resize_short_side(pixels, short_side)
    attributes = measure(pixels)
    grey = 255 * luminance(srgb_to_linear(pixels)).clamp(min=0).sqrt()  # about as bright as it looks
    padded = torch.nn.functional.pad(grey[None, None], (1, 1, 1, 1), mode="replicate")[0, 0]
    around = padded[:-2, 1:-1] + padded[2:, 1:-1] + padded[1:-1, :-2] + padded[1:-1, 2:]
    variance = (around - 4 * grey).var(correction=0).clamp(min=1e-3)
    values = (attributes.exposure, attributes.contrast, attributes.chroma, attributes.temperature, variance.log10())
    return {name: round(float(value), 6) for name, value in zip(_MEASURED, values, strict=True)}


def compare(
    current: pandas.DataFrame,
    previous: pandas.DataFrame | None,
    settings: DriftSettings,
    revisions: tuple[str | None, str | None] = (None, None),
) -> DriftReport:
    """Compare two versions' profiles; ``previous`` is None for the first version.

    Args:
        revisions: names of the current and the previous version.
    """
    shifts = [_attribute_shift(name, current, previous, settings) for name in ATTRIBUTES]
    shifts += [_category_shift(name, current, previous, settings) for name in CATEGORIES]
    return DriftReport(
        current_revision=revisions[0],
        previous_revision=revisions[1],
        current_photos=len(current),
        previous_photos=None if previous is None else len(previous),
        moderate=settings.moderate,
        large=settings.large,
        shifts=tuple(shifts),
    )


def population_stability_index(current: np.ndarray, previous: np.ndarray) -> float:
    """PSI = sum (p - q) ln(p / q) of two histograms given as counts over the same bins.

    A bin that is empty in one version only counts as half an observation, so that the index stays finite.

    Source: Siddiqi (2006), "Credit risk scorecards", chapter 8 (with the customary thresholds 0.1 and 0.25); it is
    the symmetrised Kullback-Leibler divergence, Yurdakul and Naranjo (2020).
    """
    occupied = (current + previous) > 0
    p, q = (np.maximum(counts[occupied], 0.5) for counts in (current, previous))
    p, q = p / p.sum(), q / q.sum()
    return float(((p - q) * np.log(p / q)).sum())


def write_profile(frame: pandas.DataFrame, directory: Path, revision: str | None) -> None:
    """Keep a profile for the next version's comparison."""
    table = pyarrow.Table.from_pandas(frame, preserve_index=False)
    metadata = dict(table.schema.metadata or {}) | ({_REVISION_KEY: revision.encode()} if revision else {})
    with files.replacing(Path(directory) / PROFILE_FILE) as temporary:
        pyarrow.parquet.write_table(table.replace_schema_metadata(metadata), temporary, compression="zstd")


def read_profile(directory: Path) -> tuple[pandas.DataFrame, str | None]:
    """What `write_profile` wrote, and the revision it is of.

    Raises:
        FileNotFoundError: the directory holds no profile.
        ValueError: the file is of another version of this module.
    """
    path = Path(directory) / PROFILE_FILE
    if not path.is_file():
        raise FileNotFoundError(f"{path}: expected the profile of a data version; run the drift stage on it first")
    table = pyarrow.parquet.read_table(path)
    if missing := {"sha256", *ATTRIBUTES, "dataset", "split", "kind", "labels"} - set(table.column_names):
        raise ValueError(f"{path}: expected a profile, found a table without {', '.join(sorted(missing))}; remove it")
    revision = (table.schema.metadata or {}).get(_REVISION_KEY)
    return table.to_pandas(), revision.decode() if revision else None


def report_drift(
    manifest: Manifest, photos_dir: Path, out: Path, settings: DriftSettings, previous: Path | None = None
) -> DriftReport:
    """Measure a version, compare it with the one before, and write profile.parquet, drift.json and drift.html.

    Args:
        out: directory for the three files.
        previous: what this function wrote for the version before; None for the first.
    """
    before, before_revision = (None, None) if previous is None else read_profile(previous)
    current = profile(manifest, photos_dir, settings, before)
    report = compare(current, before, settings, (manifest.data_revision, before_revision))
    write_profile(current, out, manifest.data_revision)
    content = report.model_dump() | {"worst": report.worst}
    files.write_text(Path(out) / REPORT_FILE, json.dumps(content, indent=2, ensure_ascii=False) + "\n")
    files.write_text(Path(out) / PAGE_FILE, render_page(content))
    shifted = [f"{shift.name} ({shift.psi:.2f})" for shift in report.shifts if shift.verdict in ("moderate", "large")]
    if before is None:
        log.info("first data version: nothing to compare it with")
    else:
        log.info("drift: %s", f"PSI at or above {settings.moderate:g} for {', '.join(shifted)}" if shifted else "none")
    return report


def _chosen(manifest: Manifest, settings: DriftSettings) -> Iterator[PhotoRecord]:
    """The photos with the smallest hashes, so that versions that share photos measure the same ones of them."""

    def rank(record: PhotoRecord) -> str:
        return hashlib.sha256(f"{settings.seed}/{record.sha256}".encode()).hexdigest()

    yield from nsmallest(settings.photos, manifest, key=rank)


def _attribute_shift(
    name: str, current: pandas.DataFrame, previous: pandas.DataFrame | None, settings: DriftSettings
) -> Shift:
    now, before = _numbers(current, name), _numbers(previous, name)
    both = np.concatenate((now, before))
    if both.size:
        low, high = float(both.min()), float(both.max())
        edges = np.linspace(low, high if high > low else low + 1, 2 * settings.bins + 1)
    else:
        edges = np.linspace(0, 1, 2)
    psi = ks = p_value = None
    if now.size and before.size:
        quantiles = np.quantile(before, np.linspace(0, 1, settings.bins + 1))
        quantiles[-1] = np.nextafter(quantiles[-1], np.inf)  # what lies beyond all that was there has bins of its own
        limits = np.unique(quantiles)
        bins = (np.searchsorted(limits, values, "right") for values in (now, before))
        psi = population_stability_index(*(np.bincount(each, minlength=len(limits) + 1) for each in bins))
        test = scipy.stats.ks_2samp(now, before)
        ks, p_value = float(test.statistic), float(test.pvalue)
    return Shift(
        name=name,
        unit=ATTRIBUTES[name],
        bins=(),
        edges=tuple(edges.tolist()),
        current=_shares(np.histogram(now, edges)[0]),
        previous=_shares(np.histogram(before, edges)[0]) if before.size else (),
        current_count=now.size,
        previous_count=before.size,
        current_median=float(np.median(now)) if now.size else None,
        previous_median=float(np.median(before)) if before.size else None,
        psi=psi,
        ks=ks,
        ks_p_value=p_value,
        verdict=_verdict(psi, settings),
    )


def _category_shift(
    name: str, current: pandas.DataFrame, previous: pandas.DataFrame | None, settings: DriftSettings
) -> Shift:
    now, before = _values(current, name), _values(previous, name)
    values = sorted(now | before)
    counts = [np.array([found[value] for value in values]) for found in (now, before)]
    psi = population_stability_index(*counts) if now and before else None
    return Shift(
        name=name,
        unit="share of photos" if name != "label" else "share of labels",
        bins=tuple(values),
        edges=(),
        current=_shares(counts[0]),
        previous=_shares(counts[1]) if before else (),
        current_count=int(counts[0].sum()),
        previous_count=int(counts[1].sum()),
        psi=psi,
        verdict=_verdict(psi, settings),
    )


def _numbers(frame: pandas.DataFrame | None, name: str) -> np.ndarray:
    return np.empty(0) if frame is None else frame[name].dropna().to_numpy(np.float64)


def _values(frame: pandas.DataFrame | None, name: str) -> Counter[str]:
    if frame is None:
        return Counter()
    if name == "label":
        return Counter(label for labels in frame["labels"] for label in (labels if len(labels) else [_NO_VALUE]))
    return Counter(frame[name].tolist())


def _shares(counts: Sequence[int] | np.ndarray) -> tuple[float, ...]:
    total = max(1, int(np.sum(counts)))
    return tuple(round(float(count) / total, 6) for count in counts)


def _verdict(psi: float | None, settings: DriftSettings) -> DriftLevel:
    if psi is None:
        return "not comparable"
    return "large" if psi >= settings.large else "moderate" if psi >= settings.moderate else "stable"
