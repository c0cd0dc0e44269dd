"""A user's own photos: two folders of pairs, or one folder of photos."""

from pathlib import Path

import pytest

from components.data.sources.base import SourceError, open_source
from components.data.sources.folders import NO_TARGET
from tests.data.sources.layouts import litter, pairs, read, save_all, skipped, write


def test_pairs_in_the_root_have_no_split(tmp_path: Path) -> None:
    save_all(tmp_path / "holiday", ["before/1.JPG", "after/1.png", "before/2.jpg"])
    settings = {"inputs": "before", "targets": "after", "kind": "retouching", "author": "A. Photographer"}
    source = open_source("paired_folder", tmp_path / "holiday", labels=("haze",), licence="CC BY 4.0", **settings)
    found = read(source)
    assert pairs(found) == {"holiday/1": (["before/1.JPG"], ["after/1.png"])}
    first, second = found["before/1.JPG"], found["after/1.png"]
    assert (first.dataset, first.split, first.kind, first.labels) == ("holiday", None, "retouching", ("haze",))
    assert (second.labels, second.licence, second.author) == ((), "CC BY 4.0", "A. Photographer")
    assert skipped(source) == {"before/2.jpg": NO_TARGET}


def test_folders_called_like_splits_are_splits(tmp_path: Path) -> None:
    save_all(tmp_path, [f"{split}/{role}/1.png" for split in ("train", "test") for role in ("input", "target")])
    found = read(open_source("paired_folder", tmp_path, dataset="mine"))
    assert {record.pair: record.split for record in found.values()} == {"mine/train/1": "train", "mine/test/1": "test"}


def test_a_missing_half_is_an_error(tmp_path: Path) -> None:
    save_all(tmp_path / "holiday", ["input/1.png"])
    with pytest.raises(SourceError, match=r"holiday: .*/holiday/target: missing"):
        open_source("paired_folder", tmp_path / "holiday")


def test_single_photos_in_folders(tmp_path: Path) -> None:
    save_all(tmp_path / "mine", ["2024/b.jpg", "2024/a.PNG", "c.webp"])
    write(tmp_path / "mine" / "2023" / "raw.NEF", "raw")
    litter(tmp_path / "mine" / "2024")
    found = read(open_source("single_folder", tmp_path / "mine", licence="CC0-1.0", labels=("holiday",)))
    assert list(found) == ["c.webp", "2023/raw.NEF", "2024/a.PNG", "2024/b.jpg"]
    record = found["2024/b.jpg"]
    assert (record.dataset, record.licence, record.labels, record.source) == ("mine", "CC0-1.0", ("holiday",), None)
    assert record.group == "mine/2024/b.jpg" and record.mos is None
