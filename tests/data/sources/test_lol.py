"""LOL: three layouts in one root, two ways of naming, pictures that are training in one version and test in another."""

from pathlib import Path

import pytest
from PIL import Image

from components.data.sources.base import SourceError, open_source
from components.data.sources.lol import SEEN_IN_TEST
from tests.data.sources.layouts import pairs, picture, read, save, save_all, skipped

REAL = "LOL-v2/Real_captured"
SYNTHETIC = "LOL-v2/Synthetic"


def version_1(root: Path, base: str = "") -> None:
    names = ("our485/low/2.png", "our485/high/2.png", "our485/low/10.png", "our485/high/10.png")
    save_all(root, [base + name for name in (*names, "eval15/low/1.png", "eval15/high/1.png")])


def version_2(root: Path) -> None:
    for seed, (split, number) in enumerate((("Train", "00001"), ("Test", "00690")), start=20):
        save(root / REAL / split / "Low" / f"low{number}.png", seed)
        save(root / REAL / split / "Normal" / f"normal{number}.png", seed + 10)
        save(root / SYNTHETIC / split / "Low" / f"r{number}.png", seed + 20)
        save(root / SYNTHETIC / split / "Normal" / f"r{number}.png", seed + 30)


@pytest.mark.parametrize("base", ["", "LOLdataset/"])
def test_version_1(base: str, tmp_path: Path) -> None:
    version_1(tmp_path, base)
    found = read(open_source("lol", tmp_path))
    assert pairs(found) == {
        "lol/v1/train/10": ([f"{base}our485/low/10.png"], [f"{base}our485/high/10.png"]),
        "lol/v1/train/2": ([f"{base}our485/low/2.png"], [f"{base}our485/high/2.png"]),
        "lol/v1/test/1": ([f"{base}eval15/low/1.png"], [f"{base}eval15/high/1.png"]),
    }
    assert {record.split for path, record in found.items() if "eval15" in path} == {"test"}
    assert {(record.role, record.labels) for record in found.values()} == {("input", ("low_light",)), ("target", ())}


def test_version_2(tmp_path: Path) -> None:
    version_2(tmp_path)
    assert pairs(read(open_source("lol", tmp_path))) == {
        "lol/v2-real/train/00001": ([f"{REAL}/Train/Low/low00001.png"], [f"{REAL}/Train/Normal/normal00001.png"]),
        "lol/v2-real/test/00690": ([f"{REAL}/Test/Low/low00690.png"], [f"{REAL}/Test/Normal/normal00690.png"]),
        "lol/v2-synthetic/train/r00001": (
            [f"{SYNTHETIC}/Train/Low/r00001.png"],
            [f"{SYNTHETIC}/Train/Normal/r00001.png"],
        ),
        "lol/v2-synthetic/test/r00690": ([f"{SYNTHETIC}/Test/Low/r00690.png"], [f"{SYNTHETIC}/Test/Normal/r00690.png"]),
    }


@pytest.mark.parametrize("base", ["", "LOLv1/"])
def test_the_repack(base: str, tmp_path: Path) -> None:
    save_all(tmp_path, [f"{base}{split}/{half}/1.png" for split in ("Train", "Test") for half in ("input", "target")])
    assert pairs(read(open_source("lol", tmp_path))) == {
        "lol/repack/train/1": ([f"{base}Train/input/1.png"], [f"{base}Train/target/1.png"]),
        "lol/repack/test/1": ([f"{base}Test/input/1.png"], [f"{base}Test/target/1.png"]),
    }


def test_a_training_pair_that_is_test_elsewhere_is_skipped(tmp_path: Path) -> None:
    version_1(tmp_path)
    version_2(tmp_path)
    shared = picture(99)
    shared.save(tmp_path / REAL / "Test" / "Normal" / "normal00690.png")
    shared.save(tmp_path / "our485" / "high" / "10.png", compress_level=1)  # the same pixels in other bytes
    source = open_source("lol", tmp_path)
    found = read(source)
    assert "lol/v1/train/10" not in pairs(found) and "lol/v2-real/test/00690" in pairs(found)
    assert skipped(source) == {"our485/low/10.png": SEEN_IN_TEST, "our485/high/10.png": SEEN_IN_TEST}
    train = {path for path, record in found.items() if record.split == "train"}
    test = {path for path, record in found.items() if record.split == "test"}

    def pixels(path: str) -> bytes:
        return Image.open(tmp_path / path).tobytes()

    assert {pixels(path) for path in train}.isdisjoint({pixels(path) for path in test})


def test_captured_pairs_may_have_one_name(tmp_path: Path) -> None:
    """As Retinexformer lays them out."""
    halves = [
        f"LOLv2/Real_captured/{split}/{half}/00001.png" for split in ("Train", "Test") for half in ("Low", "Normal")
    ]
    save_all(tmp_path, halves)
    assert pairs(read(open_source("lol", tmp_path))) == {
        "lol/v2-real/train/00001": ([halves[0]], [halves[1]]),
        "lol/v2-real/test/00001": ([halves[2]], [halves[3]]),
    }


def test_a_missing_half_is_an_error(tmp_path: Path) -> None:
    save(tmp_path / "our485" / "low" / "1.png")
    with pytest.raises(SourceError, match="our485/high: missing"):
        open_source("lol", tmp_path)
    version_2(tmp_path / "other")
    (tmp_path / "other" / REAL / "Test" / "Normal").rename(tmp_path / "other" / REAL / "Test" / "High")
    with pytest.raises(SourceError, match="Test/Normal: missing"):
        open_source("lol", tmp_path / "other")
