"""Drift between data versions, against scipy, closed forms and photos changed by known amounts."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pandas
import pytest
import scipy.stats
import torch
from pydantic import ValidationError

from components.data import drift
from components.data.drift import (
    DriftSettings,
    attributes_of,
    compare,
    population_stability_index,
    profile,
    read_profile,
    report_drift,
    write_profile,
)
from components.data.records import Manifest
from components.photometry.adjustments import adjust
from components.photometry.degradations import defocus_blur
from tests.data.builders import record


def frame(values: np.ndarray, **more: object) -> pandas.DataFrame:
    columns = dict.fromkeys(drift.ATTRIBUTES, values) | {"dataset": "a", "split": "train", "kind": "(none)"} | more
    rows = pandas.DataFrame(columns)
    rows["sha256"] = [f"{number:064x}" for number in range(len(rows))]
    rows["labels"] = [["noise"]] * len(rows)
    return rows


def shift(report: drift.DriftReport, name: str) -> drift.Shift:
    return next(shift for shift in report.shifts if shift.name == name)


def test_psi_is_the_symmetrised_divergence() -> None:
    p, q = np.array([30, 50, 20]), np.array([10, 60, 130])
    expected = scipy.stats.entropy(p, q) + scipy.stats.entropy(q, p)  # both normalise
    assert population_stability_index(p, q) == pytest.approx(expected) == population_stability_index(q, p)
    assert population_stability_index(p, 2 * p) == 0
    assert np.isfinite(population_stability_index(np.array([0, 10]), np.array([10, 0])))


def test_a_shifted_normal_has_the_psi_of_its_closed_form() -> None:
    """For N(0, 1) and N(d, 1) the symmetrised divergence is d^2; deciles see nearly all of it."""
    draws = np.random.default_rng(0).standard_normal((2, 20_000))
    report = compare(frame(draws[0] + 0.5), frame(draws[1]), DriftSettings(bins=50))
    found = shift(report, "exposure")
    assert found.psi == pytest.approx(0.25, abs=0.03)
    assert found.ks == pytest.approx(2 * scipy.stats.norm.cdf(0.25) - 1, abs=0.015)
    assert found.ks_p_value < 1e-9
    assert found.current_median - found.previous_median == pytest.approx(0.5, abs=0.05)


def test_samples_of_one_distribution_are_stable() -> None:
    draws = np.random.default_rng(1).gamma(2.0, size=(2, 3000))
    report = compare(frame(draws[0]), frame(draws[1]), DriftSettings())
    assert report.worst == "stable"
    for name in drift.ATTRIBUTES:
        found = shift(report, name)
        assert found.psi < 0.02 and sum(found.current) == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize(("moved", "verdict"), [(0.1, "stable"), (0.38, "moderate"), (1.0, "large")])
def test_thresholds_decide_the_verdict(moved: float, verdict: str) -> None:
    draws = np.random.default_rng(2).standard_normal((2, 8000))
    report = compare(frame(draws[0] + moved), frame(draws[1]), DriftSettings())
    assert shift(report, "contrast").verdict == verdict == report.worst
    generous = compare(frame(draws[0] + moved), frame(draws[1]), DriftSettings(moderate=5, large=9))
    assert generous.worst == "stable"
    with pytest.raises(ValidationError, match="moderate < large"):
        DriftSettings(moderate=0.3)


def test_a_changed_mixture_of_datasets_and_labels_is_seen() -> None:
    values = np.random.default_rng(3).standard_normal(1000)
    before = frame(values, dataset=["a"] * 500 + ["b"] * 500)
    after = frame(values, dataset=["a"] * 900 + ["c"] * 100)
    after["labels"] = [["noise", "haze"]] * 1000
    report = compare(after, before, DriftSettings())
    found = shift(report, "dataset")
    assert (found.bins, found.current, found.previous) == (("a", "b", "c"), (0.9, 0.0, 0.1), (0.5, 0.5, 0.0))
    assert found.verdict == "large" == shift(report, "label").verdict
    assert shift(report, "split").psi == 0 and shift(report, "exposure").verdict == "stable"


def test_the_first_version_and_missing_scores_are_no_error() -> None:
    alone = frame(np.arange(5.0))
    alone["mos"] = np.nan
    report = compare(alone, None, DriftSettings())
    assert report.worst == "not comparable" and report.previous_photos is None
    assert all(shift.psi is None and shift.previous == () for shift in report.shifts)
    rated = compare(frame(np.arange(5.0)), alone, DriftSettings())
    assert shift(rated, "mos").verdict == "not comparable" and shift(rated, "chroma").verdict == "stable"


def test_constant_attributes_compare() -> None:
    report = compare(frame(np.full(50, 2.0)), frame(np.full(40, 2.0)), DriftSettings())
    assert shift(report, "size").psi == 0 and shift(report, "size").verdict == "stable"
    assert compare(frame(np.full(50, 3.0)), frame(np.full(40, 2.0)), DriftSettings()).worst == "large"


def test_measured_attributes_follow_known_changes(photo_factory) -> None:
    photo = photo_factory(96, 128)
    plain = attributes_of(photo, 96)
    assert attributes_of(adjust(photo, [("exposure", -1)]), 96)["exposure"] == pytest.approx(
        plain["exposure"] - 1, abs=0.02
    )
    warmer = attributes_of(adjust(photo, [("temperature", 40)]), 96)["temperature"]
    assert warmer == pytest.approx(plain["temperature"] + 40, abs=6)
    assert attributes_of(defocus_blur(photo, 0.03), 96)["sharpness"] < plain["sharpness"] - 0.3


def test_sharpness_is_opencvs_laplacian(photo_factory) -> None:
    level = photo_factory(80, 100)[:1].expand(3, -1, -1)
    linear = np.where(level[0] <= 0.04045, level[0] / 12.92, ((level[0].double() + 0.055) / 1.055) ** 2.4)
    laplacian = cv2.Laplacian(255 * np.sqrt(linear), cv2.CV_64F, ksize=1, borderType=cv2.BORDER_REPLICATE)
    assert attributes_of(level, 80)["sharpness"] == pytest.approx(np.log10(laplacian.var()), abs=1e-4)


class Checker(HTMLParser):
    """Collects tags; a page that loads or runs anything is not self-contained."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        assert tag not in ("script", "link", "img", "iframe")
        assert not any(name in ("src", "href") for name, _ in attrs)


def test_reports_of_two_versions(manifest: Manifest, photos_dir: Path, tmp_path: Path, monkeypatch) -> None:
    first = report_drift(manifest, photos_dir, tmp_path / "first", DriftSettings())
    assert first.worst == "not comparable" and first.current_photos == 6
    assert "nothing to compare it with yet" in (tmp_path / "first" / "drift.html").read_text()

    read: list[Path] = []
    monkeypatch.setattr(drift, "read_photo", lambda path: read.append(path))
    extra = [item.model_copy(update={"dataset": "<b>&", "labels": ("haze",)}) for item in manifest]
    second = report_drift(
        Manifest.of(extra, "r2"), photos_dir, tmp_path / "second", DriftSettings(), tmp_path / "first"
    )
    assert not read, "photos with the same bytes are not read again"
    assert second.current_revision == "r2" and second.previous_photos == 6
    stored = json.loads((tmp_path / "second" / "drift.json").read_text())
    assert stored["worst"] == "large" == shift(second, "dataset").verdict
    assert shift(second, "exposure").psi == 0

    page = (tmp_path / "second" / "drift.html").read_text()
    checker = Checker()
    checker.feed(page)
    assert checker.tags.count("svg") >= 9 and "<b>&" not in page and "&lt;b&gt;&amp;" in page
    assert re.search(r"dataset</td><td>\d", page)


def test_the_same_photos_are_chosen_in_every_version(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setattr(drift, "read_photo", lambda path: type("Photo", (), {"pixels": torch.full((3, 8, 8), 0.5)}))
    records = [record(f"{number}.jpg") for number in range(60)]
    settings = DriftSettings(photos=20)
    some = profile(Manifest.of(records), tmp_path, settings)
    more = profile(Manifest.of(records[10:]), tmp_path, settings)
    assert len(some) == len(more) == 20
    assert len(set(some["sha256"]) & set(more["sha256"])) >= 12
    assert set(some["sha256"]) != set(
        profile(Manifest.of(records), tmp_path, DriftSettings(photos=20, seed=1))["sha256"]
    )


def test_profiles_are_read_back_with_their_revision(tmp_path: Path) -> None:
    rows = frame(np.arange(4.0))
    write_profile(rows, tmp_path, "abc")
    read, revision = read_profile(tmp_path)
    assert revision == "abc" and compare(read, rows, DriftSettings()).worst == "stable"
    with pytest.raises(FileNotFoundError, match="run the drift stage"):
        read_profile(tmp_path / "nowhere")
    pandas.DataFrame({"sha256": ["x"]}).to_parquet(tmp_path / "profile.parquet")
    with pytest.raises(ValueError, match="without chroma"):
        read_profile(tmp_path)
