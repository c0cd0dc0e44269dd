"""RealBlur: lists that name the ground truth first, file numbers that repeat across scenes, a misspelt folder."""

from pathlib import Path

import pytest

from components.data.sources.base import MISSING, SourceError, open_source
from tests.data.sources.layouts import pairs, read, save_all, skipped, write

J = "RealBlur-J_ECC_IMCORR_centroid_itensity_ref"
R = "RealBlur-R_BM3D_ECC_IMCORR_centroid_itensity_ref"


def line(folder: str, scene: int, number: int) -> str:
    base = f"{folder}/scene{scene:03d}"
    return f"{base}/gt/gt_{number}.png {base}/blur/blur_{number}.png"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    listed = {"train": [(1, 1), (1, 10), (2, 1)], "test": [(3, 1)]}
    for name, folder in (("J", J), ("R", R)):
        for split, places in listed.items():
            lines = [line(folder, *place) for place in places]
            write(tmp_path / f"RealBlur_{name}_{split}_list.txt", *lines)
            save_all(tmp_path, [file for text in lines for file in text.split()])
    return tmp_path


def test_pairs_and_splits_are_the_lists(root: Path) -> None:
    found = read(open_source("realblur", root))
    assert len(found) == 16
    listed = pairs(found)
    assert listed["realblur/J/scene001/1"] == ([f"{J}/scene001/blur/blur_1.png"], [f"{J}/scene001/gt/gt_1.png"])
    assert listed["realblur/R/scene003/1"] == ([f"{R}/scene003/blur/blur_1.png"], [f"{R}/scene003/gt/gt_1.png"])
    assert len(listed) == 8 and all(len(inputs) == len(targets) == 1 for inputs, targets in listed.values())
    assert {path for path, record in found.items() if record.split == "test"} == {
        file for folder in (J, R) for file in line(folder, 3, 1).split()
    }


def test_only_the_input_is_labelled_blurred(root: Path) -> None:
    found = read(open_source("realblur", root))
    assert {(record.role, record.labels) for record in found.values()} == {("input", ("motion_blur",)), ("target", ())}
    assert {record.licence for record in found.values()} == {"CC BY 4.0"}


def test_subsets_are_a_choice(root: Path) -> None:
    assert all(path.startswith(R) for path in read(open_source("realblur", root, subsets=("R",))))
    (root / "RealBlur_R_test_list.txt").unlink()
    with pytest.raises(SourceError, match=r"RealBlur_R_test_list\.txt: missing"):
        open_source("realblur", root)
    assert len(read(open_source("realblur", root, subsets=("J",)))) == 8


def test_a_missing_photo_takes_its_partner_along(root: Path) -> None:
    (root / J / "scene001" / "gt" / "gt_10.png").unlink()
    source = open_source("realblur", root, subsets=("J",))
    assert f"{J}/scene001/blur/blur_10.png" not in read(source)
    assert skipped(source) == {f"{J}/scene001/gt/gt_10.png": MISSING}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (" ".join(reversed(line(J, 1, 1).split())), "line 1: expected 'gt blur', ground truth first"),
        (line(J, 1, 1).split()[0], "line 1: expected 'gt blur'"),
        (line(R, 1, 1), "line 1: expected two files of one scene of J"),
        (f"{line(J, 1, 1).split()[0]} {line(J, 2, 1).split()[1]}", "line 1: expected two files of one scene of J"),
    ],
)
def test_an_altered_list_is_an_error(text: str, words: str, root: Path) -> None:
    path = write(root / "RealBlur_J_train_list.txt", text)
    with pytest.raises(SourceError, match=words) as caught:
        list(open_source("realblur", root, subsets=("J",)).records())
    assert caught.value.path == path
