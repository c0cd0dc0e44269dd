"""BokehDiff: cut-outs and backgrounds, which the synthesis knows by their labels."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from components.data.rendered import BACKGROUND, CUTOUT
from components.data.sources.base import SourceError, open_source
from components.data.sources.bokehdiff import NO_ALPHA
from tests.data.sources.layouts import picture, read, save, skipped, write

SIZE = (96, 64)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for seed in (1, 2):
        cutout = picture(seed, (40, 60)).convert("RGBA")
        alpha = np.zeros((60, 40), np.uint8)
        alpha[10:55, 8:32] = 255
        alpha[10, 8:32] = 128
        cutout.putalpha(Image.fromarray(alpha))
        (tmp_path / "fg").mkdir(exist_ok=True)
        cutout.save(tmp_path / "fg" / f"{seed}.png")
    for seed in (3, 4, 5):
        save(tmp_path / "bg" / f"{seed}.jpg", seed, SIZE)
    return tmp_path


def test_cutouts_and_backgrounds_are_no_pairs(root: Path) -> None:
    found = read(open_source("bokehdiff", root))
    assert {path: record.labels for path, record in found.items()} == {
        "fg/1.png": (CUTOUT,),
        "fg/2.png": (CUTOUT,),
        "bg/3.jpg": (BACKGROUND, "all_in_focus"),
        "bg/4.jpg": (BACKGROUND, "all_in_focus"),
        "bg/5.jpg": (BACKGROUND, "all_in_focus"),
    }
    assert all(record.pair is None and record.split is None for record in found.values())


def test_an_opaque_cutout_is_skipped(root: Path) -> None:
    save(root / "fg" / "3.png")
    picture(3).quantize(16).save(root / "fg" / "5.png")
    Image.open(root / "fg" / "1.png").quantize(16).save(root / "fg" / "6.png")
    with Image.open(root / "fg" / "5.png") as opaque, Image.open(root / "fg" / "6.png") as cutout:
        assert opaque.mode == cutout.mode == "P"
    write(root / "fg" / "4.png", "no picture")
    write(root / "bg" / "list.txt", "text")
    reasons = skipped(open_source("bokehdiff", root))
    assert reasons == {
        "fg/3.png": NO_ALPHA,
        "fg/5.png": NO_ALPHA,
        "fg/4.png": "the header does not decode",
        "bg/list.txt": "not a photo",
    }


def test_a_missing_folder_is_an_error(root: Path) -> None:
    (root / "bg").rename(root / "backgrounds")
    with pytest.raises(SourceError, match="bg: missing"):
        open_source("bokehdiff", root)
