"""The HTTP face of a PhotoService: MLflow's scoring protocol with limits that MLflow's own server does not have.

    GET  /live, /ping, /health   200 while the process answers
    GET  /ready           200 while it takes photos, else 503
    GET  /version         of this project
    GET  /metrics         for Prometheus
    GET  /openapi.json    all of this as OpenAPI
    POST /invocations     MLflow's JSON protocol (components/serving/protocol.py)
    POST /enhance         a picture file as the body; seed and strength in the query; JSON with picture and verdict
    POST /critique        a picture file as the body; JSON with the Critic's words and no edit

Errors are JSON ``{"error_code", "message"}`` as MLflow's are. 400: not in the protocol, not a picture; 404, 405: no
such path or method; 408: the body came too slowly; 413: more bytes or pixels than allowed; 415: another content type;
421: addressed to another host; 429: too many requests wait; 500: the server failed, and its log has the traceback; 503:
waited too long; 504: the work took too long.
"""

import asyncio
import base64
import json
import logging
import threading
from collections.abc import AsyncIterator, Callable, Collection, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from importlib.metadata import version
from typing import Annotated, Any, TypeVar

from fastapi import FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from components.serving.front import Front, refusal
from components.serving.metrics import Metrics
from components.serving.protocol import parse_invocation, predictions
from components.serving.service import MEDIA_TYPES, EnhancedPicture, PhotoService
from components.serving.work import Abandoned, Reason, Refused, Work

log = logging.getLogger(__name__)

_Result = TypeVar("_Result")
_STATUS = {
    Reason.INVALID: 400,
    Reason.TOO_LARGE: 413,
    Reason.BUSY: 429,
    Reason.TIMED_OUT: 503,
    Reason.TOO_SLOW: 504,
}
_PROTOCOL_BYTES = 64 * 1024  # of a request beside its pictures
_BODIES = 4
"""How many of the largest bodies are held at a time, in bytes together, from their first byte to the answer."""
_FILE_TYPES = ("image/", "application/octet-stream")
_SHOWN = 40


class Problem(BaseModel):
    """Why there is no answer."""

    error_code: str
    message: str


class Enhanced(BaseModel):
    """An enhanced photo, and what the Critic said of it."""

    photo: str
    media_type: str
    suffix: str
    strength: float
    text: str
    verdict: dict[str, Any] | None


class Judged(BaseModel):
    """What the Critic said of a photo."""

    text: str
    verdict: dict[str, Any] | None


class _Answered(Exception):  # noqa: N818 (reads as a sentence where it is raised)
    """Ends a request with a status and a reason."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class _Desk:
    """Reads the bodies of requests within limits, lets in as many as may wait, and ends what nobody waits for."""

    def __init__(self, service: PhotoService, metrics: Metrics):
        self.service, self.limits, self.metrics = service, service.limits, metrics
        self.largest = self.limits.max_bytes * 4 // 3 + _PROTOCOL_BYTES  # Base64
        self.held = 0

    async def answer(
        self, request: Request, types: tuple[str, ...], most: int, handle: Callable[[bytes, Work], bytes]
    ) -> Response:
        """The answer of ``handle``, called in a thread of its own with the body and the time there is."""
        try:
            _check_type(request, types)
            admission = self.service.admission
            admission.check()  # before a body is sent in vain
            with self._room() as take:
                body = await self._body(request, most, take)
                admission.enter()
                work = Work(self.limits.timeout_seconds)
                content = await self._worked(request, work, lambda: handle(body, work))
            return Response(content, media_type="application/json")
        except Refused as refused:
            return refusal(_STATUS[refused.reason], str(refused))
        except _Answered as answered:
            return refusal(answered.status, str(answered))
        except (ClientDisconnect, Abandoned):
            return refusal(499, "the client went away")
        except Exception:
            log.exception("request %s failed", request.scope.get("request_id"))
            return refusal(500, "the server failed on this request; its log says why")

    @contextmanager
    def _room(self) -> Iterator[Callable[[int], None]]:
        """A function that takes memory for the body of one request, which is given back with the context."""
        taken = 0

        def take(size: int) -> None:
            nonlocal taken
            if self.held + size > _BODIES * self.largest:
                raise _Answered(429, "the server holds as many bytes of requests as it may: try again in a few seconds")
            taken += size
            self.held += size
            self.metrics.uploads.set(self.held)

        try:
            yield take
        finally:
            self.held -= taken
            self.metrics.uploads.set(self.held)

    async def _body(self, request: Request, most: int, take: Callable[[int], None]) -> bytes:
        """The body, as long as it is no longer than ``most`` bytes and comes in time."""
        declared = request.headers.get("content-length", "")
        if declared.isdecimal() and int(declared[:20]) > most:
            raise _Answered(413, f"expected a body of at most {most} bytes, found {declared[:20]}: send a smaller file")
        try:
            async with asyncio.timeout(self.limits.upload_seconds):
                content = bytearray()
                async for chunk in request.stream():
                    if len(content) + len(chunk) > most:
                        raise _Answered(413, f"expected a body of at most {most} bytes: send a smaller file")
                    take(len(chunk))
                    content += chunk
                return bytes(content)
        except TimeoutError as error:
            raise _Answered(408, f"the body did not arrive within {self.limits.upload_seconds:g} s") from error

    async def _worked(self, request: Request, work: Work, function: Callable[[], _Result]) -> _Result:
        """The result of ``function``, which has a place; it keeps that until it ends, whoever waits for it."""

        def placed() -> _Result:
            try:
                return function()
            finally:
                self.service.admission.leave()

        result = _in_thread(placed)
        gone = asyncio.create_task(_until_gone(request))
        try:
            either: set[asyncio.Future[Any]] = {result, gone}
            await asyncio.wait(either, timeout=work.left, return_when=asyncio.FIRST_COMPLETED)
            if result.done():
                return result.result()
            late = work.late()
            work.abandon()
            raise ClientDisconnect if gone.done() else late
        except asyncio.CancelledError:  # the server ends
            work.abandon()
            raise
        finally:
            gone.cancel()


def create_app(service: PhotoService, hosts: Collection[str] = ()) -> FastAPI:
    """The application that serves ``service``; run it in one process, since the models are in memory once.

    Args:
        hosts: names that requests may be addressed to, without ports; empty for any.
    """
    metrics = Metrics(service)
    desk, limits = _Desk(service, metrics), service.limits

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(service.close)

    app = FastAPI(
        title="SmartPhotoCrafter",
        version=version("smartphotocrafter"),
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
        responses={"4XX": {"model": Problem}, "5XX": {"model": Problem}},
    )
    app.add_middleware(Front, metrics=metrics, hosts=hosts)
    app.add_exception_handler(HTTPException, _no_endpoint)
    app.add_exception_handler(RequestValidationError, _bad_parameter)

    @app.get("/live")
    @app.get("/ping")
    @app.get("/health")
    async def live() -> Response:
        return Response("\n", media_type="application/json")

    @app.get("/ready")
    async def ready() -> Response:
        if service.processes.is_ready:
            return Response("\n", media_type="application/json")
        return refusal(503, "the server does not take photos yet, or no more")

    @app.get("/version")
    async def project_version() -> Response:
        return Response(version("smartphotocrafter"), media_type="text/plain")

    @app.get("/metrics")
    async def counted() -> Response:
        return Response(metrics.text(), media_type="text/plain; version=0.0.4")

    @app.post("/invocations", openapi_extra=_body_of("application/json", {"type": "object"}))
    async def invocations(request: Request) -> Response:
        """MLflow's scoring protocol."""

        def handle(body: bytes, work: Work) -> bytes:
            asked = parse_invocation(body, limits.max_photos)
            return predictions([service.enhance(photo, asked.seed, asked.strength, work) for photo in asked.photos])

        return await desk.answer(request, ("application/json",), desk.largest, handle)

    @app.post("/enhance", responses={200: {"model": Enhanced}}, openapi_extra=_body_of("image/*", _FILE))
    async def enhance(
        request: Request,
        seed: Annotated[int, Query(ge=0, lt=2**63, description="Of the Artist's noise.")] = 0,
        strength: Annotated[
            float | None,
            Query(ge=0, le=2, allow_inf_nan=False, description="0 leaves the photo; the model's own if not given."),
        ] = None,
    ) -> Response:
        """Enhance the picture file that is the body."""
        _check_query(request, "seed", "strength")
        return await desk.answer(
            request,
            _FILE_TYPES,
            limits.max_bytes,
            lambda body, work: _enhanced(service.enhance(body, seed, strength, work)),
        )

    @app.post("/critique", responses={200: {"model": Judged}}, openapi_extra=_body_of("image/*", _FILE))
    async def critique(request: Request) -> Response:
        """Judge the picture file that is the body, and edit nothing."""

        def handle(body: bytes, work: Work) -> bytes:
            judged = service.critique(body, work)
            verdict = judged.verdict.model_dump(mode="json") if judged.verdict else None
            return json.dumps({"text": judged.text, "verdict": verdict}).encode()

        _check_query(request)
        return await desk.answer(request, _FILE_TYPES, limits.max_bytes, handle)

    return app


_FILE = {"type": "string", "format": "binary"}


def _body_of(media_type: str, schema: dict[str, str]) -> dict[str, Any]:
    return {"requestBody": {"required": True, "content": {media_type: {"schema": schema}}}}


def _enhanced(made: EnhancedPicture) -> bytes:
    content = {
        "photo": base64.b64encode(made.photo).decode("ascii"),
        "media_type": MEDIA_TYPES[made.suffix],
        "suffix": made.suffix,
        "strength": made.strength,
        "text": made.text,
        "verdict": json.loads(made.verdict),
    }
    return json.dumps(content).encode()


def _in_thread(function: Callable[[], _Result]) -> asyncio.Future[_Result]:
    """The result of ``function``, called in a thread that does not keep the process from ending."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[_Result] = loop.create_future()

    def settle(set_it: Callable[[Any], None], value: Any) -> None:
        if not future.done():
            set_it(value)

    def run() -> None:
        outcome: tuple[Callable[[Any], None], Any]
        try:
            outcome = future.set_result, function()
        except BaseException as error:
            outcome = future.set_exception, error
        with suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(settle, *outcome)

    threading.Thread(target=run, name="request", daemon=True).start()
    future.add_done_callback(lambda done: done.cancelled() or done.exception())  # seen, also where nobody waits
    return future


async def _until_gone(request: Request) -> None:
    """Returns when the client has hung up."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _check_type(request: Request, types: tuple[str, ...]) -> None:
    kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if not kind.startswith(types):
        how = ": send the file itself as the body, no form" if kind.startswith("multipart/") else ""
        found = kind[:_SHOWN] or "none"
        raise _Answered(415, f"expected a content type of {', '.join(types)}, found {found}{how}")


def _check_query(request: Request, *known: str) -> None:
    """Refuse parameters that would have no effect, misspelt ones among them, and any that is given twice."""
    names = [name for name, _ in request.query_params.multi_items()]
    if set(names) - set(known) or len(names) > len(set(names)):
        expected = f"at most {' and '.join(known)}, once each" if known else "none"
        found = ", ".join(name[:_SHOWN] for name in names[:10])
        raise HTTPException(400, f"parameters in the address: expected {expected}, found {found}")


async def _no_endpoint(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    told = str(error.detail)
    if error.status_code == 404:
        told = f"there is no {request.url.path[:80]}: see /openapi.json"
    if error.status_code == 405:
        told = f"{request.url.path} does not take {request.method[:_SHOWN]}: see /openapi.json"
    return refusal(error.status_code, told, dict(error.headers or {}))


async def _bad_parameter(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    found = str(first["input"])[:_SHOWN]
    told = str(first["msg"]).replace("Input should be", "expected")
    return refusal(400, f"{first['loc'][-1]}: {told}, found {found!r}")
