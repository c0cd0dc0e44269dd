"""FilmSet: one plain photo, three looks."""

from pathlib import Path

import pytest

from components.data.sources.base import SourceError, open_source
from components.data.sources.filmset import NO_INPUT, NO_LOOK, NOT_GRADED
from tests.data.sources.layouts import litter, pairs, read, save, save_all, skipped

FOLDERS = ("input", "Cinema", "ClassNeg", "Velvia")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for split in ("train", "test"):
        save_all(tmp_path, [f"{split}/{folder}/{name}.png" for folder in FOLDERS for name in ("00001", "00002")])
    litter(tmp_path / "train")
    return tmp_path


def test_an_input_has_three_targets(root: Path) -> None:
    found = read(open_source("filmset", root))
    assert pairs(found)["filmset/train/00002"] == (
        ["train/input/00002.png"],
        [f"train/{look}/00002.png" for look in FOLDERS[1:]],
    )
    assert len(found) == 16 and len(pairs(found)) == 4
    assert {record.kind for record in found.values()} == {"retouching"}
    assert {path: record.labels for path, record in found.items() if path.startswith("test") and "00001" in path} == {
        "test/input/00001.png": (),
        "test/Cinema/00001.png": ("look=cinema",),
        "test/ClassNeg/00001.png": ("look=classic_negative",),
        "test/Velvia/00001.png": ("look=velvia",),
    }
    assert found["test/Velvia/00001.png"].split == "test"


def test_what_is_missing_is_skipped(root: Path) -> None:
    (root / "train/Velvia/00001.png").unlink()
    (root / "test/input/00001.png").unlink()
    for look in FOLDERS[1:]:
        (root / f"test/{look}/00002.png").unlink()
    save(root / "train/input/00003.jpg")
    source = open_source("filmset", root)
    found = read(source)
    assert pairs(found)["filmset/train/00001"][1] == ["train/Cinema/00001.png", "train/ClassNeg/00001.png"]
    assert not any(path.startswith("test") for path in found)
    assert skipped(source) == {
        "train/Velvia/00001.png": NOT_GRADED,
        "train/input/00003.jpg": NO_LOOK,
        "test/input/00002.png": NO_LOOK,
        **{f"test/{look}/00001.png": NO_INPUT for look in FOLDERS[1:]},
    }


def test_a_look_without_its_folder_is_an_error(root: Path) -> None:
    (root / "test/ClassNeg").rename(root / "test/Classic")
    with pytest.raises(SourceError, match=r"test/ClassNeg: missing[^\n]*\nexpected layout: .*Velvia"):
        open_source("filmset", root)
