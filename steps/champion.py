"""Who is champion: moving the alias so that two promotions at once cannot overtake each other, and moving it back.

A promotion is a compare-and-set: the challenger was compared with some champion, and takes its place only while that
one still reigns. Each version remembers whose place it took, which is the way back for `make rollback`; a version that
a person took down is marked, so that no gate puts it up again.

Every move is written down in the registry before anything happens (`components.champion.address.Operation`), and
closed when all has happened. Whoever comes next finishes what a killed process began. A rollback whose command was
killed before it could say so is remembered as well, so that the same command given again does not go back one more.
"""

import logging
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Literal, NamedTuple

import mlflow
from mlflow.exceptions import MlflowException

from components.champion.address import CHAMPION, MODEL, OPERATION_TAG, Operation, read_operation
from steps.registry import champion_version, check_files, set_alias, version_package
from steps.registry_lock import exclusive

log = logging.getLogger(__name__)

PREVIOUS_TAG = "champion.previous"
"""Tag of a version that was promoted: the version whose place it took, or empty for the first champion."""
TAKEN_DOWN_TAG = "champion.taken_down"
"""Tag of a version that was rolled back: when, and why if it was said."""
UNTOLD_TAG = "champion.untold"
"""Tag of the registered model: a rollback whose command has not said yet that it was done; with a dot and the version
where one was asked for by name."""
_LONGEST_REASON = 1000  # characters; a tag may have 5000 in all


class ChampionChanged(RuntimeError):  # noqa: N818 (reads as a sentence where it is caught)
    """Another promotion came first: the challenger has to be compared with the new champion."""


class NoWayBack(RuntimeError):  # noqa: N818
    """There is no version that could be restored; the message says why."""


class Restored(NamedTuple):
    """What a rollback did.

    Attributes:
        version: that was restored.
        instead_of: the champion before; None: the registry had none.
        champion: now; another than ``version`` only where ``interrupted`` and something was promoted since.
        interrupted: when the command was given that did it, if that was an earlier one that was killed.
    """

    version: str
    instead_of: str | None
    champion: str
    interrupted: str = ""


def taken_down(version: str) -> str | None:
    """When, and why, a person took the version down; None if nobody did."""
    return mlflow.MlflowClient().get_model_version(MODEL, version).tags.get(TAKEN_DOWN_TAG)


def recover(wait: float | None = None) -> str | None:
    """Finish or undo what a killed process began, take note of an alias that was moved by hand; who is champion then?

    Args:
        wait: seconds to wait for a lock that others hold, where anything is to be done.

    Raises:
        TimeoutError: the lock could not be had.
    """
    client = mlflow.MlflowClient()
    operation, champion = _last(client), champion_version()
    if operation is None or (not operation.open and champion in (operation.after, None)):
        return champion
    with exclusive() if wait is None else exclusive(wait):
        return _recover(client)


def promote_version(version: str, over: str | None) -> None:
    """Make ``version`` champion in the place of ``over`` (None: there was no champion). Again: nothing happens.

    Raises:
        ChampionChanged: the champion is another than ``over`` by now.
        ValueError: a person took the version down.
        components.models.package.PackageError: files of the version are missing or altered.
    """
    check_files(version)  # before the lock is taken, since it may take long
    with exclusive():
        client = mlflow.MlflowClient()
        champion = _recover(client)
        if champion == version:
            return
        if champion != over:
            raise ChampionChanged(
                f"version {version} was compared with {f'version {over}' if over else 'no champion'}, but the champion "
                f"is version {champion} by now: compare it with that one"
            )
        if when := taken_down(version):
            raise ValueError(f"version {version} was rolled back ({when}); `make rollback TO={version}` puts it back")
        _move(client, _operation("promotion", before=champion, after=version))


def rollback(
    to: str | None = None,
    reason: str = "",
    ready: Callable[[str], object] = version_package,
    tell: Callable[[Restored], None] = lambda restored: None,
) -> Restored:
    """Restore the champion before the present one, or version ``to``, after verifying every file of its package.

    The version that leaves is marked, so that no gate promotes it again. Doing it twice goes back two champions;
    but if the command was killed before ``tell`` returned, the same again does only what that one left to do.

    Args:
        ready: has the files of a version ready before it becomes champion, verified.
        tell: says what was done, to whoever gave the command.

    Raises:
        NoWayBack: there is no champion, none before it, no version ``to``, or a promotion came in between.
        components.models.package.PackageError: the files of the version to restore are missing or altered.
    """
    client = mlflow.MlflowClient()
    champion = recover()
    if (begun := _untold(client, to)) and champion is not None:
        restored = Restored(begun.after, begun.before, champion, interrupted=begun.at)
    else:
        restored, begun = _roll_back(client, champion, to, reason, ready)
    tell(restored)
    if begun:
        with exclusive():
            if (present := _untold(client, to)) and present.id == begun.id:
                client.delete_registered_model_tag(MODEL, _untold_tag(begun.asked))
    return restored


def _roll_back(
    client: mlflow.MlflowClient, champion: str | None, to: str | None, reason: str, ready: Callable[[str], object]
) -> tuple[Restored, Operation | None]:
    known = sorted((str(version.version) for version in _versions(client)), key=int)
    if champion is None and (to is None or not known):
        there = f"; name one of its versions, {', '.join(known)}, by TO=" if known else ": run `make pipeline` first"
        raise NoWayBack(f"there is no champion{' in the registry any more' if _last(client) else ' yet'}{there}")
    target = to if to is not None else previous(client, str(champion))
    if target not in known:
        raise NoWayBack(f"there is no version {target!r} of {MODEL}; versions: {', '.join(known)}")
    if target == champion:
        return Restored(champion, instead_of=champion, champion=champion), None
    ready(target)  # before the lock is taken, since it may have to be downloaded
    with exclusive():
        if (now := _recover(client)) != champion:
            raise NoWayBack(f"version {now} became champion in the meantime; look, and roll back again if you want to")
        operation = _operation("rollback", champion, target, reason=reason[:_LONGEST_REASON], asked=to or "")
        _move(client, operation)
    log.info("version %s is champion again, in the place of version %s", target, champion)
    return Restored(target, instead_of=champion, champion=target), operation


def _operation(
    kind: Literal["promotion", "rollback", "by hand"], before: str | None, after: str, reason: str = "", asked: str = ""
) -> Operation:
    now = f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"
    return Operation(
        id=uuid.uuid4().hex, kind=kind, before=before, after=after, at=now, reason=reason, asked=asked, open=True
    )


def _move(client: mlflow.MlflowClient, operation: Operation) -> None:
    """Write the operation down, then carry it out; call it while holding the lock."""
    client.set_registered_model_tag(MODEL, OPERATION_TAG, operation.model_dump_json())
    _carry_out(client, operation)


def _recover(client: mlflow.MlflowClient) -> str | None:
    """`recover`, while holding the lock."""
    operation, champion = _last(client), champion_version()
    if operation is None or (champion is None and not operation.open):
        return champion
    if operation.open:
        present = {str(version.version) for version in _versions(client)}
        if champion in (operation.before, operation.after) and operation.after in present:
            log.warning("finishing the %s to version %s that was interrupted", operation.kind, operation.after)
            _carry_out(client, operation)
            return operation.after
        log.warning("the %s to version %s that was interrupted is given up", operation.kind, operation.after)
        if champion is None:
            _close(client, operation)
            return None
    if champion is not None and champion != operation.after:
        before = operation.before if operation.open else operation.after
        log.warning("the alias champion was moved by hand, from version %s to version %s", before, champion)
        _move(client, _operation("by hand", before=before, after=champion))
    return champion


def _carry_out(client: mlflow.MlflowClient, operation: Operation) -> None:
    """Do all of an operation that is written down, however much of it has been done before, and close it."""
    set_alias(CHAMPION, operation.after)
    if operation.kind == "rollback":
        if operation.before:
            when = f"{operation.at}: {operation.reason}" if operation.reason else operation.at
            _tag(client, operation.before, TAKEN_DOWN_TAG, when)
        client.set_registered_model_tag(MODEL, _untold_tag(operation.asked), operation.model_dump_json())
    else:
        _tag(client, operation.after, PREVIOUS_TAG, operation.before or "")
    if operation.kind != "promotion" and taken_down(operation.after):
        client.delete_model_version_tag(MODEL, operation.after, TAKEN_DOWN_TAG)
    _close(client, operation)


def _close(client: mlflow.MlflowClient, operation: Operation) -> None:
    closed = operation.model_copy(update={"open": False})
    client.set_registered_model_tag(MODEL, OPERATION_TAG, closed.model_dump_json())


def _tag(client: mlflow.MlflowClient, version: str, tag: str, value: str) -> None:
    """Tag a version, unless somebody has deleted it."""
    try:
        client.set_model_version_tag(MODEL, version, tag, value)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise


def _last(client: mlflow.MlflowClient) -> Operation | None:
    """The last operation; None before the first, or where the model is not registered yet."""
    return read_operation(_model_tags(client).get(OPERATION_TAG))


def _untold(client: mlflow.MlflowClient, to: str | None) -> Operation | None:
    return read_operation(_model_tags(client).get(_untold_tag(to or "")))


def _untold_tag(asked: str) -> str:
    return f"{UNTOLD_TAG}.{asked}" if asked else UNTOLD_TAG


def _model_tags(client: mlflow.MlflowClient) -> dict[str, str]:
    try:
        return dict(client.get_registered_model(MODEL).tags)
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return {}
        raise


def _versions(client: mlflow.MlflowClient) -> list[mlflow.entities.model_registry.ModelVersion]:
    return list(client.search_model_versions(f"name = '{MODEL}'"))


def previous(client: mlflow.MlflowClient, champion: str) -> str:
    """The last champion before ``champion`` that nobody took down or deleted."""
    tags = {str(version.version): version.tags for version in _versions(client)}
    seen, version = {champion}, champion
    while version := tags.get(version, {}).get(PREVIOUS_TAG, ""):
        if version in seen:
            break
        if version in tags and TAKEN_DOWN_TAG not in tags[version]:
            return version
        seen.add(version)
    raise NoWayBack(
        f"there was no champion before version {champion} that is still there and has not been taken down as well; "
        f"`make rollback TO=` with the number of any version makes that one champion"
    )
