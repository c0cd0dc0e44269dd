"""Revisions of code and data as tags, and the data folder of a revision."""

import os
import subprocess
from pathlib import Path

import pytest

from components.data.versioning import DataUnavailable
from steps.lineage import data_folder, lineage, working_copy

POINTER = "outs:\n- md5: 0123456789abcdef0123456789abcdef.dir\n  path: data\n"


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=Test", "-c", "user.email=test@example.org"]
    command = ["git", *identity, *arguments]
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    git(tmp_path, "init", "--quiet")
    (tmp_path / "data.dvc").write_text(POINTER)
    git(tmp_path, "add", "--all")
    git(tmp_path, "commit", "--quiet", "--message", "first")
    return tmp_path


def test_a_clean_working_tree(repository: Path) -> None:
    assert lineage(repository) == {
        "git.revision": git(repository, "rev-parse", "HEAD"),
        "git.dirty": "no",
        "dvc.revision": "0123456789abcdef0123456789abcdef.dir",
    }


def test_a_new_file_makes_it_dirty(repository: Path) -> None:
    (repository / "new.py").write_text("")
    assert lineage(repository)["git.dirty"] == "yes"


def test_without_git_and_dvc_everything_is_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert set(lineage(tmp_path).values()) == {"unknown"}


def test_another_data_revision_is_refused(repository: Path) -> None:
    with pytest.raises(DataUnavailable, match="start it again"):
        data_folder("ffff.dir", repository)


def test_data_that_is_there_is_not_fetched(repository: Path) -> None:
    for name in ("photos", "base"):
        (repository / "data" / name).mkdir(parents=True)
    assert data_folder("0123456789abcdef0123456789abcdef.dir", repository) == repository / "data"


def test_the_working_copy_digest_sees_every_touch(tmp_path: Path) -> None:
    photo = tmp_path / "photos" / "a.jpg"
    photo.parent.mkdir()
    photo.write_bytes(b"one")
    os.utime(photo, (1, 1))
    seen = {working_copy(tmp_path)}
    assert working_copy(tmp_path) in seen
    os.utime(photo, (2, 2))
    seen.add(working_copy(tmp_path))
    photo.write_bytes(b"longer")
    os.utime(photo, (2, 2))
    seen.add(working_copy(tmp_path))
    photo.rename(photo.with_name("b.jpg"))
    seen.add(working_copy(tmp_path))
    assert len(seen) == 4
