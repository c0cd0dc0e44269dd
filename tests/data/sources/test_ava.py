"""AVA: a table without a header, missing and truncated files, the authors' test list."""

from pathlib import Path

import pytest

from components.data.building import BuildSettings
from components.data.building import build as build_a_manifest
from components.data.sources.base import MISSING, SourceError, open_source
from tests.data.sources.layouts import read, save, skipped, write

LINES = (
    "1 953619 0 1 5 17 38 36 15 6 5 1 1 22 1396",
    "2 953958 10 7 15 26 26 21 10 8 1 2 15 21 1396",
    "3 954184 0 0 4 8 41 56 10 3 4 0 0 0 1396",
    "4 954113 0 0 0 0 0 0 0 0 0 129 5 0 1396",
    "5 953980 7 0 0 0 0 0 0 0 0 0 3 4 1396",
)


def build(root: Path, folder: str = "image") -> Path:
    for seed, line in enumerate(LINES):
        save(root / folder / f"{line.split()[1]}.jpg", seed)
    write(root / "aesthetics_image_lists" / "generic_test.jpgl", "953958", "954113")
    return write(root / "AVA.txt", *LINES)


def test_the_score_is_the_mean_of_the_ratings(tmp_path: Path) -> None:
    build(tmp_path)
    found = read(open_source("ava", tmp_path))
    record = found["image/953619.jpg"]
    counts = [0, 1, 5, 17, 38, 36, 15, 6, 5, 1]
    mean = sum(rating * count for rating, count in zip(range(1, 11), counts, strict=True)) / sum(counts)
    assert record.mos_original == pytest.approx(mean) and 5.6 < mean < 5.7
    assert record.mos == pytest.approx((mean - 1) / 9 * 100)
    assert (record.mos_low, record.mos_high, record.mos_ascending) == (1, 10, True)
    assert found["image/954113.jpg"].mos == 100 and found["image/953980.jpg"].mos == 0


def test_tags_of_0_are_none(tmp_path: Path) -> None:
    build(tmp_path)
    found = read(open_source("ava", tmp_path))
    assert found["image/953619.jpg"].labels == ("aesthetics", "tag=1", "tag=22", "challenge=1396")
    assert found["image/954184.jpg"].labels == ("aesthetics", "challenge=1396")
    assert found["image/954113.jpg"].labels == ("aesthetics", "tag=5", "challenge=1396")


def test_rights_and_origin(tmp_path: Path) -> None:
    build(tmp_path)
    record = read(open_source("ava", tmp_path))["image/953619.jpg"]
    assert "photographers" in record.licence
    assert record.source == "https://www.dpchallenge.com/image.php?IMAGE_ID=953619"


def test_the_split_is_the_authors_list(tmp_path: Path) -> None:
    build(tmp_path)
    splits = {path: record.split for path, record in read(open_source("ava", tmp_path)).items()}
    assert {path for path, split in splits.items() if split == "test"} == {"image/953958.jpg", "image/954113.jpg"}
    assert set(splits.values()) == {"train", "test"}


def test_without_the_lists_there_is_no_split(tmp_path: Path) -> None:
    build(tmp_path)
    (tmp_path / "aesthetics_image_lists" / "generic_test.jpgl").rename(tmp_path / "elsewhere")
    with pytest.raises(SourceError, match=r"generic_test.jpgl: missing"):
        open_source("ava", tmp_path)
    (tmp_path / "aesthetics_image_lists").rmdir()
    assert {record.split for record in read(open_source("ava", tmp_path)).values()} == {None}


@pytest.mark.parametrize("folder", ["images", "ava_images"])
def test_other_folder_names(folder: str, tmp_path: Path) -> None:
    build(tmp_path, folder)
    assert len(read(open_source("ava", tmp_path))) == 5


def test_missing_files_are_skipped_and_truncated_ones_quarantined(tmp_path: Path) -> None:
    build(tmp_path)
    (tmp_path / "image" / "953619.jpg").unlink()
    cut = tmp_path / "image" / "953958.jpg"
    cut.write_bytes(cut.read_bytes()[:-40])
    (tmp_path / "image" / "954184.jpg").write_bytes(b"")
    padded = tmp_path / "image" / "954113.jpg"
    padded.write_bytes(padded.read_bytes() + bytes(100))
    source = open_source("ava", tmp_path)
    assert skipped(source) == {"image/953619.jpg": MISSING}
    settings = BuildSettings(min_short_side=16)
    manifest = build_a_manifest([source], tmp_path / "out", settings, photos_dir=tmp_path)
    assert [record.path for record in manifest] == ["image/954113.jpg", "image/953980.jpg"]
    reasons = {entry.path: entry.reason for entry in manifest.quarantine}
    assert reasons["image/953619.jpg"] == MISSING
    assert "truncated" in reasons["image/953958.jpg"] and "empty" in reasons["image/954184.jpg"]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("6 953990 0 1 5 17 38 36 15 6 5 1 1 22", "line 6: expected 15 whole numbers, found '6 953990"),
        ("6 953990 0 1 5 17 38 36 15 6 5 1.5 1 22 1396", "line 6: expected 15 whole numbers"),
        ("6,953990,0,1,5,17,38,36,15,6,5,1,1,22,1396", "line 6: expected 15 whole numbers"),
        ("6 953990 0 0 0 0 0 0 0 0 0 0 1 22 1396", "line 6: expected the ratings of image 953990"),
    ],
)
def test_an_altered_table_is_an_error(line: str, words: str, tmp_path: Path) -> None:
    path = build(tmp_path)
    write(path, *LINES, line)
    with pytest.raises(SourceError, match=words) as caught:
        list(open_source("ava", tmp_path).records())
    assert caught.value.path == path and "ten counts" in str(caught.value)


def test_an_altered_list_is_an_error(tmp_path: Path) -> None:
    build(tmp_path)
    write(tmp_path / "aesthetics_image_lists" / "generic_test.jpgl", "953958.jpg")
    with pytest.raises(SourceError, match="expected one image id a line"):
        open_source("ava", tmp_path)
