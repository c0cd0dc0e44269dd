"""The table of tried files, from a folder with sound, refused and wrong ones."""

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from components.imaging import photo as images
from tests.hostile_files import sound_files
from tools import photo_files
from tools.photo_files import Outcome, main, table, tried


@pytest.mark.slow
def test_a_folder_is_tried_and_counted(tmp_path: Path) -> None:
    sound_files(tmp_path)
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "half.jpg").write_bytes((tmp_path / "a.jpg").read_bytes()[:2000])
    (tmp_path / "notes.txt").write_text("no photo")
    done = CliRunner().invoke(main, [str(tmp_path)])
    assert done.exit_code == 0, done.output
    assert "refused: sub/half.jpg: corrupt or truncated" in done.output
    lines = {line.split()[0]: line.split()[1:] for line in done.output.splitlines()}
    assert lines["kind"] == ["tried", "read", "right", "unchecked", "refused", "wrong"]
    assert lines[".jpg"] == ["4", "3", "3", "0", "1", "0"]
    assert lines[".dng"] == ["1", "1", "0", "1", "0", "0"]
    assert lines["all"][0] == "15" and lines["all"][-1] == "0"


def test_a_picture_that_is_read_wrongly_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ramp = np.linspace(0, 255, 48 * 64 * 3).reshape(48, 64, 3).astype(np.uint8)
    Image.fromarray(ramp).save(tmp_path / "a.png")
    assert tried(tmp_path / "a.png") == Outcome(".png", "right")
    monkeypatch.setattr(photo_files.shutil, "which", lambda name: None)
    monkeypatch.setattr(images, "upright", lambda samples, orientation: samples[::-1])
    outcome = tried(tmp_path / "a.png")
    assert outcome.verdict == "wrong"


def test_the_table_counts_by_kind() -> None:
    outcomes = [Outcome(".jpg", "right"), Outcome(".jpg", "refused", "empty"), Outcome(".nef", "unchecked")]
    assert [line.split() for line in table(outcomes).splitlines()] == [
        ["kind", "tried", "read", "right", "unchecked", "refused", "wrong"],
        [".jpg", "2", "1", "1", "0", "1", "0"],
        [".nef", "1", "1", "0", "1", "0", "0"],
        ["all", "3", "2", "1", "1", "1", "0"],
    ]
