"""GoPro: frame numbers repeat across sequences, and two kinds of blur lie side by side."""

from pathlib import Path

import pytest

from components.data.sources.base import SourceError, open_source
from components.data.sources.folders import NO_TARGET
from tests.data.sources.layouts import pairs, read, save, save_all, skipped

SEQUENCES = {"train": ("GOPR0372_07_00", "GOPR0372_07_01"), "test": ("GOPR0384_11_00",)}


def build(root: Path, base: str = "GOPRO_Large/") -> Path:
    for split, names in SEQUENCES.items():
        for name in names:
            for kind in ("blur", "blur_gamma", "sharp"):
                save_all(root, [f"{base}{split}/{name}/{kind}/{number}.png" for number in ("000047", "000048")])
    return root


@pytest.mark.parametrize("blurred", ["blur_gamma", "blur"])
def test_the_kind_of_blur_is_a_choice(blurred: str, tmp_path: Path) -> None:
    found = read(open_source("gopro", build(tmp_path), blurred=blurred))
    base = "GOPRO_Large/train/GOPR0372_07_01"
    assert pairs(found)["gopro/train/GOPR0372_07_01/000047"] == (
        [f"{base}/{blurred}/000047.png"],
        [f"{base}/sharp/000047.png"],
    )
    assert len(pairs(found)) == 6 and len(found) == 12


def test_blur_gamma_is_the_default_and_splits_are_the_folders(tmp_path: Path) -> None:
    found = read(open_source("gopro", build(tmp_path, "")))
    assert all("/blur_gamma/" in path or "/sharp/" in path for path in found)
    assert {path.split("/")[0]: record.split for path, record in found.items()} == {"train": "train", "test": "test"}
    assert {(record.role, record.labels) for record in found.values()} == {("input", ("motion_blur",)), ("target", ())}
    assert {record.licence for record in found.values()} == {"CC BY 4.0"}


def test_the_repack(tmp_path: Path) -> None:
    save_all(tmp_path, ["train/input/GOPR0372_07_00-000047.png", "train/target/GOPR0372_07_00-000047.png"])
    assert pairs(read(open_source("gopro", tmp_path))) == {
        "gopro/train/GOPR0372_07_00-000047": (
            ["train/input/GOPR0372_07_00-000047.png"],
            ["train/target/GOPR0372_07_00-000047.png"],
        )
    }


def test_frames_without_a_partner_are_skipped(tmp_path: Path) -> None:
    extra = save(build(tmp_path) / "GOPRO_Large/test/GOPR0384_11_00/blur_gamma/000050.png")
    source = open_source("gopro", tmp_path)
    assert skipped(source) == {extra.relative_to(tmp_path).as_posix(): NO_TARGET}


def test_a_sequence_without_its_folders_is_an_error(tmp_path: Path) -> None:
    build(tmp_path)
    sharp = tmp_path / "GOPRO_Large/train/GOPR0372_07_00/sharp"
    sharp.rename(sharp.with_name("clear"))
    with pytest.raises(SourceError, match=r"GOPR0372_07_00/sharp: missing[^\n]*\nexpected layout: GOPRO_Large"):
        open_source("gopro", tmp_path)
