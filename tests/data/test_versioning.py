"""DVC: a real repository with a local remote, complete, with an object missing, and with changes of the user's own."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from components.data.versioning import DataUnavailable, data_revision, dvc_checkout

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A DVC repository whose data directory is only on the remote."""
    root = tmp_path_factory.mktemp("versioning") / "repository"
    (root / "data").mkdir(parents=True)
    (root / "data" / "a.txt").write_text("first")
    (root / "data" / "b.txt").write_text("second")
    environment = os.environ | {"DVC_NO_ANALYTICS": "1"}
    for command in ("init -q --no-scm", "remote add -q -d local remote", "add -q data", "push -q"):
        subprocess.run([sys.executable, "-m", "dvc", *command.split()], cwd=root, env=environment, check=True)
    shutil.rmtree(root / "data")
    shutil.rmtree(root / ".dvc" / "cache")
    return root


@pytest.fixture
def repository(template: Path, tmp_path: Path) -> Path:
    """A copy of that repository."""
    return Path(shutil.copytree(template, tmp_path / "repository"))


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


def flip(path: Path) -> None:
    """Change one bit, and leave time and size as they were: as a failing disk does."""
    before = path.stat()
    path.chmod(0o644)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def stored(root: Path, below: str, listing: bool = False) -> Path:
    """An object: of a.txt, or the list of the files."""
    return next(
        p
        for p in (root / below).rglob("*")
        if p.is_file() and (p.suffix == ".dir") == listing and (listing or p.read_bytes() == b"first")
    )


@pytest.mark.parametrize(("verifying", "listing"), [(False, False), (True, False), (True, True)])
def test_what_is_corrupt_on_the_remote_is_refused_and_named(repository: Path, verifying: bool, listing: bool) -> None:
    if verifying:
        with (repository / ".dvc" / "config").open("a") as configuration:
            configuration.write("    verify = true\n")
    damaged = stored(repository, "remote", listing)
    whole = damaged.read_bytes()
    damaged.chmod(0o644)
    damaged.write_bytes(whole.replace(b"a.txt", b"x.txt") if listing else b"fIrst")  # as good a list, and a wrong one
    with pytest.raises(DataUnavailable) as caught:
        dvc_checkout(repository)
    assert damaged.name in str(caught.value) or "data/a.txt" in str(caught.value)
    assert "dvc push" in str(caught.value)
    damaged.write_bytes(whole)
    if "rm -f" in str(caught.value):  # the command that mends it, as far as it is about this disk
        mend = str(caught.value).split("`")[1].removesuffix(" && make data")
        subprocess.run(mend, shell=True, cwd=repository, check=True)
    dvc_checkout(repository)
    assert (repository / "data" / "a.txt").read_text() == "first"


@pytest.mark.parametrize("where", ["data", ".dvc/cache"])
def test_what_is_corrupt_on_the_disk_is_refused_and_mended_by_the_command_named(repository: Path, where: str) -> None:
    dvc_checkout(repository)
    flip(stored(repository, where))
    if where == ".dvc/cache":
        shutil.rmtree(repository / "data")
    try:
        dvc_checkout(repository)
    except DataUnavailable as error:
        assert "data/a.txt" in str(error)
        mend = str(error).split("`")[1].removesuffix(" && make data")
        subprocess.run(mend, shell=True, cwd=repository, check=True)
        dvc_checkout(repository)
    else:
        assert where == ".dvc/cache", "DVC looks at its cache by itself, and fetches again"
    assert (repository / "data" / "a.txt").read_text() == "first"
