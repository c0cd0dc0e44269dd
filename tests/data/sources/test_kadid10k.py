"""KADID-10k: a dmos that is higher-is-better, 25 types by 5 levels, one reference for 125 photos."""

from pathlib import Path

import pytest

from components.data.sources.base import SourceError, open_source
from components.data.sources.kadid10k import DISTORTIONS
from components.photometry.operations import DEGRADATIONS
from tests.data.sources.layouts import litter, pairs, read, save_all, skipped, write

ROWS = (
    ("I01_01_01.png", "I01.png", "4.57", "0.496"),
    ("I01_03_05.png", "I01.png", "1.27", "0.443"),
    ("I01_18_02.png", "I01.png", "3.9", "0.7"),
    ("I02_10_04.png", "I02.png", "1.0", "0.1"),
    ("I02_25_05.png", "I02.png", "5.0", "0.1"),
)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    save_all(tmp_path / "images", ["I01.png", "I02.png", *(row[0] for row in ROWS)])
    write(tmp_path / "dmos.csv", "dist_img,ref_img,dmos,var", *(",".join(row) for row in ROWS))
    litter(tmp_path)
    return tmp_path


def test_scores_are_higher_is_better(root: Path) -> None:
    found = read(open_source("kadid10k", root))
    scored = {path.removeprefix("images/"): record.mos for path, record in found.items() if record.mos is not None}
    assert scored == pytest.approx(
        {
            "I01_01_01.png": 89.25,
            "I01_03_05.png": 6.75,
            "I01_18_02.png": 72.5,
            "I02_10_04.png": 0,
            "I02_25_05.png": 100,
        }
    )
    record = found["images/I01_01_01.png"]
    assert (record.mos_original, record.mos_low, record.mos_high, record.mos_ascending) == (4.57, 1, 5, True)


def test_labels_name_type_and_level(root: Path) -> None:
    found = read(open_source("kadid10k", root))
    assert found["images/I01_01_01.png"].labels == ("gaussian_blur", "severity=1")
    assert found["images/I01_03_05.png"].labels == ("motion_blur", "severity=5")
    assert found["images/I02_10_04.png"].labels == ("jpeg", "severity=4")
    assert found["images/I01_18_02.png"].labels == ("mean_shift", "level=2"), "not monotonic"
    assert found["images/I02_25_05.png"].labels == ("contrast_change", "level=5"), "not monotonic"
    assert found["images/I01.png"].labels == ("pristine",)


def test_the_table_of_types_is_complete() -> None:
    assert len(DISTORTIONS) == 25 == len({labels[0] for labels in DISTORTIONS})
    operations = {label for labels in DISTORTIONS for label in labels} & set(DEGRADATIONS)
    assert operations == {"defocus_blur", "motion_blur", "jpeg", "noise"}


def test_all_versions_of_a_photo_share_a_pair_with_their_reference(root: Path) -> None:
    found = read(open_source("kadid10k", root))
    assert pairs(found) == {
        "kadid10k/I01": ([f"images/{row[0]}" for row in ROWS[:3]], ["images/I01.png"]),
        "kadid10k/I02": ([f"images/{row[0]}" for row in ROWS[3:]], ["images/I02.png"]),
    }
    assert {record.kind for record in found.values()} == {"restoration"}
    assert {record.split for record in found.values()} == {None}
    assert {record.group for record in found.values()} == {"kadid10k/I01", "kadid10k/I02"}


def test_without_a_reference_the_scores_remain(root: Path) -> None:
    (root / "images" / "I02.png").unlink()
    (root / "images" / "I02_10_04.png").unlink()
    source = open_source("kadid10k", root)
    found = read(source)
    assert (found["images/I02_25_05.png"].pair, found["images/I02_25_05.png"].scene) == (None, "kadid10k/I02")
    assert found["images/I02_25_05.png"].mos == 100
    assert set(skipped(source)) == {"images/I02.png", "images/I02_10_04.png"}


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ("dmos,", "mos,", "missing columns: dmos"),
        ("I01_01_01.png,", "I01_26_01.png,", "line 2: expected a name like I01_01_01.png"),
        ("I01_01_01.png,I01.png", "I01_01_01.png,I02.png", "line 2: expected I01.png as the reference"),
        ("4.57", "5.57", "line 2: expected a score from 1 to 5"),
        ("4.57", "nan", "line 2: expected a number in the column dmos"),
    ],
)
def test_an_altered_table_is_an_error(before: str, after: str, words: str, root: Path) -> None:
    path = root / "dmos.csv"
    path.write_text(path.read_text().replace(before, after, 1))
    with pytest.raises(SourceError, match=words) as caught:
        list(open_source("kadid10k", root).records())
    assert caught.value.path == path
