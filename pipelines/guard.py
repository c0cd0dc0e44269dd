"""What stands before the dashboards: own addresses and origins only, a password, and nothing that plants a path.

A page of any web site can send requests to a server on the loopback address, and, by a name that it has made point
there, read the answers. Both give themselves away by a header that the browser sets: `Origin` and `Host`.
"""

import base64
import os
import re
import secrets
from pathlib import Path

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

HOST = "127.0.0.1"
USER = "default"
"""Name to log in with: ZenML's own for whoever uses a store without a server."""
_READING = {"GET", "HEAD"}
ZENML_WRITES = re.compile(r"POST /api/v1/login")
"""ZenML's dashboard is for looking: whoever could make an artifact store could read what lies in its folder."""
_LABEL = r"registered-models|model-versions|runs|experiments|logged-models|traces"
MLFLOW_WRITES = re.compile(
    r"POST /graphql"
    r"|POST /(ajax-)?api/\d\.0/mlflow/([a-z-]+/)*search[a-z-]*"
    rf"|(POST|PATCH|DELETE) /(ajax-)?api/\d\.0/mlflow/({_LABEL})/(set|delete)-([a-z]+-)?tag"
    rf"|(POST|PATCH) /(ajax-)?api/\d\.0/mlflow/({_LABEL})/(update|rename)"
    r"|POST /(ajax-)?api/\d\.0/mlflow/(runs|experiments)/(delete|restore)"
    r"|(POST|DELETE) /(ajax-)?api/\d\.0/mlflow/registered-models/alias"
)
"""MLflow's pages search, label, move aliases and hide runs; they make nothing that has files of its own."""


def password_of(file: Path) -> tuple[str, bool]:
    """The password in ``file``, made at the first call and readable by its owner only; and whether it is new."""
    file.parent.mkdir(parents=True, exist_ok=True)
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        file.chmod(0o600)
        if password := file.read_text(encoding="utf-8").strip():
            return password, False
        file.unlink()  # left empty by a process that was killed
        return password_of(file)
    with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
        stream.write(password := secrets.token_urlsafe(18))
    return password, True


def addresses(port: int) -> list[str]:
    """What `Host` may say."""
    return [f"{HOST}:{port}", f"localhost:{port}"]


def origins(port: int) -> list[str]:
    """What `Origin` may say."""
    return [f"http://{address}" for address in addresses(port)]


class Guard:
    """Lets through to ``app`` what comes from its own pages and is allowed.

    Args:
        port: where it is served, on the loopback address.
        writes: matches "METHOD /path" of requests beside reading that are allowed.
        password: asked for by HTTP's basic scheme; empty: the app has a log-in of its own.
    """

    def __init__(self, app: ASGIApp, port: int, writes: re.Pattern[str], password: str = "") -> None:
        self.app, self.writes = app, writes
        self.addresses, self.origins = addresses(port), origins(port)
        self.credentials = base64.b64encode(f"{USER}:{password}".encode()).decode() if password else ""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request; 400 for a foreign host, 403 for a foreign origin or what is not allowed, 401 to log in."""
        if scope["type"] == "lifespan":
            return await self.app(scope, receive, send)
        if scope["type"] != "http":  # neither has pages that speak by web sockets
            return await send({"type": "websocket.close", "code": 1008})
        if refusal := self._refusal(Headers(scope=scope), scope["method"], scope["path"]):
            return await refusal(scope, receive, send)
        return await self.app(scope, receive, send)

    def _refusal(self, headers: Headers, method: str, path: str) -> PlainTextResponse | None:
        if headers.getlist("host") not in [[address] for address in self.addresses]:
            return PlainTextResponse(f"this is {self.addresses[0]}, and has no other name\n", 400)
        if any(origin not in self.origins for origin in headers.getlist("origin")):
            return PlainTextResponse("not for pages of other sites\n", 403)
        if self.credentials:
            scheme, _, given = headers.get("authorization", "").partition(" ")
            if scheme.lower() != "basic" or not secrets.compare_digest(given.encode(), self.credentials.encode()):
                ask = {"WWW-Authenticate": 'Basic realm="SmartPhotoCrafter", charset="UTF-8"'}
                return PlainTextResponse(f"log in as {USER}, with the password that make ui names\n", 401, ask)
        if method not in _READING and not self.writes.fullmatch(f"{method} {path}"):
            return PlainTextResponse("these pages are for looking; change it by the commands of the project\n", 403)
        return None
