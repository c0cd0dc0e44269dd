"""Validation: a good manifest passes, each kind of bad one fails in words, and nothing leaves the given folder."""

import socket
from pathlib import Path

import pytest

from components.data.expectations import ValidationSettings, validate
from components.data.records import Manifest, PhotoRecord, Quarantined
from components.data.sources.base import MISSING
from tests.data.builders import record


def good() -> list:
    splits = ("train", "train", "validation", "test")
    return [
        record(f"{index}.jpg", split=split, perceptual_hash=f"{index * 0x1111111111111111:016x}", mos=50.0 + index)
        for index, split in enumerate(splits)
    ]


def test_a_good_manifest_passes_and_docs_are_built_without_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object) -> None:
        raise AssertionError(f"network access to {arguments}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.chdir(tmp_path)
    report = validate(Manifest.of(good()), tmp_path / "docs", ValidationSettings())
    assert report.success and not report.failures
    assert report.statistics["photos"] == 4 and report.statistics["photos_train"] == 2
    assert report.statistics["expectations"] == report.statistics["expectations_met"] > 10
    index = (tmp_path / "docs" / "index.html").read_text()
    assert "manifest" in index
    assert any((tmp_path / "docs" / "validations").rglob("*.html"))
    assert [path.name for path in tmp_path.iterdir()] == ["docs"]


@pytest.mark.slow
def test_each_fault_is_reported_in_words_with_the_photos_concerned(tmp_path: Path) -> None:
    first, second, third, fourth = good()
    bad = Manifest.of(
        [
            first,
            second.model_copy(update={"id": first.id, "licence": None}),
            third.model_copy(update={"perceptual_hash": f"{0b111:016x}", "width": 3}),
            fourth.model_copy(update={"sha256": first.sha256, "mos": 130.0, "bit_depth": 12}),
        ],
        quarantine=[Quarantined(path="x.jpg", reason="empty")] * 2,
    )
    report = validate(bad, tmp_path / "docs", ValidationSettings(min_test=5))
    assert not report.success
    text = "\n".join(report.failures)
    for words in (
        "ids occur twice (2): sample/0.jpg",
        "the same file occurs twice (2): sample/0.jpg, sample/3.jpg",
        "look like a photo of another split; set ingest.overlap_distance to 6 to leave out those that are trained on, "
        "or remove one of each two (2): sample/0.jpg, sample/2.jpg",
        "widths are out of range (1): sample/2.jpg",
        "no licence (1): sample/0.jpg",
        "opinion scores are outside 0..100 (1): sample/3.jpg",
        "bit depths are neither 8 nor 16 (1): sample/3.jpg",
        "the test split has fewer than 5 photos, found 1",
        "2 of 6 files are quarantined, more than 20%",
    ):
        assert words in text
    assert len(report.failures) == 9


def test_a_partly_downloaded_dataset_is_a_warning_with_counts(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    missing = [Quarantined(path=f"/data/koniq/{number}.jpg", reason=MISSING, absent=True) for number in range(90)]
    report = validate(Manifest.of(good(), quarantine=missing), tmp_path / "docs", ValidationSettings())
    assert report.success and report.statistics["absent"] == 90
    (warning,) = report.warnings
    assert "90 of 94 files are listed by their datasets and not there (the first: /data/koniq/0.jpg)" in warning
    assert warning in caplog.text
    half = [Quarantined(path="x.jpg", reason="empty")] * 2
    report = validate(Manifest.of(good(), quarantine=[*missing, *half]), tmp_path / "docs", ValidationSettings())
    assert report.failures == ("2 of 6 files are quarantined, more than 20%",)


@pytest.mark.slow
def test_near_duplicates_within_a_split_are_allowed(tmp_path: Path) -> None:
    first, second, third, fourth = good()
    twin = second.model_copy(update={"perceptual_hash": first.perceptual_hash})
    assert validate(Manifest.of([first, twin, third, fourth]), tmp_path / "docs", ValidationSettings()).success


@pytest.mark.slow
def test_rules_that_span_several_photos_or_columns(tmp_path: Path) -> None:
    def paired(index: int, pair: str, role: str, split: str = "train", **more: object) -> PhotoRecord:
        look = f"{(index + 20) * 0x0F1E2D3C4B5A6978 % 2**64:016x}"
        return record(f"p{index}.jpg", pair=pair, role=role, split=split, perceptual_hash=look, **more)

    published = {"mos_original": 4.0, "mos_low": 1.0, "mos_high": 5.0, "mos_ascending": True}
    fine = [
        paired(0, "a", "input", mos=75.0, **published),
        paired(1, "a", "target", mos=25.0, **(published | {"mos_ascending": False})),
        paired(2, "a", "target", sha256="1" * 64),
        paired(3, "b", "input"),
        paired(4, "b", "target", sha256="1" * 64),  # pairs may share a target
    ]
    assert validate(Manifest.of([*good(), *fine]), tmp_path / "docs", ValidationSettings()).success
    bad = [
        paired(5, "c", "input"),
        paired(6, "c", "target", split="test"),
        paired(7, "d", "input"),
        paired(8, "e", "input", mos=25.0, **published),
        paired(9, "e", "target").model_copy(update={"role": None}),
    ]
    report = validate(Manifest.of([*good(), *fine, *bad]), tmp_path / "docs", ValidationSettings())
    text = "\n".join(report.failures)
    for words in (
        "versions of one photo lie in several splits (2): sample/p5.jpg, sample/p6.jpg",
        "pairs lack their input or their target (3): sample/p7.jpg, sample/p8.jpg, sample/p9.jpg",
        "not the published ones on the scale of 0 to 100 (1): sample/p8.jpg",
        "a pair without a role, or a role alone (1): sample/p9.jpg",
    ):
        assert words in text
    assert len(report.failures) == 4
