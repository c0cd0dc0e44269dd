"""A lock on the model registry, held for the moments in which an alias moves.

Beside a registry in a local SQLite file it is a file lock, which the system releases if its holder is killed. On a
tracking server, which many machines share, it is a registered model with a name of its own: creating one is atomic
there and fails while it exists.
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

from steps.registry import MODEL

log = logging.getLogger(__name__)

LOCK_MODEL = f"{MODEL}-promotion-lock"
_SQLITE = "sqlite:///"
_WAIT_SECONDS = 120.0
_STALE_SECONDS = 300.0
_HOLDER_TAG = "holder"


@contextmanager
def exclusive() -> Iterator[None]:
    """Hold the lock of the current registry. It is not re-entrant across processes.

    Raises:
        TimeoutError: somebody else has held it for two minutes.
    """
    uri = mlflow.get_registry_uri()
    if uri.startswith(_SQLITE):
        path = Path(uri.removeprefix(_SQLITE))
        with FileLock(path.with_name(f"{path.name}.promotion.lock"), timeout=_WAIT_SECONDS):
            yield
    else:
        with server_lock():
            yield


@contextmanager
def server_lock(wait: float = _WAIT_SECONDS, stale: float = _STALE_SECONDS) -> Iterator[None]:
    """The lock that works on any registry: while it is held, the registered model `LOCK_MODEL` exists.

    Args:
        wait: seconds to wait for another holder.
        stale: seconds after which a holder counts as dead, since it was killed before it could release the lock.

    Raises:
        TimeoutError: another holder did not release it in time.
    """
    client, holder, began = mlflow.MlflowClient(), uuid.uuid4().hex, time.monotonic()
    while not _acquired(client, holder, stale):
        if time.monotonic() - began > wait:
            raise TimeoutError(
                f"the registered model {LOCK_MODEL} has existed for {wait:.0f} s: another promotion is running, or was "
                f"killed; delete that model in the registry if none is"
            )
        time.sleep(0.05)
    try:
        yield
    finally:
        if _holder(client) == holder:
            client.delete_registered_model(LOCK_MODEL)


def _acquired(client: mlflow.MlflowClient, holder: str, stale: float) -> bool:
    try:
        client.create_registered_model(LOCK_MODEL, tags={_HOLDER_TAG: holder})
        return True
    except MlflowException as error:
        # "Does not exist" is what the store says if the lock was released while it looked up who holds it.
        if error.error_code not in {"RESOURCE_ALREADY_EXISTS", "ALREADY_EXISTS", "RESOURCE_DOES_NOT_EXIST"}:
            raise
    try:
        model = client.get_registered_model(LOCK_MODEL)
    except MlflowException:  # released in between
        return False
    if time.time() - model.creation_timestamp / 1000 > stale:
        log.warning("removing the promotion lock of a process that died (%s)", model.tags.get(_HOLDER_TAG))
        client.delete_registered_model(LOCK_MODEL)
    return False


def _holder(client: mlflow.MlflowClient) -> str | None:
    try:
        return client.get_registered_model(LOCK_MODEL).tags.get(_HOLDER_TAG)
    except MlflowException:
        return None
