"""What DVC knows about `data/`: bring it onto the disk, verify every file, and name the version that is there.

DVC by itself takes from a remote whatever lies under an object's name, unless the remote's setting `verify` is on,
never verifies the list of the files (the `.dir` object), and believes a file in data/ whose time and size are as it
left them.
"""

import hashlib
import json
import os
import re
import shlex
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import yaml

DATA_FILE = "data.dvc"
_MISSING_OBJECT = re.compile(
    r"failed to (?:transfer|download|checkout) '([^']+)'|md5: ([0-9a-f.dir]+)|missing[^:]*: (\S+)"
)
_LOCAL_CHANGES = "without confirmation"
_MEND_REMOTE = (
    "If the object comes back corrupt, it is so on the remote (`dvc remote list`): delete it there and run `dvc push` "
    "where it is whole; the remote that comes with the repository is mended by `git checkout -- .dvc/embedded`."
)


class DataUnavailable(RuntimeError):  # noqa: N818 (reads as a sentence where it is caught)
    """The data cannot be brought into the state that `data.dvc` names; the message says what to do."""


def data_revision(root: Path) -> str:
    """The DVC hash of the data directory that ``root``/data.dvc names.

    Raises:
        DataUnavailable: there is no data.dvc, or it is not what `dvc add` writes.
    """
    path = Path(root) / DATA_FILE
    if not path.is_file():
        raise DataUnavailable(f"{path}: expected the DVC file of the data directory; clone the repository completely")
    try:
        return str(yaml.safe_load(path.read_text("utf-8"))["outs"][0]["md5"])
    except (yaml.YAMLError, KeyError, IndexError, TypeError) as error:
        raise DataUnavailable(f"{path}: expected outs[0].md5 as `dvc add data` writes it: {error!r}") from error


def dvc_checkout(root: Path, timeout: float = 3600.0) -> str:
    """Run `dvc pull` in ``root``: fetch from the default remote what the cache lacks and check it out.

    Where the code is without its history, as in the pods of a run, DVC is told to do without git.

    Args:
        root: the repository, with .dvc/ and data.dvc.
        timeout: seconds before a stalled transfer is given up.

    Returns:
        the revision that is now on disk, as `data_revision` gives.

    Raises:
        DataUnavailable: an object is missing from the remote, or corrupt, the remote cannot be reached, or the data
            directory holds changes that DVC does not know. Nothing is overwritten.
    """
    root = Path(root).resolve()
    revision = data_revision(root)
    commands: list[tuple[str, ...]] = [("pull", DATA_FILE)]
    if not any((folder / ".git").exists() for folder in (root, *root.parents)):
        commands.insert(0, ("config", "--local", "core.no_scm", "true"))
    try:
        for command in commands:
            if (done := _dvc(root, timeout, *command)).returncode != 0:
                raise DataUnavailable(_explain(root, revision, done.stderr.strip() or done.stdout.strip()))
    except subprocess.TimeoutExpired as error:
        raise DataUnavailable(
            f"`dvc pull` in {root} did not finish in {timeout:g} s: is the remote reachable?"
        ) from error
    verify(root)
    return revision


def verify(root: Path) -> None:
    """Compare every file below data/ with its hash in the revision that ``root``/data.dvc names.

    Raises:
        DataUnavailable: naming what is corrupt or missing, and the commands that mend it.
    """
    objects = _objects(root)
    files = {root / "data" / entry["relpath"]: entry["md5"] for entry in _listed(root, objects)}
    with ThreadPoolExecutor() as pool:
        found = list(pool.map(_md5, files))
    bad = [path for path, md5 in zip(files, found, strict=True) if md5 != files[path]]
    if bad:
        cached = [path for path in (_object(objects, files[name]) for name in bad) if path.is_file()]
        raise DataUnavailable(_corrupt(root, bad, [*bad, *(path for path in cached if _md5(path) != _named(path))]))


def _listed(root: Path, objects: Path) -> list[dict[str, str]]:
    """What the revision lists: `relpath` below data/ and `md5` of every file."""
    listing = _object(objects, data_revision(root))
    if f"{_md5(listing)}.dir" != _named(listing):
        raise DataUnavailable(_corrupt(root, [listing], [listing]))
    return list(json.loads(listing.read_text("utf-8")))


def _objects(root: Path) -> Path:
    """Where DVC's cache keeps the objects."""
    from dvc.config import Config  # type: ignore[import-untyped]

    return root / ".dvc" / Path(Config(str(root / ".dvc"))["cache"].get("dir") or "cache") / "files" / "md5"


def _object(objects: Path, md5: str) -> Path:
    return objects / md5[:2] / md5[2:]


def _named(path: Path) -> str:
    """The hash for which an object stands."""
    return path.parent.name + path.name


def _md5(path: Path) -> str:
    """Of the content, as DVC counts it; empty where there is no such file."""
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    except FileNotFoundError:
        return ""


def _corrupt(root: Path, what: list[Path], remove: list[Path]) -> str:
    named = ", ".join(os.path.relpath(path, root) for path in what[:5]) + (" ..." if len(what) > 5 else "")
    paths = " ".join(shlex.quote(os.path.relpath(path, root)) for path in remove)
    return (
        f"corrupt or missing, by the hashes of the data revision that {DATA_FILE} names: {named}. Remove and fetch "
        f"again what is corrupt here: `rm -f {paths} && make data`. {_MEND_REMOTE}"
    )


def _dvc(root: Path, timeout: float, *arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "dvc", *arguments]
    environment = os.environ | {"DVC_NO_ANALYTICS": "1", "NO_COLOR": "1"}
    return subprocess.run(
        command, cwd=root, env=environment, capture_output=True, text=True, timeout=timeout, check=False
    )


def _explain(root: Path, revision: str, output: str) -> str:
    """What went wrong with `dvc pull` and what to do about it, from what it printed."""
    if _LOCAL_CHANGES in output:
        return (
            f"{root / 'data'} has files that {DATA_FILE} does not know. Keep them with `dvc add data`, or go back to "
            f"revision {revision} with `dvc checkout --force data.dvc`.\n{output}"
        )
    missing = {next(filter(None, groups)) for groups in _MISSING_OBJECT.findall(output)}
    objects = _objects(root)
    if _object(objects, revision).is_file():
        missing |= {e["md5"] for e in _listed(root, objects) if not _object(objects, e["md5"]).is_file()}
    else:
        missing.add(revision)  # the list of the files
    if missing:
        return (
            f"data revision {revision} is incomplete, missing: {', '.join(sorted(missing))}. They are neither in the "
            f"cache (.dvc/cache) nor, whole, on the remote (`dvc remote list`); run `dvc push` where they exist, or "
            f"clone again. {_MEND_REMOTE}\n{output}"
        )
    return f"`dvc pull` could not bring data revision {revision} into {root / 'data'}.\n{output}"
