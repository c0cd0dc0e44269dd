"""The HTTP face of a PhotoService: MLflow's scoring protocol with limits that MLflow's own server does not have.

    GET  /ping, /health   200 while it serves
    GET  /version         of this project
    POST /invocations     MLflow's JSON protocol (components/serving/protocol.py)
    POST /enhance         a picture file as the body; seed and strength in the query; JSON with picture and verdict
    POST /critique        a picture file as the body; JSON with the Critic's words and no edit

Errors are JSON ``{"error_code", "message"}`` as MLflow's are. 400: not in the protocol, not a picture; 408: the body
came too slowly; 413: more bytes or pixels than allowed; 415: another content type; 429: too many requests wait; 500:
the server failed, and its log has the traceback; 503: waited too long; 504: the work took too long.
"""

import asyncio
import base64
import json
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from importlib.metadata import version
from typing import TypeVar

from fastapi import FastAPI, Request, Response
from starlette.requests import ClientDisconnect

from components.serving.protocol import parse_invocation, predictions
from components.serving.service import MEDIA_TYPES, PhotoService, Reason, Refused

log = logging.getLogger(__name__)

_Result = TypeVar("_Result")
_Handler = Callable[[bytes, float], Awaitable[bytes]]
_STATUS = {Reason.INVALID: 400, Reason.TOO_LARGE: 413, Reason.BUSY: 429, Reason.TIMED_OUT: 503}
_CODES = {
    400: "INVALID_PARAMETER_VALUE",
    408: "DEADLINE_EXCEEDED",
    413: "INVALID_PARAMETER_VALUE",
    415: "INVALID_PARAMETER_VALUE",
    429: "RESOURCE_EXHAUSTED",
    499: "CANCELLED",
    500: "INTERNAL_ERROR",
    503: "TEMPORARILY_UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}
_RETRY_SECONDS = "5"
_BODY_UNREAD = (408, 413, 415, 429)
_PROTOCOL_BYTES = 64 * 1024  # of a request beside its pictures
_FILE_TYPES = ("image/", "application/octet-stream")


class _Answered(Exception):  # noqa: N818 (reads as a sentence where it is raised)
    """Ends a request with a status and a reason."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class _Desk:
    """Lets in as many requests as may wait, reads their bodies within limits and has one worked on at a time."""

    def __init__(self, service: PhotoService):
        self.service, self.limits = service, service.limits
        self.worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="enhance")
        self.inside = 0

    async def body(self, request: Request, most: int) -> bytes:
        """The body, as long as it is no longer than ``most`` bytes and comes in time."""
        declared = request.headers.get("content-length", "")
        if declared.isdecimal() and int(declared) > most:
            raise _Answered(413, f"expected a body of at most {most} bytes, found {declared}: send a smaller file")
        try:
            async with asyncio.timeout(self.limits.upload_seconds):
                content = bytearray()
                async for chunk in request.stream():
                    content += chunk
                    if len(content) > most:
                        raise _Answered(413, f"expected a body of at most {most} bytes: send a smaller file")
                return bytes(content)
        except TimeoutError as error:
            raise _Answered(408, f"the body did not arrive within {self.limits.upload_seconds:g} s") from error

    async def work(self, deadline: float, function: Callable[[], _Result]) -> _Result:
        """The result of ``function``, run in the thread of the models when all before it are done."""

        def in_time() -> _Result:
            if time.monotonic() > deadline:
                raise Refused(Reason.TIMED_OUT, "the request waited too long for its turn: try again later")
            return function()

        loop = asyncio.get_running_loop()
        future = self.worker.submit(in_time)
        try:
            async with asyncio.timeout(deadline - time.monotonic()):
                return await asyncio.shield(asyncio.wrap_future(future))
        except TimeoutError as error:
            if not future.cancel():  # a thread cannot be stopped: the request keeps its place until the work ends
                self.inside += 1
                future.add_done_callback(lambda _: loop.call_soon_threadsafe(self._leave))
            raise _Answered(504, f"not done in {self.limits.timeout_seconds:g} s: send a smaller picture") from error

    def _leave(self) -> None:
        self.inside -= 1


def create_app(service: PhotoService) -> FastAPI:
    """The application that serves ``service``; run it in one process, since the models are in memory once."""
    desk, limits = _Desk(service), service.limits

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        desk.worker.shutdown(wait=True, cancel_futures=True)

    app = FastAPI(title="SmartPhotoCrafter", docs_url=None, redoc_url=None, openapi_url=None, lifespan=lifespan)

    async def answer(request: Request, types: tuple[str, ...], most: int, handle: _Handler) -> Response:
        deadline = time.monotonic() + limits.timeout_seconds
        kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
        try:
            if not kind.startswith(types):
                how = ": send the file itself as the body, no form" if kind.startswith("multipart/") else ""
                raise _Answered(415, f"expected a content type of {', '.join(types)}, found {kind or 'none'}{how}")
            if desk.inside > limits.waiting:
                raise _Answered(429, f"{limits.waiting} requests are waiting already: try again in a few seconds")
            desk.inside += 1  # from here on, also while the body arrives
            try:
                content = await handle(await desk.body(request, most), deadline)
            finally:
                desk.inside -= 1
            return Response(content, media_type="application/json")
        except Refused as refused:
            return _refusal(_STATUS[refused.reason], str(refused))
        except _Answered as answered:
            return _refusal(answered.status, str(answered))
        except ClientDisconnect:
            return _refusal(499, "the client went away")
        except Exception:
            log.exception("a request failed")
            return _refusal(500, "the server failed on this request; its log says why")

    @app.get("/ping")
    @app.get("/health")
    async def health() -> Response:
        return Response("\n", media_type="application/json")

    @app.get("/version")
    async def project_version() -> Response:
        return Response(version("smartphotocrafter"), media_type="text/plain")

    @app.post("/invocations")
    async def invocations(request: Request) -> Response:
        async def handle(body: bytes, deadline: float) -> bytes:
            asked = await asyncio.to_thread(parse_invocation, body, limits.max_photos)
            enhance = partial(service.enhance, seed=asked.seed, strength=asked.strength, deadline=deadline)
            answers = await desk.work(deadline, lambda: [enhance(photo) for photo in asked.photos])
            return await asyncio.to_thread(predictions, answers)

        most = limits.max_bytes * 4 // 3 + _PROTOCOL_BYTES  # Base64
        return await answer(request, ("application/json",), most, handle)

    @app.post("/enhance")
    async def enhance(request: Request) -> Response:
        async def handle(body: bytes, deadline: float) -> bytes:
            _check_query(request, "seed", "strength")
            seed, strength = _number(request, "seed", int) or 0, _number(request, "strength", float)
            made = await desk.work(deadline, partial(service.enhance, body, seed, strength, deadline))
            content = {
                "photo": base64.b64encode(made.photo).decode("ascii"),
                "media_type": MEDIA_TYPES[made.suffix],
                "suffix": made.suffix,
                "strength": made.strength,
                "text": made.text,
                "verdict": json.loads(made.verdict),
            }
            return json.dumps(content).encode()

        return await answer(request, _FILE_TYPES, limits.max_bytes, handle)

    @app.post("/critique")
    async def critique(request: Request) -> Response:
        async def handle(body: bytes, deadline: float) -> bytes:
            _check_query(request)
            judged = await desk.work(deadline, partial(service.critique, body, deadline))
            verdict = judged.verdict.model_dump(mode="json") if judged.verdict else None
            return json.dumps({"text": judged.text, "verdict": verdict}).encode()

        return await answer(request, _FILE_TYPES, limits.max_bytes, handle)

    return app


def _check_query(request: Request, *known: str) -> None:
    """Refuse parameters that would have no effect, misspelt ones among them, and any that is given twice."""
    names = [name for name, _ in request.query_params.multi_items()]
    if set(names) - set(known) or len(names) > len(set(names)):
        expected = f"at most {' and '.join(known)}, once each" if known else "none"
        found = ", ".join(name[:40] for name in names[:10])
        raise Refused(Reason.INVALID, f"parameters in the address: expected {expected}, found {found}")


def _number(request: Request, name: str, kind: Callable[[str], _Result]) -> _Result | None:
    text = request.query_params.get(name)
    if text is None:
        return None
    try:
        return kind(text)
    except ValueError as error:
        raise Refused(Reason.INVALID, f"{name}: expected a number, found {text[:40]!r}") from error


def _refusal(status: int, message: str) -> Response:
    content = json.dumps({"error_code": _CODES[status], "message": message})
    headers = {"Retry-After": _RETRY_SECONDS} if status in (429, 503) else {}
    if status in _BODY_UNREAD:  # or the rest of the body would be read, however long it is
        headers["Connection"] = "close"
    return Response(content, status_code=status, media_type="application/json", headers=headers)
