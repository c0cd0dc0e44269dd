"""Publishing: the copy of the champion in the state folder follows the registry."""

import logging
import sqlite3
from pathlib import Path

import mlflow
from filelock import FileLock

from components import databases
from components.champion.address import CHAMPION, IDENTITY_TAG, MODEL, SQLITE
from components.champion.copies import ChampionCopies, Copy
from steps.champion import recover
from steps.registry import champion_version, version_package

log = logging.getLogger(__name__)

_BUSY_SECONDS = 20.0


def publish_champion(state: Path, stack: str = "local") -> Path | None:
    """Let ``champion`` in the state folder be the champion's package, where the command line finds it without MLflow.

    What a killed process began in the registry is finished first. The link is replaced in one step, so that whoever
    reads it meanwhile finds the old champion or the new one, and under a lock, so that of two who publish the later one
    leaves the later champion. The copy that leaves is removed when nobody reads it any more.

    Args:
        stack: name of the stack whose registry MLflow is set to.

    Returns:
        the folder of the package, or None where the registry has no champion; a copy published before stays then.

    Raises:
        components.models.package.PackageError: files of the champion's version are missing or altered.
    """
    copies = ChampionCopies(state.resolve())
    while True:
        version = _champion()
        if version is None:
            return None
        with copies.reading():
            package = copy_version(copies, version, stack)
            present = copies.present()
            if present and present[1] == package and champion_version() == version:
                break
            with FileLock(copies.state / f"{CHAMPION}.lock"):
                if champion_version() == version:
                    copies.point(package)
                    _back_up(copies.state)
                    break
    copies.sweep()
    return package


def _back_up(state: Path) -> None:
    """A copy of the registry's database, where that is a file; that it cannot be made is told and stops nothing."""
    registry = mlflow.get_registry_uri()
    if registry.startswith(SQLITE):
        try:
            databases.back_up(Path(registry.removeprefix(SQLITE)), state)
        except (OSError, sqlite3.Error, databases.DatabaseError) as error:
            log.warning("there is no copy of the registry of this promotion: %s", error)


def copy_version(copies: ChampionCopies, version: str, stack: str) -> Path:
    """A verified copy of a version's package among ``copies``; call it while holding ``copies.reading()``."""
    tags = mlflow.MlflowClient().get_model_version(MODEL, version).tags
    copy = Copy(registry=mlflow.get_registry_uri(), stack=stack, version=version, identity=tags.get(IDENTITY_TAG, ""))
    return copies.add(copy, lambda into: version_package(version, into).folder)


def _champion() -> str | None:
    """Who is champion, after what was interrupted is finished, unless somebody is at work there or died at it."""
    try:
        return recover(_BUSY_SECONDS)
    except TimeoutError as error:
        log.warning("%s; the champion is taken as the alias has it now", error)
        return champion_version()
