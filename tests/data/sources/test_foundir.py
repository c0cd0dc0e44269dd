"""FoundIR: label sets in folder names, extensions that differ between twins, a list for the test set."""

from pathlib import Path

import pytest

from components.data.sources.base import MISSING, SourceError, open_source
from components.data.sources.folders import NO_INPUT, NO_TARGET
from components.data.sources.foundir import NO_TWINS
from tests.data.sources.layouts import litter, pairs, read, save_all, skipped, write

FILES = (
    "01Blur/GT/0001.png",
    "01Blur/LQ/0001.JPG",
    "02Blur_Noise/GT/0151.png",
    "02Blur_Noise/LQ/0151.png",
    "07Lowlight_Noise_JPEG/GT/0801.PNG",
    "07Lowlight_Noise_JPEG/LQ/0801.jpg",
    "11NightRain/GT/1001.png",
    "11NightRain/LQ/1001.png",
)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    save_all(tmp_path, FILES)
    litter(tmp_path)
    litter(tmp_path / "01Blur" / "LQ")
    return tmp_path


def test_without_a_list_somebody_has_to_say_which_split_it_is(root: Path) -> None:
    with pytest.raises(SourceError, match=r"Testset_meta_info.txt: missing: 4 groups .* public test set.*option split"):
        open_source("foundir", root)
    assert {record.split for record in open_source("foundir", root, split="test").records()} == {"test"}
    write(root / "Testset_meta_info.txt", "01Blur/GT/0001.png, 01Blur/LQ/0001.jpg")
    with pytest.raises(SourceError, match="its pairs are test, but split is set to 'train'"):
        open_source("foundir", root, split="train")


def test_the_groups_of_the_training_set(root: Path) -> None:
    found = read(open_source("foundir", root, split="train"))
    assert pairs(found) == {
        "foundir/train/01Blur/0001": ([FILES[1]], [FILES[0]]),
        "foundir/train/02Blur_Noise/0151": ([FILES[3]], [FILES[2]]),
        "foundir/train/07Lowlight_Noise_JPEG/0801": ([FILES[5]], [FILES[4]]),
        "foundir/train/11NightRain/1001": ([FILES[7]], [FILES[6]]),
    }
    assert {(record.split, record.kind) for record in found.values()} == {("train", "restoration")}


def test_the_name_of_the_group_is_the_label_set_of_the_input(root: Path) -> None:
    labels = {path: record.labels for path, record in read(open_source("foundir", root, split="train")).items()}
    assert labels[FILES[1]] == ("blur",)
    assert labels[FILES[3]] == ("blur", "noise")
    assert labels[FILES[5]] == ("low_light", "noise", "jpeg")
    assert labels[FILES[7]] == ("night_rain",)
    assert not any(labels[path] for path in FILES[::2]), "targets are clean"


def test_the_list_makes_test_pairs(root: Path) -> None:
    write(
        root / "Testset_meta_info.txt",
        "01Blur/GT/0001.png, 01Blur/LQ/0001.jpg",
        "/02Blur_Noise/GT/0151.png, /02Blur_Noise/LQ/0151.png",
        "11NightRain/GT/1002.png, 11NightRain/LQ/1002.png",
        "",
    )
    source = open_source("foundir", root)
    found = read(source)
    assert set(found) == set(FILES[:4]) and {record.split for record in found.values()} == {"test"}
    assert found[FILES[1]].labels == ("blur",) and found[FILES[1]].pair == "foundir/test/01Blur/0001"
    assert skipped(source) == {"11NightRain/GT/1002.png": MISSING}


def test_files_without_a_twin_are_skipped(root: Path) -> None:
    (root / "01Blur/GT/0001.png").unlink()
    (root / "02Blur_Noise/LQ/0151.png").unlink()
    write(root / "11NightRain/LQ/readme.txt", "text")
    (root / "12Haze").mkdir()
    reasons = skipped(open_source("foundir", root, split="train"))
    assert reasons == {
        "01Blur/LQ/0001.JPG": NO_TARGET,
        "02Blur_Noise/GT/0151.png": NO_INPUT,
        "11NightRain/LQ/readme.txt": "not a photo",
        "12Haze": NO_TWINS,
    }


def test_an_unknown_degradation_is_an_error(root: Path) -> None:
    (root / "13Blur_Snow").mkdir()
    with pytest.raises(SourceError, match="13Blur_Snow: unknown degradations Snow; known: blur, noise"):
        open_source("foundir", root, split="train")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("01Blur/LQ/0001.png, 01Blur/GT/0001.png", "line 1: expected 'GT_path, LQ_path'"),
        ("01Blur/GT/0001.png", "line 1: expected 'GT_path, LQ_path'"),
        ("01Blur/GT/0001.png, 02Blur_Noise/LQ/0151.png", "line 1: expected two files of one group"),
        ("99Blur/GT/0001.png, 99Blur/LQ/0001.png", "line 1: expected two files of one group"),
    ],
)
def test_an_altered_list_is_an_error(line: str, words: str, root: Path) -> None:
    path = write(root / "Testset_meta_info.txt", line)
    with pytest.raises(SourceError, match=words) as caught:
        list(open_source("foundir", root).records())
    assert caught.value.path == path
