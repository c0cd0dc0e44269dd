"""Revisions of code and data as tags, and the data folder of a revision."""

import os
import subprocess
from pathlib import Path

import pytest

from components.data.ingest import IngestSettings
from components.data.versioning import DataUnavailable
from steps.lineage import check_sources, data_folder, lineage, working_copy

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


def test_the_folders_of_datasets_are_checked_before_any_work(tmp_path: Path) -> None:
    def settings(*sources: dict) -> dict:
        return {"ingest": IngestSettings(sources=sources).model_dump(mode="json")}

    check_sources(settings())
    with pytest.raises(ValueError, match=r"koniq10k: .*absent: no such folder\nexpected layout: 1024x768"):
        check_sources(settings({"name": "koniq10k", "root": str(tmp_path / "absent")}))
    assert working_copy(tmp_path / "absent") == working_copy(), "a folder that only pods have"


def test_the_working_copy_digest_sees_behind_links(tmp_path: Path) -> None:
    disk = tmp_path / "disk" / "inner"
    disk.mkdir(parents=True)
    (disk / "a.jpg").write_bytes(b"one")
    data = tmp_path / "data"
    data.mkdir()
    (data / "linked").symlink_to(tmp_path / "disk")
    (data / "broken").symlink_to(tmp_path / "nowhere")
    (data / os.fsdecode(b"\xd5\xd5.jpg")).write_bytes(b"")
    seen = {working_copy(data)}
    (disk / "a.jpg").write_bytes(b"longer")
    seen.add(working_copy(data))
    (disk / "b.jpg").write_bytes(b"")
    seen.add(working_copy(data))
    assert len(seen) == 3
    (disk / "loop").symlink_to(data)
    with pytest.raises(OSError, match="this link leads back"):
        working_copy(data)


def test_the_working_copy_digest_lists_each_folder_once_and_looks_at_each_file_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(20):
        (tmp_path / f"{number % 4}").mkdir(exist_ok=True)
        (tmp_path / f"{number % 4}" / f"{number}.jpg").write_bytes(b"")
    calls = {"scandir": 0, "stat": 0}
    for name in calls:
        original = getattr(os, name)

        def counted(*arguments: object, _name: str = name, _original=original, **more: object) -> object:
            calls[_name] += 1
            return _original(*arguments, **more)

        monkeypatch.setattr(os, name, counted)
    working_copy(tmp_path)
    assert calls["scandir"] == 5 and calls["stat"] < 10, "folders alone; files are looked at as they are listed"


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
