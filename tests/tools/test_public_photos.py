"""The list of public photos, and how a folder of a repository is got."""

import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner

from tools import public_photos
from tools.public_photos import PROJECTS, Project, fetch, main


def test_it_says_where_they_are() -> None:
    done = CliRunner().invoke(main, [])
    assert done.exit_code == 0
    assert all(project.url in done.output and project.holds in done.output for project in PROJECTS)


@pytest.mark.parametrize(("folder", "names"), [("photos", ["a.jpg"]), ("", ["a.jpg", "b.jpg"])])
def test_a_folder_of_a_repository_is_got(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str, names: list[str]
) -> None:
    origin = tmp_path / "origin"
    for name in ("photos/a.jpg", "other/b.jpg"):
        (origin / name).parent.mkdir(parents=True)
        (origin / name).write_bytes(b"photo")
    git = ["git", "-C", str(origin), "-c", "user.name=a", "-c", "user.email=a@b.c"]
    for words in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "photos"]):
        subprocess.run([*git, *words], check=True)
    monkeypatch.setattr(Project, "url", property(lambda project: f"file://{origin}"))
    target = tmp_path / "target"
    assert fetch(Project("a/b", folder, ""), target) and fetch(Project("a/b", folder, ""), target)
    assert sorted(path.name for path in target.rglob("*.jpg")) == names


def test_what_cannot_be_got_ends_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(public_photos, "fetch", lambda project, target: False)
    assert CliRunner().invoke(main, [str(tmp_path)]).exit_code == 1
