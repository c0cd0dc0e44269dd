"""What DVC knows about `data/`: bring it onto the disk, and name the version that is there."""

import os
import re
import subprocess
import sys
from pathlib import Path

import yaml

DATA_FILE = "data.dvc"
_MISSING_OBJECT = re.compile(
    r"failed to (?:transfer|download|checkout) '([^']+)'|md5: ([0-9a-f.dir]+)|missing[^:]*: (\S+)"
)
_LOCAL_CHANGES = "without confirmation"


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
        DataUnavailable: an object is missing from the remote, the remote cannot be reached, or the data directory
            holds changes that DVC does not know. Nothing is overwritten.
    """
    root = Path(root).resolve()
    revision = data_revision(root)
    commands = [("pull", DATA_FILE)]
    if not any((folder / ".git").exists() for folder in (root, *root.parents)):
        commands.insert(0, ("config", "--local", "core.no_scm", "true"))
    try:
        for command in commands:
            if (done := _dvc(root, timeout, *command)).returncode != 0:
                break
    except subprocess.TimeoutExpired as error:
        raise DataUnavailable(
            f"`dvc pull` in {root} did not finish in {timeout:g} s: is the remote reachable?"
        ) from error
    if done.returncode != 0:
        raise DataUnavailable(_explain(root, revision, done.stderr.strip() or done.stdout.strip()))
    return revision


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
    missing = sorted({next(filter(None, groups)) for groups in _MISSING_OBJECT.findall(output)})
    if missing:
        return (
            f"data revision {revision} is incomplete, missing: {', '.join(missing)}. They are neither in the cache "
            f"(.dvc/cache) nor on the remote (`dvc remote list`); run `dvc push` where they exist, or clone "
            f"again.\n{output}"
        )
    return f"`dvc pull` could not bring data revision {revision} into {root / 'data'}.\n{output}"
