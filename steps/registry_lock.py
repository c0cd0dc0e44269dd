"""A lock on the model registry, held for the moments in which an alias moves.

Beside a registry in a local SQLite file it is a file lock, which the system releases if its holder is killed. On a
tracking server, which many machines share, it is a registered model with a name of its own, which can exist only once.
Giving the lock back, and taking it from a holder that died, both rename that model to a name made of the holder's id:
of all who try, for one holder, exactly one succeeds, so that nobody ever removes the lock of the next.
"""

import logging
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import mlflow
from filelock import FileLock
from mlflow.exceptions import MlflowException

from components.champion.address import MODEL

log = logging.getLogger(__name__)

LOCK_MODEL = f"{MODEL}-promotion-lock"
ENDED_PREFIX = f"{MODEL}-promotion-ended-"
"""Of the names that the lock gets when somebody ceases to hold it; such a model is deleted at once, or, where somebody
may yet try to end the same holder, by a later one who takes the lock from a holder that died."""
_SQLITE = "sqlite:///"
STALE_SECONDS = 120.0
"""After which one that has held the lock of a tracking server all the time counts as dead."""
_WAIT_SECONDS = 300.0
_KEPT_SECONDS = 3600.0
_HOLDER_TAG = "holder"


@contextmanager
def exclusive(wait: float = _WAIT_SECONDS) -> Iterator[None]:
    """Hold the lock of the current registry. It is not re-entrant across processes.

    Raises:
        TimeoutError: others have held it for ``wait`` seconds.
    """
    uri = mlflow.get_registry_uri()
    if uri.startswith(_SQLITE):
        path = Path(uri.removeprefix(_SQLITE))
        with FileLock(path.with_name(f"{path.name}.promotion.lock"), timeout=wait):
            yield
    else:
        with server_lock(wait):
            yield


@contextmanager
def server_lock(wait: float = _WAIT_SECONDS, stale: float | None = None) -> Iterator[None]:
    """The lock that works on any registry: while it is held, the registered model `LOCK_MODEL` exists.

    Args:
        wait: seconds to wait for other holders, more than ``stale``.
        stale: seconds after which one that has been seen holding it all the time counts as dead: it was killed before
            it could give the lock back. They are counted by the clock of whoever waits; `STALE_SECONDS` by default.

    Raises:
        TimeoutError: others did not give it back in time.
    """
    stale = STALE_SECONDS if stale is None else stale
    client, holder, began = mlflow.MlflowClient(), uuid.uuid4().hex, time.monotonic()
    seen: tuple[str | None, float] = (None, began)
    while not _acquired(client, holder):
        now, present = time.monotonic(), _holder(client)
        if present != seen[0]:
            seen = (present, now)
        elif present is not None and now - seen[1] > stale and _end(client, present):
            log.warning("took the promotion lock from a process that died (%s)", present)
            _sweep(client)
        if now - began > wait:
            raise TimeoutError(
                f"the registered model {LOCK_MODEL} has been there for {wait:.0f} s: other promotions are running, or "
                f"were killed; delete that model in the registry if none is running"
            )
        time.sleep(0.05)
    acquired = time.monotonic()
    try:
        yield
    finally:
        if not _end(client, holder):
            log.warning("the promotion took so long that another process took its lock")
        elif time.monotonic() - acquired < stale / 2:  # nobody has come to think that this holder died
            client.delete_registered_model(ENDED_PREFIX + holder)


def _acquired(client: mlflow.MlflowClient, holder: str) -> bool:
    try:
        client.create_registered_model(LOCK_MODEL, tags={_HOLDER_TAG: holder})
    except MlflowException as error:
        # "Does not exist" is what the store says if the lock was given back while it looked up who holds it.
        if error.error_code not in {"RESOURCE_ALREADY_EXISTS", "ALREADY_EXISTS", "RESOURCE_DOES_NOT_EXIST"}:
            raise
        return _holder(client) == holder  # the answer to a first request was lost, and the client repeated it
    return True


def _end(client: mlflow.MlflowClient, holder: str) -> bool:
    """Let ``holder`` no longer hold the lock; False if that has happened before."""
    try:
        client.rename_registered_model(LOCK_MODEL, ENDED_PREFIX + holder)
    except MlflowException as error:
        log.debug("%s does not hold the lock any more: %s", holder, error)
        return False
    return True


def _sweep(client: mlflow.MlflowClient) -> None:
    """Delete what dead holders left behind so long ago that nobody waits for them any more."""
    for model in client.search_registered_models(f"name LIKE '{ENDED_PREFIX}%'"):
        if time.time() - model.last_updated_timestamp / 1000 > _KEPT_SECONDS:
            client.delete_registered_model(model.name)


def _holder(client: mlflow.MlflowClient) -> str | None:
    try:
        return client.get_registered_model(LOCK_MODEL).tags.get(_HOLDER_TAG)
    except MlflowException:
        return None
