"""Who is champion, asked of the model registry without MLflow, whose import takes seconds that a start should not.

A registry in a local SQLite file is read by SQLite, a tracking server is asked over HTTP; both take milliseconds.
"""

import base64
import json
import logging
import os
import sqlite3
import urllib.error
import urllib.parse
import urllib.request
from contextlib import closing
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import Field, ValidationError

from components.strict import Strict

MODEL, CHAMPION = "smartphotocrafter", "champion"
IDENTITY_TAG = "package.identity"
"""Tag of a version: equal for the same models used the same way."""
OPERATION_TAG = "champion.operation"
"""Tag of the registered model: the last operation that moved the alias `champion`, or is about to."""
SQLITE = "sqlite:///"
_ANSWER_SECONDS = 3.0
_PATIENCE_SECONDS, _LONGEST_WAIT_SECONDS = 2.0, 30.0
log = logging.getLogger(__name__)


class Operation(Strict):
    """A move of the alias `champion`: written down before anything happens, and again when all has happened."""

    id: str
    kind: Literal["promotion", "rollback", "by hand"]
    before: str | None = Field(description="Version that was champion; None: there was none.")
    after: str = Field(description="Version that becomes champion.")
    at: str = Field(description="When it began.")
    reason: str = ""
    asked: str = Field(default="", description="Of a rollback: the version that was asked for by name.")
    open: bool = Field(description="Whether something of it may be left to do.")


class Asked(NamedTuple):
    """What a registry says.

    Attributes:
        version: the champion; None where the alias points to no version.
        identity: the version's `IDENTITY_TAG`, or empty.
        consistent: nobody began an operation without ending it, or moved the alias by hand.
        operation: id of the last operation, or empty.
    """

    version: str | None
    identity: str
    consistent: bool
    operation: str = ""


class RegistrySilent(RuntimeError):  # noqa: N818 (reads as a sentence where it is caught)
    """The registry could not be asked; the message says which and why."""


def ask(registry: str) -> Asked:
    """The champion in a registry: an MLflow URI that begins with `sqlite:///`, `http://` or `https://`.

    A server that wants a log-in gets that of ``MLFLOW_TRACKING_USERNAME`` and ``MLFLOW_TRACKING_PASSWORD``, or
    ``MLFLOW_TRACKING_TOKEN``, as MLflow's own client would send it.

    Raises:
        RegistrySilent: it cannot be reached, refuses to answer, or is of another kind.
    """
    if registry.startswith(SQLITE):
        return _ask_sqlite(registry.removeprefix(SQLITE))
    if registry.startswith(("http://", "https://")):
        return _ask_server(registry.rstrip("/"))
    raise RegistrySilent(f"the registry {registry} can only be asked through MLflow")


def read_operation(tag: str | None) -> Operation | None:
    """The operation in the value of an `OPERATION_TAG`; None where there is none that this program wrote."""
    try:
        return Operation.model_validate_json(tag) if tag else None
    except ValidationError:
        return None


def _answer(version: str | None, identity: str | None, tag: str | None) -> Asked:
    operation = read_operation(tag)
    consistent = operation is None or (not operation.open and version in (operation.after, None))
    return Asked(version, identity or "", consistent, operation.id if operation else "")


def _ask_sqlite(path: str) -> Asked:
    """Not read-only: SQLite has to undo what a killed writer left half written before it can read."""
    try:
        address = f"file:{urllib.parse.quote(path)}?mode=rw"
        with closing(sqlite3.connect(address, uri=True, timeout=_PATIENCE_SECONDS)) as database:
            _wait_for(database, path)
            database.execute("BEGIN")  # all three from one moment
            of_alias = "SELECT version FROM registered_model_aliases WHERE name = ? AND alias = ?"
            found = _one(database, of_alias, CHAMPION)
            tag = _one(database, "SELECT value FROM registered_model_tags WHERE name = ? AND key = ?", OPERATION_TAG)
            identity = found and _one(
                database,
                "SELECT value FROM model_version_tags WHERE name = ? AND key = ? AND version = ?",
                IDENTITY_TAG,
                found,
            )
    except sqlite3.Error as error:
        if "no such table" in str(error):
            return Asked(None, "", consistent=True)
        way = "; `make check-state` names the last copy of it" if Path(path).is_file() else ""
        raise RegistrySilent(f"the registry {path} cannot be read: {error}{way}") from error
    return _answer(found and str(found), identity, tag)


def _wait_for(database: sqlite3.Connection, path: str) -> None:
    """Go on as soon as the database can be read, and say so where it is held by another process.

    Raises:
        sqlite3.Error: it is damaged, or held for longer than anybody should hold it.
    """
    try:
        database.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except sqlite3.OperationalError as error:
        if "locked" not in str(error):
            raise
        log.warning("%s is held by another process: waiting up to %.0f s for it", path, _LONGEST_WAIT_SECONDS)
        database.execute(f"PRAGMA busy_timeout = {int(1000 * _LONGEST_WAIT_SECONDS)}")
        database.execute("SELECT count(*) FROM sqlite_master").fetchone()


def _one(database: sqlite3.Connection, query: str, *values: Any) -> Any:
    row = database.execute(query, (MODEL, *values)).fetchone()
    return row[0] if row else None


def _ask_server(url: str) -> Asked:
    model = _get(url, "registered-models/get", name=MODEL).get("registered_model", {})
    tags = {tag["key"]: tag["value"] for tag in model.get("tags", [])}
    found = _get(url, "registered-models/alias", name=MODEL, alias=CHAMPION).get("model_version", {})
    of_version = {tag["key"]: tag["value"] for tag in found.get("tags", [])}
    return _answer(found.get("version"), of_version.get(IDENTITY_TAG), tags.get(OPERATION_TAG))


def _get(url: str, endpoint: str, **query: str) -> dict[str, Any]:
    """The answer of a tracking server; empty where it knows neither the model nor the alias."""
    request = urllib.request.Request(
        f"{url}/api/2.0/mlflow/{endpoint}?{urllib.parse.urlencode(query)}", headers=_login()
    )
    try:
        with urllib.request.urlopen(request, timeout=_ANSWER_SECONDS) as answer:
            return dict(json.load(answer))
    except urllib.error.HTTPError as error:
        said = error.read(2000).decode("utf-8", "replace")
        if "RESOURCE_DOES_NOT_EXIST" in said or "INVALID_PARAMETER_VALUE" in said:
            return {}
        hint = ""
        if error.code in (401, 403):
            hint = "; set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN"
        raise RegistrySilent(f"the registry {url} answers with HTTP status {error.code}{hint}") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        raise RegistrySilent(f"the registry {url} does not answer: {reason}") from error


def _login() -> dict[str, str]:
    if name := os.environ.get("MLFLOW_TRACKING_USERNAME"):
        pair = f"{name}:{os.environ.get('MLFLOW_TRACKING_PASSWORD', '')}"
        return {"Authorization": f"Basic {base64.b64encode(pair.encode()).decode()}"}
    if token := os.environ.get("MLFLOW_TRACKING_TOKEN"):
        return {"Authorization": f"Bearer {token}"}
    return {}
