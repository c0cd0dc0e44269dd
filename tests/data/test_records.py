"""Manifests survive being written, and other files are refused by name."""

from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from components.data.records import Manifest, Quarantined, read_manifest, write_manifest
from tests.data.builders import record


def test_a_manifest_round_trips(tmp_path: Path) -> None:
    records = [record("a.jpg", mos=62.5, labels=("noise", "jpeg")), record("b.jpg", split="test", author="B")]
    quarantine = [Quarantined(path="c.jpg", reason='empty, "really"')]
    write_manifest(Manifest.of(records, "abc.dir", quarantine), tmp_path)
    again = read_manifest(tmp_path)
    assert list(again) == records and len(again) == 2
    assert again.data_revision == "abc.dir"
    assert again.quarantine == tuple(quarantine)
    assert again.frame()["mos"].tolist()[0] == 62.5


def test_an_empty_manifest_round_trips(tmp_path: Path) -> None:
    write_manifest(Manifest.of([]), tmp_path)
    assert list(read_manifest(tmp_path)) == [] and read_manifest(tmp_path).data_revision is None


def test_a_missing_manifest_and_another_schema_are_errors(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="ingest"):
        read_manifest(tmp_path)
    pyarrow.parquet.write_table(pyarrow.table({"id": ["a"], "surprise": [1]}), tmp_path / "manifest.parquet")
    with pytest.raises(ValueError, match="surprise"):
        read_manifest(tmp_path)
