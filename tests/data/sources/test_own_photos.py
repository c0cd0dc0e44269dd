"""A user's own photos: two folders of pairs, or one folder of photos."""

import logging
from pathlib import Path

import pytest

from components.data.building import BuildSettings, build
from components.data.ingest import DatasetSettings, IngestSettings, build_manifest
from components.data.sources.base import SourceError, open_source
from components.data.sources.folders import NO_TARGET, OTHER_FORMAT, SAME_STEM, SIDECAR
from components.data.sources.own_photos import plain_stem
from components.data.sources.paired_folder import OUTSIDE
from tests.data.sources.layouts import litter, pairs, read, save_all, skipped, write
from tests.data.sources.miniatures import MINIATURES, pictures


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


def test_raw_photos_edits_and_subfolders_are_paired(tmp_path: Path) -> None:
    root = tmp_path / "edits"
    for name in ("input/2024/IMG_1.CR3", "input/2024/IMG_1.xmp", "input/2024/IMG_2.NEF", "input/2023/IMG_1.dng"):
        write(root / name, name)
    save_all(root, ["input/2024/IMG_3.jpg", "input/IMG_4.jpg", "input/IMG_5.jpg", "input/2024/IMG_2.JPG"])
    save_all(root, ["target/2024/IMG_1-Edit.tif", "target/2024/IMG_2.jpg", "target/2023/IMG_1.jpg"])
    save_all(root, ["target/2024/IMG_3 copy.png", "target/IMG_4-Edit.tif", "target/IMG_4 copy.tif", "other/IMG_5.jpg"])
    write(root / "notes.txt", "of the shoot")
    source = open_source("paired_folder", root)
    assert pairs(read(source)) == {
        "edits/2023/IMG_1": (["input/2023/IMG_1.dng"], ["target/2023/IMG_1.jpg"]),
        "edits/2024/IMG_1": (["input/2024/IMG_1.CR3"], ["target/2024/IMG_1-Edit.tif"]),
        "edits/2024/IMG_2": (["input/2024/IMG_2.JPG"], ["target/2024/IMG_2.jpg"]),
        "edits/2024/IMG_3": (["input/2024/IMG_3.jpg"], ["target/2024/IMG_3 copy.png"]),
    }
    assert skipped(source) == {
        "input/2024/IMG_1.xmp": SIDECAR,
        "input/2024/IMG_2.NEF": OTHER_FORMAT,
        "input/IMG_4.jpg": SAME_STEM,
        "target/IMG_4-Edit.tif": SAME_STEM,
        "target/IMG_4 copy.tif": SAME_STEM,
        "input/IMG_5.jpg": NO_TARGET,
        "other/IMG_5.jpg": OUTSIDE,
        "notes.txt": OUTSIDE,
    }
    assert "input/2024/IMG_2.NEF" in read(open_source("paired_folder", root, shots="raw"))


def test_two_folders_of_one_name_are_named_apart(photos_dir: Path, tmp_path: Path) -> None:
    for year in ("2023", "2024"):
        pictures(tmp_path / year / "holiday", [f"{year}.jpg", f"{year}b.jpg"])
    entries = [DatasetSettings(name="single_folder", root=tmp_path / year / "holiday") for year in ("2023", "2024")]
    attribution = photos_dir / "ATTRIBUTION.csv"
    settings = IngestSettings(sources=tuple(entries))
    manifest = build_manifest(photos_dir, attribution, tmp_path / "out", settings)
    assert {record.dataset for record in manifest} == {"sample", "holiday", "2024-holiday"}
    assert len({record.id for record in manifest}) == len(manifest) == 10
    again = tuple(entry.model_copy(update={"options": {"dataset": "sample"}}) for entry in entries)
    with pytest.raises(ValueError, match="the name sample is taken by another source: set its option dataset"):
        build_manifest(photos_dir, attribution, tmp_path / "out", IngestSettings(sources=again))


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


def card(root: Path, shots: int = 6) -> Path:
    """A photographer's card: raw, JPEG and settings of each shot, a clip and its thumbnail, an edit."""
    for number in range(shots):
        save_all(root, [f"DCIM/IMG_{number}.JPG"])
        write(root / "DCIM" / f"IMG_{number}.CR3", f"raw {number}")
        write(root / "DCIM" / f"IMG_{number}.xmp", "settings")
    write(root / "DCIM" / "MVI_9.MOV", "clip")
    write(root / "DCIM" / "MVI_9.THM", "thumbnail")
    save_all(root, ["DCIM/IMG_2-Edit.tif", "DCIM/img_3.png"])
    return root


def test_raw_and_jpeg_of_a_shot_are_one_photo_and_sidecars_are_none(tmp_path: Path) -> None:
    source = open_source("single_folder", card(tmp_path / "card"))
    found = read(source)
    jpegs = {f"DCIM/IMG_{number}.JPG" for number in range(6)}
    assert set(found) == jpegs | {"DCIM/IMG_2-Edit.tif", "DCIM/img_3.png"}
    assert source.skipped == {OTHER_FORMAT: 6, SIDECAR: 8}
    scenes = {path: record.scene for path, record in found.items() if record.scene}
    assert scenes == {
        "DCIM/IMG_2.JPG": "card/DCIM/img_2",
        "DCIM/IMG_2-Edit.tif": "card/DCIM/img_2",
        "DCIM/IMG_3.JPG": "card/DCIM/img_3",
        "DCIM/img_3.png": "card/DCIM/img_3",
    }
    raws = read(open_source("single_folder", tmp_path / "card", shots="raw"))
    assert {path for path in raws if path.endswith("CR3")} == {f"DCIM/IMG_{number}.CR3" for number in range(6)}
    assert "DCIM/IMG_1.JPG" not in raws


def test_what_lies_beside_photos_is_told_and_not_quarantined(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    MINIATURES["koniq10k"](tmp_path)
    folder = tmp_path / "1024x768"
    for name in ("1.xmp", "1.CR2", "clip.mov"):
        write(folder / name, "beside")
    source = open_source("single_folder", folder)
    with caplog.at_level(logging.WARNING):
        manifest = build([source], tmp_path / "out", BuildSettings(), photos_dir=folder)
    assert [record.path for record in manifest] == ["1.jpg", "2.jpg"] and not manifest.quarantine
    assert "1024x768: skipped 2 files: a sidecar" in caplog.text and "skipped 1 files: another format" in caplog.text


@pytest.mark.parametrize(
    "name",
    ["IMG_1-Edit", "IMG_1 copy", "IMG_1-Edit-2", "IMG_1 (1)", "IMG_1 - Copy (2)", "IMG_1_edited", "IMG_1 copy 2"],
)
def test_what_programs_append_to_a_name_is_known(name: str) -> None:
    assert plain_stem(name) == "IMG_1"
    assert plain_stem("IMG_1_2") == "IMG_1_2" and plain_stem("credit") == "credit" and plain_stem("copy") == "copy"
