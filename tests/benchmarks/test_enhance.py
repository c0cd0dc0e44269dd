"""The benchmark's figures, on small photos: what is counted, and that the measured work does what it says."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks import enhance as benchmark
from benchmarks import enhance_speed as speed
from components.command_line import run
from components.imaging.photo import Photo, read_photo, write_photo
from tests.conftest import make_photo


def test_rows_hold_figures_against_targets() -> None:
    good = benchmark.rows({"ours": 2.0, "theirs": 1.0, "peak": 6e8}, [43.0, 44.0], [39.5], [45.0])
    assert [row.ok for row in good] == [True] * 5
    assert (good[0].ratio, good[1].value, good[2].value) == (2.0, 600.0, 43.5)
    bad = benchmark.rows({"ours": 4.0, "theirs": 1.0, "peak": 8e8}, [41.0], [38.0], [40.0])
    assert [row.ok for row in bad] == [False] * 5


def test_faithfulness_is_measured_against_the_true_edit() -> None:
    photos = [make_photo(120, 180)]
    clean, noisy = benchmark.faithfulness(photos, 0.0), benchmark.faithfulness(photos, 0.05)
    assert len(clean) == len(benchmark.EDITS)
    assert min(clean) > 40 and np.mean(clean) > np.mean(noisy)


def test_the_measured_work_is_an_edit_of_the_file(tmp_path: Path, capsys) -> None:
    write_photo(Photo(make_photo(60, 90)), tmp_path / "a.jpg")
    assert run(speed.main, [str(tmp_path / "a.jpg"), "--repeats", "1"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["ours"] > 0 and result["theirs"] > 0 and result["peak"] > 1e7
    before, ours = read_photo(tmp_path / "a.jpg").pixels, read_photo(tmp_path / "ours.jpg").pixels
    assert (ours - (0.9 * before**0.8 + 0.05)).abs().mean() < 0.01
    with Image.open(tmp_path / "theirs.jpg") as recoded:
        assert recoded.size == (90, 60)
