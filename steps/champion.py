"""Who is champion: moving the alias so that two promotions at once cannot overtake each other, and moving it back.

A promotion is a compare-and-set: the challenger was compared with some champion, and takes its place only while that
one still reigns. Each version remembers whose place it took, which is the way back for `make rollback`; a version that
a person took down is marked, so that no gate puts it up again.
"""

import logging
from datetime import UTC, datetime
from typing import NamedTuple

import mlflow

from steps.registry import CHAMPION, MODEL, champion_version, set_alias, version_package
from steps.registry_lock import exclusive

log = logging.getLogger(__name__)

PREVIOUS_TAG = "champion.previous"
"""Tag of a version that was promoted: the version whose place it took, or empty for the first champion."""
TAKEN_DOWN_TAG = "champion.taken_down"
"""Tag of a version that was rolled back: when, and why if it was said."""


class ChampionChanged(RuntimeError):  # noqa: N818 (reads as a sentence where it is caught)
    """Another promotion came first: the challenger has to be compared with the new champion."""


class NoWayBack(RuntimeError):  # noqa: N818
    """There is no version that could be restored; the message says why."""


class Restored(NamedTuple):
    """What a rollback did."""

    version: str
    instead_of: str


def taken_down(version: str) -> str | None:
    """When, and why, a person took the version down; None if nobody did."""
    return mlflow.MlflowClient().get_model_version(MODEL, version).tags.get(TAKEN_DOWN_TAG)


def promote_version(version: str, over: str | None) -> None:
    """Make ``version`` champion in the place of ``over`` (None: there was no champion). Again: nothing happens.

    Raises:
        ChampionChanged: the champion is another than ``over`` by now.
        ValueError: a person took the version down.
    """
    with exclusive():
        champion = champion_version()
        if champion == version:
            return
        if champion != over:
            raise ChampionChanged(
                f"version {version} was compared with {f'version {over}' if over else 'no champion'}, but the champion "
                f"is version {champion} by now: compare it with that one"
            )
        if when := taken_down(version):
            raise ValueError(f"version {version} was rolled back ({when}); `make rollback TO={version}` puts it back")
        mlflow.MlflowClient().set_model_version_tag(MODEL, version, PREVIOUS_TAG, champion or "")
        set_alias(CHAMPION, version)


def rollback(to: str | None = None, reason: str = "") -> Restored:
    """Restore the champion before the present one, or version ``to``, after verifying every file of its package.

    The version that leaves is marked, so that no gate promotes it again. Doing it twice goes back two champions.

    Raises:
        NoWayBack: there is no champion, none before it, no version ``to``, or a promotion came in between.
        components.registry.package.PackageError: the files of the version to restore have been altered.
    """
    client = mlflow.MlflowClient()
    champion = champion_version()
    if champion is None:
        raise NoWayBack("there is no champion yet: run `make pipeline` first")
    target = to if to is not None else _previous(client, champion)
    known = {str(version.version) for version in client.search_model_versions(f"name = '{MODEL}'")}
    if target not in known:
        raise NoWayBack(f"there is no version {target!r} of {MODEL}; versions: {', '.join(sorted(known, key=int))}")
    if target == champion:
        return Restored(champion, instead_of=champion)
    version_package(target)  # before the lock is taken, since it may have to be downloaded
    with exclusive():
        if (now := champion_version()) != champion:
            raise NoWayBack(f"version {now} became champion in the meantime; look, and roll back again if you want to")
        when = f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"
        client.set_model_version_tag(MODEL, champion, TAKEN_DOWN_TAG, f"{when}: {reason}" if reason else when)
        if taken_down(target):
            client.delete_model_version_tag(MODEL, target, TAKEN_DOWN_TAG)
        set_alias(CHAMPION, target)
    log.info("version %s is champion again, in the place of version %s", target, champion)
    return Restored(target, instead_of=champion)


def _previous(client: mlflow.MlflowClient, champion: str) -> str:
    """The last champion before ``champion`` that nobody took down."""
    seen, version = {champion}, champion
    while version := client.get_model_version(MODEL, version).tags.get(PREVIOUS_TAG, ""):
        if version in seen:
            break
        if taken_down(version) is None:
            return version
        seen.add(version)
    raise NoWayBack(f"there was no champion before version {champion} that has not been taken down as well")
