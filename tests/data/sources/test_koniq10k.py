"""KonIQ-10k: two score files with one column name and two scales."""

from pathlib import Path

import pytest

from components.data.sources.base import SourceError, open_source
from tests.data.sources.layouts import read, save, skipped, write

SETS = "image_name,c1,c2,c3,c4,c5,c_total,MOS,SD,set"
SCORES = '"image_name","c1","c2","c3","c4","c5","c_total","MOS","SD","MOS_zscore"'


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for seed, name in enumerate(("10004473376", "10007357496", "10012325974")):
        for size, pixels in (("1024x768", (64, 48)), ("512x384", (32, 24))):
            save(tmp_path / size / f"{name}.jpg", seed, pixels)
    return tmp_path


def published_sets(root: Path) -> Path:
    return write(
        root / "koniq10k_distributions_sets.csv",
        SETS,
        "10004473376.jpg,0,0,25,73,7,105,71.08,0.55,training",
        "10007357496.jpg,0,3,45,47,1,96,59.33,0.62,validation",
        "10012325974.jpg,30,60,10,0,0,100,18.5,0.6,test",
    )


def published_scores(root: Path) -> Path:
    return write(
        root / "koniq10k_scores_and_distributions.csv",
        SCORES,
        '"10004473376.jpg",0,0,25,73,7,105,3.828571429,0.527278894,63.9686289',
        '"10007357496.jpg",0,3,45,47,1,96,3.479166667,0.580003024,55.3572',
        '"10012325974.jpg",30,60,10,0,0,100,1.8,0.6,15.25',
    )


def test_the_sets_file_holds_scores_to_100_and_the_split(root: Path) -> None:
    published_sets(root)
    found = read(open_source("koniq10k", root))
    assert {path: (record.mos, record.split) for path, record in found.items()} == {
        "1024x768/10004473376.jpg": (71.08, "train"),
        "1024x768/10007357496.jpg": (59.33, "validation"),
        "1024x768/10012325974.jpg": (18.5, "test"),
    }
    record = found["1024x768/10004473376.jpg"]
    assert (record.mos_original, record.mos_low, record.mos_high, record.mos_ascending) == (71.08, 0, 100, True)
    assert record.labels == ("quality",) and record.pair is None and record.dataset == "koniq10k"
    assert "Creative Commons" in record.licence and record.source.startswith("http")


def test_the_scores_file_is_read_by_its_z_scores(root: Path) -> None:
    published_scores(root)
    found = read(open_source("koniq10k", root, size="512x384"))
    assert list(found) == [f"512x384/{name}.jpg" for name in ("10004473376", "10007357496", "10012325974")]
    assert [record.mos for record in found.values()] == [63.9686289, 55.3572, 15.25]
    assert {record.split for record in found.values()} == {None}


def test_a_score_from_1_to_5_is_recognised_by_the_ratings_beside_it(root: Path) -> None:
    path = published_scores(root)
    lines = [line.rpartition(",")[0] for line in path.read_text().splitlines()]
    write(path, *lines)
    found = list(read(open_source("koniq10k", root)).values())
    assert [record.mos_original for record in found] == [3.828571429, 3.479166667, 1.8]
    assert (found[0].mos_low, found[0].mos_high) == (1, 5)
    assert found[2].mos == pytest.approx(20)


def test_low_scores_on_the_large_scale_are_not_taken_for_the_small_one(root: Path) -> None:
    rows = [f"{name}.jpg,90,10,0,0,0,100,3.9,0.3,test" for name in ("10004473376", "10007357496", "10012325974")]
    write(root / "koniq10k_distributions_sets.csv", SETS, *rows)
    assert {record.mos for record in read(open_source("koniq10k", root)).values()} == {3.9}


def test_mixed_scales_are_an_error(root: Path) -> None:
    path = published_sets(root)
    path.write_text(path.read_text().replace("71.08", "3.8286"))
    with pytest.raises(SourceError, match=r"mean of c1..c5 in 1 rows and not in 2: two scales mixed"):
        open_source("koniq10k", root)


def test_missing_photos_are_skipped_and_other_spellings_found(root: Path) -> None:
    published_sets(root)
    (root / "1024x768" / "10004473376.jpg").rename(root / "1024x768" / "10004473376.JPG")
    (root / "1024x768" / "10012325974.jpg").unlink()
    source = open_source("koniq10k", root)
    assert list(read(source)) == ["1024x768/10004473376.JPG", "1024x768/10007357496.jpg"]
    assert source.skipped == {"listed in the annotations but missing": 1}
    assert list(skipped(source)) == ["1024x768/10012325974.jpg"]


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ("MOS", "Score", "missing columns: MOS"),
        ("set\n", "part\n", None),
        ("training", "trainval", "line 2: expected a set of training, validation, test, found 'trainval'"),
        ("71.08", "171.08", "line 2: expected a score from 0 to 100, found 171.08"),
        ("71.08", "good", "line 2: expected a number in the column MOS, found 'good'"),
        ("0,0,25,73,7", "0,0,0,0,0", "line 2: expected counts of ratings"),
    ],
)
def test_an_altered_table_is_an_error(before: str, after: str, words: str | None, root: Path) -> None:
    path = published_sets(root)
    path.write_text(path.read_text().replace(before, after))
    if words is None:  # no split is published in that copy
        assert {record.split for record in read(open_source("koniq10k", root)).values()} == {None}
        return
    with pytest.raises(SourceError, match=words) as caught:
        list(open_source("koniq10k", root).records())
    assert caught.value.path == path and "c1..c5, c_total, MOS, SD" in str(caught.value)


def test_an_absent_table_is_an_error(root: Path) -> None:
    with pytest.raises(SourceError, match=r"koniq10k_distributions_sets\.csv: missing, and so is koniq10k_scores"):
        open_source("koniq10k", root)
