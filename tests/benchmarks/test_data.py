"""The benchmark of the data layer measures what it says, on a corpus small enough for a test."""

import json
import multiprocessing
from multiprocessing.queues import SimpleQueue
from pathlib import Path

import pytest
from PIL import Image

from benchmarks import data as benchmark
from benchmarks import validation_load
from benchmarks.validation_load import synthetic_records
from components.command_line import run
from components.data.records import Manifest


@pytest.fixture
def small(photos_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A corpus of eight photos, measured once."""
    monkeypatch.setattr(benchmark, "PHOTOS", photos_dir)
    monkeypatch.setattr(benchmark, "_CORPUS", 8)
    monkeypatch.setattr(benchmark, "_REPEATS", 1)
    monkeypatch.setattr(benchmark, "_SHARD", 3)


def test_sections_give_rows_with_their_peers(small: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "data.json"
    assert run(benchmark.main, ["manifest", "shards", "--out", str(out)]) == 0
    rows = json.loads(out.read_text())["rows"]
    assert [row["target"] for row in rows] == ["ratio >= 0.8"] * 2 + ["for information"] * 2 + ["ratio >= 0.9"]
    assert all(row["value"] > 0 and row["ratio"] == pytest.approx(row["value"] / row["peer"]) for row in rows)
    assert "SmartPhotoCrafter: figures" in capsys.readouterr().out
    assert run(benchmark.main, ["synthetic-photos"]) == 2
    assert "'synthetic-photos' is not one of 'manifest'" in capsys.readouterr().err


def test_synthesis_is_compared_with_its_peers(
    photos_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(benchmark, "find_spec", lambda name: None)
    assert run(benchmark.main, ["synthesis"]) == 2
    assert "not installed: kornia, albumentations" in capsys.readouterr().err
    monkeypatch.undo()
    measured = pytest.importorskip("benchmarks.synthesis", reason="needs the extra: benchmark")
    monkeypatch.setattr(measured, "SIZE", (520, 530))
    monkeypatch.setattr(measured, "_PHOTOS", 1)
    monkeypatch.setattr(measured, "_ROUNDS", 1)
    rows = measured.synthesis_rows(photos_dir)
    names = [row.name for row in rows]
    assert len(names) == len(set(names)) and len(rows) == 1 + 6 + 4
    assert all(row.value > 0 and row.peer > 0 for row in rows if row.unit == "MP/s")
    assert all(row.value < 0.02 for row in rows if row.unit != "MP/s"), "every error is a matter of rounding"


@pytest.mark.slow
def test_the_peak_is_that_of_the_process_alone(tmp_path: Path) -> None:
    def child(results: SimpleQueue) -> None:
        low = validation_load.peak_bytes()
        ballast = bytearray(4 * 10**8)
        ballast[::4096] = b"x" * len(ballast[::4096])
        del ballast
        results.put((low, validation_load.peak_bytes()))

    context = multiprocessing.get_context("fork")
    results = context.SimpleQueue()
    process = context.Process(target=child, args=(results,))
    process.start()
    low, high = results.get()
    process.join()
    assert 3.9e8 < high - low < 4.5e8
    with pytest.raises(RuntimeError, match="VmHWM"):
        validation_load.peak_bytes(tmp_path / "status")


def test_the_corpus_has_a_megapixel_and_no_copies(small: None, tmp_path: Path) -> None:
    folder = benchmark.write_corpus(tmp_path / "corpus", 8)
    contents = {path.read_bytes() for path in folder.iterdir()}
    assert len(contents) == 8
    with Image.open(next(folder.iterdir())) as image:
        assert image.width * image.height == pytest.approx(1e6, rel=0.01)


@pytest.mark.slow
def test_the_synthetic_manifest_is_valid(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(validation_load.main, [str(tmp_path), "240"]) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found["success"], found["failures"]
    assert found["seconds"] > 0 and found["peak_bytes"] > 1e7
    manifest = Manifest.of(synthetic_records(240))
    assert {record.split for record in manifest} == {"train", "validation", "test"}
    assert (
        sum(record.pair is not None for record in manifest) == sum(record.mos is not None for record in manifest) == 80
    )
