"""Datasets as people have them on disk: nested by archives, repacked by others, or still packed."""

from pathlib import Path

import pytest

from components.data.sources.base import SourceError, open_source
from components.data.sources.srd import Srd
from tests.data.sources.layouts import pairs, read, save_all, write
from tests.data.sources.miniatures import MINIATURES


@pytest.mark.parametrize("nesting", ["Unpacked", "Unpacked/dataset_v1"])
@pytest.mark.parametrize("name", sorted(MINIATURES))
def test_a_dataset_is_found_a_level_or_two_below_what_is_named(name: str, nesting: str, tmp_path: Path) -> None:
    MINIATURES[name](tmp_path / "plain")
    MINIATURES[name](tmp_path / "data" / nesting)
    write(tmp_path / "data" / "readme.txt", "downloaded yesterday")
    plain, nested = open_source(name, tmp_path / "plain"), open_source(name, tmp_path / "data")
    expected = [(plain.root / record.path).relative_to(tmp_path / "plain") for record in plain.records()]
    found = [(nested.root / record.path).relative_to(tmp_path / "data" / nesting) for record in nested.records()]
    assert found == expected
    assert [record.pair for record in nested.records()] == [record.pair for record in plain.records()]


@pytest.mark.parametrize("name", sorted(set(MINIATURES) - {"gopro", "istd", "srd"}))
def test_a_folder_inside_the_dataset_is_told_where_it_begins(name: str, tmp_path: Path) -> None:
    """Of those of which a part is no dataset by itself."""
    MINIATURES[name](tmp_path / "data")
    inner = sorted(path for path in (tmp_path / "data").iterdir() if path.is_dir())[-1]
    with pytest.raises(SourceError, match=rf"{inner.name}: .* begins at {tmp_path}/data: set root to that"):
        open_source(name, inner)


@pytest.mark.parametrize("name", sorted(MINIATURES))
def test_what_is_still_packed_is_named(name: str, tmp_path: Path) -> None:
    write(tmp_path / "data" / "part_1.zip", "packed")
    write(tmp_path / "data" / "inner" / "photos.tar.gz", "packed")
    with pytest.raises(SourceError, match=r"still packed, unpack first: part_1\.zip, inner/photos\.tar\.gz; .*inner/"):
        open_source(name, tmp_path / "data")
    with pytest.raises(SourceError, match=r"part_1\.zip: this is a file: unpack it and name the folder"):
        open_source(name, tmp_path / "data" / "part_1.zip")
    write(tmp_path / "more.zip", "packed")
    with pytest.raises(SourceError, match=r"no such folder; more\.zip beside it is still packed: unpack it"):
        open_source(name, tmp_path / "more")


PARTS = {
    "koniq10k": {"1024x768": "photos/1024x768/1024x768", "koniq10k_distributions_sets.csv": "scores/{part}"},
    "kadid10k": {"images": "kadid10k/images/images", "dmos.csv": "scores/kadid10k/{part}"},
    "ava": {"image": "images/images", "AVA.txt": "AVA_dataset/{part}"},
    "realblur": {
        "RealBlur-J_ECC_IMCORR_centroid_itensity_ref": "RealBlur/J/{part}",
        "RealBlur_J_test_list.txt": "lists/{part}",
    },
}
"""Where parts that are downloaded one by one come to lie."""


@pytest.mark.parametrize("name", PARTS)
def test_parts_that_were_unpacked_one_by_one(name: str, tmp_path: Path) -> None:
    MINIATURES[name](tmp_path / "plain")
    MINIATURES[name](tmp_path / "parts")
    for part, place in PARTS[name].items():
        target = tmp_path / "parts" / place.format(part=part)
        target.parent.mkdir(parents=True)
        (tmp_path / "parts" / part).rename(target)
    plain, parts = (list(open_source(name, tmp_path / root).records()) for root in ("plain", "parts"))
    assert len(plain) == len(parts) > 0
    for one, other in zip(plain, parts, strict=True):
        assert Path(one.path).name == Path(other.path).name
        assert (one.split, one.mos, one.pair) == (other.split, other.mos, other.pair)


def test_two_of_a_kind_below_one_folder_need_a_choice(tmp_path: Path) -> None:
    for name in ("a", "b"):
        MINIATURES["srd"](tmp_path / name)
    with pytest.raises(SourceError, match=rf"set root to one of them: {tmp_path}/a, {tmp_path}/b"):
        open_source("srd", tmp_path)
    assert open_source("srd", tmp_path / "b").root == tmp_path / "b"


def test_a_closed_folder_beside_the_dataset_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    MINIATURES["srd"](tmp_path / "srd")
    (tmp_path / "lost+found").mkdir()
    original = Srd.prepare

    def prepare(source: Srd) -> None:
        if source.root.name == "lost+found":
            raise PermissionError(13, "Permission denied", str(source.root))
        original(source)

    monkeypatch.setattr(Srd, "prepare", prepare)
    assert open_source("srd", tmp_path).root == tmp_path / "srd"
    with pytest.raises(PermissionError):
        open_source("srd", tmp_path / "lost+found")


def test_a_dataset_beside_the_named_folder_is_not_taken_for_it(tmp_path: Path) -> None:
    MINIATURES["istd"](tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceError, match=r"train_A: missing.* In .*empty: the folder is empty"):
        open_source("istd", tmp_path / "empty")


def test_the_groups_of_foundir_are_found_below_their_list(tmp_path: Path) -> None:
    MINIATURES["foundir"](tmp_path / "FoundIR" / "Testset")
    (tmp_path / "FoundIR" / "Testset" / "Testset_meta_info.txt").rename(tmp_path / "FoundIR" / "Testset_meta_info.txt")
    assert {record.split for record in open_source("foundir", tmp_path / "FoundIR").records()} == {"test"}
    (tmp_path / "FoundIR" / "Testset_meta_info.txt").unlink()
    with pytest.raises(SourceError, match="option split"):
        open_source("foundir", tmp_path / "FoundIR")


@pytest.mark.parametrize(
    ("inner", "halves"),
    [
        ("GoPro/{split}", ("input", "target")),  # NAFNet
        ("GoPro/{split}", ("blur_crops", "sharp_crops")),
        ("Datasets/{split}/GoPro", ("input", "target")),  # Restormer
        ("Datasets/{split}/GoPro", ("input_crops", "target_crops")),
    ],
)
def test_repacks_of_gopro(inner: str, halves: tuple[str, str], tmp_path: Path) -> None:
    for split in ("train", "test"):
        save_all(tmp_path, [f"{inner.format(split=split)}/{half}/GOPR0372_07_00-000047.png" for half in halves])
    found = read(open_source("gopro", tmp_path))
    assert set(pairs(found)) == {f"gopro/{split}/GOPR0372_07_00-000047" for split in ("train", "test")}


def test_fivek_as_adaint_lays_it_out(tmp_path: Path) -> None:
    MINIATURES["fivek"](tmp_path)
    (tmp_path / "train_input.txt").unlink()
    (tmp_path / "train_label.txt").unlink()
    write(tmp_path / "train.txt", "a1", "a2")
    found = {record.pair: record.split for record in open_source("fivek", tmp_path).records()}
    assert found == {"fivek/a1": "train", "fivek/a2": "train", "fivek/a3": "test"}


def test_srd_in_the_folders_of_istd(tmp_path: Path) -> None:
    save_all(tmp_path, ["train/train_A/A.jpg", "train/train_B/A.jpg", "train/train_C/A_no_shadow.jpg"])
    save_all(tmp_path, ["test/test_A/B.jpg", "test/test_C/B_free.jpg"])
    found = read(open_source("srd", tmp_path))
    assert pairs(found) == {
        "srd/train/A": (["train/train_A/A.jpg"], ["train/train_C/A_no_shadow.jpg"]),
        "srd/test/B": (["test/test_A/B.jpg"], ["test/test_C/B_free.jpg"]),
    }
