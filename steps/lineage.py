"""Which code and which data a run used: git and DVC revisions, as tags; and the data folder of a revision."""

import functools
import hashlib
import os
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any

from components.checkout import checkout
from components.data.versioning import DataUnavailable, data_revision, dvc_checkout
from components.files import tree

ROOT = checkout()


@functools.cache
def lineage(root: Path = ROOT) -> dict[str, str]:
    """Tags ``git.revision``, ``git.dirty`` and ``dvc.revision`` of the working tree at ``root``.

    What cannot be told (in a container image without git, say) is ``unknown``. Read once per process.
    """
    revision = _git(root, "rev-parse", "HEAD")
    changes = _git(root, "status", "--porcelain", "--untracked-files=normal")
    try:
        data = data_revision(root)
    except DataUnavailable:
        data = "unknown"
    return {
        "git.revision": revision or "unknown",
        "git.dirty": "unknown" if changes is None else "yes" if changes else "no",
        "dvc.revision": data,
    }


def data_folder(revision: str, root: Path = ROOT) -> Path:
    """The folder data/ at the DVC revision ``revision``, fetched first where it is missing (in a new pod, say).

    Raises:
        DataUnavailable: data.dvc names another revision by now, or the data cannot be fetched.
    """
    present = data_revision(root)
    if present != revision:
        raise DataUnavailable(
            f"this run was started on data revision {revision}, but data.dvc names {present} now: start it again"
        )
    folder = root / "data"
    if not (folder / "photos").is_dir() or not (folder / "base").is_dir():
        dvc_checkout(root)
    return folder


def working_copy(*folders: Path) -> str:
    """A digest of names, sizes and times of all files below ``folders``: differs whenever a file was touched.

    Links are followed, each folder is listed once and each file looked at once; a link that leads nowhere counts by its
    name, a folder that is not there (on this machine; pods may have it) as empty.

    Raises:
        OSError: a folder cannot be listed, or a link leads back to a folder that it lies in.
    """
    digest = hashlib.sha256()
    for folder in filter(Path.is_dir, folders):
        for inner, entries in tree(folder):
            digest.update(os.fsencode(inner.relative_to(folder)) + b"\n")
            for entry in entries:
                digest.update(os.fsencode(entry.name))
                with suppress(OSError):
                    status = entry.stat()
                    digest.update(f"\0{status.st_size}\0{status.st_mtime_ns}".encode())
                digest.update(b"\n")
    return digest.hexdigest()


def check_sources(settings: dict[str, Any]) -> None:
    """Open every dataset of a checked configuration, so that a folder that does not hold it is told before any work.

    To be asked where the stages run on this machine: pods may have folders that it lacks.

    Raises:
        ValueError: naming the dataset, the folder and what was expected there. OSError: a folder cannot be listed.
    """
    if settings["ingest"]["sources"]:
        from components.data.ingest import IngestSettings, open_sources

        open_sources(IngestSettings.model_validate(settings["ingest"]))


def data_folders(settings: dict[str, Any]) -> list[Path]:
    """The folders that the manifest of a checked configuration is made of: data/ and the roots of named datasets."""
    return [ROOT / "data", *(Path(source["root"]) for source in settings["ingest"]["sources"])]


def _git(root: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, timeout=30, check=False)
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
