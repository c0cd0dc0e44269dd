"""What stands before every request: its number, the check of the Host header, the access log and the counters."""

import json
import logging
import re
import time
from collections.abc import Collection
from uuid import uuid4

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from components.serving.metrics import Metrics

log = logging.getLogger("components.serving.access")

REQUEST_ID = "X-Request-Id"
_GIVEN_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_RETRY_SECONDS = "5"
_CODES = {
    400: "INVALID_PARAMETER_VALUE",
    404: "ENDPOINT_NOT_FOUND",
    405: "BAD_REQUEST",
    408: "DEADLINE_EXCEEDED",
    413: "INVALID_PARAMETER_VALUE",
    415: "INVALID_PARAMETER_VALUE",
    421: "BAD_REQUEST",
    429: "RESOURCE_EXHAUSTED",
    499: "CANCELLED",
    500: "INTERNAL_ERROR",
    503: "TEMPORARILY_UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}
_MOST_MESSAGE = 1000


def refusal(status: int, message: str, headers: dict[str, str] | None = None) -> Response:
    """An answer that says why there is none: JSON ``{"error_code", "message"}``, as MLflow's are."""
    headers = dict(headers or {})
    if status in (429, 503):
        headers["Retry-After"] = _RETRY_SECONDS
    content = json.dumps({"error_code": _CODES[status], "message": message[:_MOST_MESSAGE]})
    return Response(content, status_code=status, media_type="application/json", headers=headers)


class Front:
    """Middleware around the whole application.

    Args:
        hosts: names that requests may be addressed to, without ports; empty for any.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics, hosts: Collection[str] = ()):
        self.app, self.metrics, self.hosts = app, metrics, frozenset(map(str.lower, hosts))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began, headers = time.perf_counter(), Headers(scope=scope)
        given = headers.get(REQUEST_ID, "")
        scope["request_id"] = given if _GIVEN_ID.fullmatch(given) else uuid4().hex
        has_body = headers.get("content-length", "0") != "0" or "transfer-encoding" in headers
        status, sent, is_read = 500, 0, not has_body

        async def receiving() -> Message:
            nonlocal is_read
            message = await receive()
            is_read = is_read or not message.get("more_body", False)
            return message

        async def sending(message: Message) -> None:
            nonlocal status, sent
            if message["type"] == "http.response.start":
                status = message["status"]
                answered = MutableHeaders(scope=message)
                answered[REQUEST_ID] = scope["request_id"]
                answered["X-Content-Type-Options"] = "nosniff"
                if not is_read:  # or the rest of the body would be read, however long it is
                    answered["Connection"] = "close"
            sent += len(message.get("body", b""))
            await send(message)

        try:
            host = headers.get("host", "")
            if self.hosts and _name(host) not in self.hosts:
                expected = ", ".join(sorted(self.hosts))
                answer = refusal(421, f"expected a Host of {expected}, found {host[:80]!r}: see --allow-host")
                await answer(scope, receiving, sending)
            else:
                await self.app(scope, receiving, sending)
        finally:
            seconds = time.perf_counter() - began
            route = scope.get("route")
            path = getattr(route, "path", "other")
            self.metrics.requests.labels(path, str(status)).inc()
            self.metrics.seconds.labels(path).observe(seconds)
            client = scope.get("client") or ("-", 0)
            raw = scope.get("raw_path", b"").decode("latin-1")[:200]
            log.info(
                '%s %s "%s %s" %d %d bytes %.3f s', scope["request_id"], client[0], scope["method"], raw, status, sent,
                seconds,
            )  # fmt: skip


def _name(host: str) -> str:
    """The name in a Host header, without its port (RFC 9110, 7.2)."""
    host = host.strip().lower()
    if host.startswith("["):
        return host.partition("]")[0] + "]"
    return host.partition(":")[0]
