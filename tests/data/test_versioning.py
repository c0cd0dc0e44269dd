"""DVC: a real repository with a local remote, complete, with an object missing, and with changes of the user's own."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from components.data.versioning import DataUnavailable, data_revision, dvc_checkout


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A DVC repository whose data directory is only on the remote."""
    root = tmp_path / "repository"
    (root / "data").mkdir(parents=True)
    (root / "data" / "a.txt").write_text("first")
    (root / "data" / "b.txt").write_text("second")
    environment = os.environ | {"DVC_NO_ANALYTICS": "1"}
    for command in ("init -q --no-scm", "remote add -q -d local remote", "add -q data", "push -q"):
        subprocess.run([sys.executable, "-m", "dvc", *command.split()], cwd=root, env=environment, check=True)
    shutil.rmtree(root / "data")
    shutil.rmtree(root / ".dvc" / "cache")
    return root


def test_data_is_brought_onto_the_disk(repository: Path) -> None:
    revision = dvc_checkout(repository)
    assert revision == data_revision(repository) and revision.endswith(".dir")
    assert (repository / "data" / "a.txt").read_text() == "first"


def test_data_is_brought_where_the_code_came_without_git(repository: Path) -> None:
    """As in the pods of a run: DVC's configuration is that of a git repository, and there is none."""
    configuration = repository / ".dvc" / "config"
    without = configuration.read_text()
    configuration.write_text(without.replace("no_scm = True", ""))
    assert configuration.read_text() != without
    dvc_checkout(repository)
    assert (repository / "data" / "a.txt").read_text() == "first"


def test_a_missing_object_is_named_and_files_of_the_user_are_kept(repository: Path) -> None:
    stored = next(path for path in (repository / "remote").rglob("*") if path.is_file() and path.suffix != ".dir")
    content = stored.read_bytes()
    stored.unlink()
    with pytest.raises(DataUnavailable, match="dvc push") as caught:
        dvc_checkout(repository)
    assert stored.parent.name + stored.name in str(caught.value)
    stored.write_bytes(content)
    dvc_checkout(repository)
    (repository / "data" / "mine.txt").write_text("my own")
    with pytest.raises(DataUnavailable, match="dvc add data"):
        dvc_checkout(repository)
    assert (repository / "data" / "mine.txt").read_text() == "my own"


def test_without_a_dvc_file_the_error_says_so(tmp_path: Path) -> None:
    with pytest.raises(DataUnavailable, match=r"data\.dvc"):
        data_revision(tmp_path)
    (tmp_path / "data.dvc").write_text("outs: []\n")
    with pytest.raises(DataUnavailable, match="md5"):
        data_revision(tmp_path)
