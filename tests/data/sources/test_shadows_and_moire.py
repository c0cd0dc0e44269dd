"""ISTD and ISTD+, RDD, SRD and TMM22: two folders whose names agree in four different ways."""

import logging
from pathlib import Path

import pytest
from pydantic import ValidationError

from components.data.sources.base import SourceError, open_source
from components.data.sources.folders import NO_INPUT, NO_TARGET, UNEXPECTED_NAME
from tests.data.sources.layouts import litter, pairs, read, save_all, skipped, write


def istd(root: Path, fixed: bool = False, flat: bool = False) -> Path:
    for split, adjusted in (("train", "train_C_fixed_ours"), ("test", "test_C_fixed_official")):
        base = "" if flat else f"{split}/"
        folders = [f"{base}{split}_{letter}" for letter in "ABC"]
        if fixed:
            folders.append(f"{base}{adjusted}")
        save_all(root, [f"{folder}/{name}.png" for folder in folders for name in ("1-1", "1-2", "90-1")])
    return root


def test_istd_pairs_shadow_with_shadow_free_and_leaves_masks(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        found = read(open_source("istd", istd(tmp_path)))
    assert pairs(found)["istd/train/1-2"] == (["train/train_A/1-2.png"], ["train/train_C/1-2.png"])
    assert len(found) == 12 and not any("_B/" in path for path in found)
    assert {record.split for path, record in found.items() if path.startswith("test/")} == {"test"}
    assert {(record.role, record.labels) for record in found.values()} == {
        ("input", ("shadow",)),
        ("target", ("version=istd",)),
    }
    assert "get ISTD+" in caplog.text


@pytest.mark.parametrize("flat", [False, True])
def test_istd_plus_is_preferred(flat: bool, tmp_path: Path) -> None:
    found = read(open_source("istd", istd(tmp_path, fixed=True, flat=flat)))
    base = "" if flat else "test/"
    assert pairs(found)["istd/test/90-1"] == ([f"{base}test_A/90-1.png"], [f"{base}test_C_fixed_official/90-1.png"])
    assert {record.labels for record in found.values() if record.role == "target"} == {("version=istd_plus",)}


def test_istd_plus_in_the_root_beside_plain_istd(tmp_path: Path) -> None:
    istd(tmp_path)
    save_all(tmp_path, [f"train_C_fixed_ours/{name}.png" for name in ("1-1", "1-2", "90-1")])
    found = read(open_source("istd", tmp_path))
    assert "train_C_fixed_ours/1-1.png" in found and "train/train_C/1-1.png" not in found
    assert "test/test_C/1-1.png" in found


def test_istd_targets_are_a_choice(tmp_path: Path) -> None:
    istd(tmp_path, fixed=True)
    assert "train/train_C/1-1.png" in read(open_source("istd", tmp_path, targets="istd"))
    with pytest.raises(SourceError, match="train_C_fixed_ours: missing"):
        open_source("istd", istd(tmp_path / "plain"), targets="istd_plus")
    with pytest.raises(ValidationError):
        open_source("istd", tmp_path, targets="aistd")


def test_istd_without_targets_is_an_error(tmp_path: Path) -> None:
    save_all(tmp_path, ["train/train_A/1-1.png"])
    with pytest.raises(SourceError, match="train_C: missing"):
        open_source("istd", tmp_path)


def test_rdd_pairs_across_cases_of_the_extension(tmp_path: Path) -> None:
    save_all(tmp_path, ["train/img/0001.JPG", "train/gt/0001.jpg", "test/img/0001.jpg", "test/gt/0001.JPG"])
    save_all(tmp_path, ["train/img/0002.jpg", "train/gt/0003.jpg"])
    litter(tmp_path / "train" / "img")
    source = open_source("rdd", tmp_path)
    found = read(source)
    assert pairs(found) == {
        "rdd/train/0001": (["train/img/0001.JPG"], ["train/gt/0001.jpg"]),
        "rdd/test/0001": (["test/img/0001.jpg"], ["test/gt/0001.JPG"]),
    }
    assert found["train/img/0001.JPG"].labels == ("shadow", "document")
    assert skipped(source) == {"train/img/0002.jpg": NO_TARGET, "train/gt/0003.jpg": NO_INPUT}


def test_rdd_needs_both_folders(tmp_path: Path) -> None:
    save_all(tmp_path, ["train/img/0001.JPG"])
    with pytest.raises(SourceError, match=r"train/gt: missing"):
        open_source("rdd", tmp_path)


def test_srd_understands_three_ways_of_naming(tmp_path: Path) -> None:
    save_all(
        tmp_path,
        [
            "Train/shadow/IMG_6456.jpg",
            "Train/shadow_free/IMG_6456_no_shadow.jpg",
            "Test/shadow/IMG_5456.jpg",
            "Test/shadow_free/IMG_5456_free.jpg",
            "Test/shadow/IMG_5460.JPG",
            "Test/shadow_free/IMG_5460.jpg",
            "Test/shadow/IMG_5461.jpg",
        ],
    )
    source = open_source("srd", tmp_path)
    found = read(source)
    assert pairs(found) == {
        "srd/train/IMG_6456": (["Train/shadow/IMG_6456.jpg"], ["Train/shadow_free/IMG_6456_no_shadow.jpg"]),
        "srd/test/IMG_5456": (["Test/shadow/IMG_5456.jpg"], ["Test/shadow_free/IMG_5456_free.jpg"]),
        "srd/test/IMG_5460": (["Test/shadow/IMG_5460.JPG"], ["Test/shadow_free/IMG_5460.jpg"]),
    }
    assert {record.split for record in found.values() if record.path.startswith("Train")} == {"train"}
    assert skipped(source) == {"Test/shadow/IMG_5461.jpg": NO_TARGET}


def test_srd_in_the_root_is_split_by_the_suffix(tmp_path: Path) -> None:
    save_all(tmp_path, ["shadow/A.jpg", "shadow/B.jpg", "shadow_free/A_no_shadow.jpg", "shadow_free/B_free.jpg"])
    found = read(open_source("srd", tmp_path))
    assert {record.pair: record.split for record in found.values()} == {"srd/train/A": "train", "srd/test/B": "test"}


def test_tmm22_pairs_by_the_suffix(tmp_path: Path) -> None:
    save_all(tmp_path, ["trainset/moire_RGB/0001_m.png", "trainset/gt_RGB/0001_gt.png", "testset/gt_RGB/0001_gt.png"])
    save_all(tmp_path, ["testset/moire_RGB/0001_m.png", "testset/moire_RGB/0002.png"])
    write(tmp_path / "trainset" / "moire_RAW_npz" / "0001_m.npz", "raw")
    source = open_source("tmm22", tmp_path)
    found = read(source)
    assert pairs(found) == {
        "tmm22/train/0001": (["trainset/moire_RGB/0001_m.png"], ["trainset/gt_RGB/0001_gt.png"]),
        "tmm22/test/0001": (["testset/moire_RGB/0001_m.png"], ["testset/gt_RGB/0001_gt.png"]),
    }
    assert found["trainset/moire_RGB/0001_m.png"].labels == ("moire",)
    assert {record.licence for record in found.values()} == {"CC BY-NC-SA 4.0"}
    assert skipped(source) == {"testset/moire_RGB/0002.png": UNEXPECTED_NAME}


def test_tmm22_needs_both_folders(tmp_path: Path) -> None:
    save_all(tmp_path, ["trainset/moire_RGB/0001_m.png"])
    with pytest.raises(SourceError, match=r"gt_RGB: missing[\s\S]*<id>_gt.png"):
        open_source("tmm22", tmp_path)
