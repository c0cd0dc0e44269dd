"""Chat completions from any OpenAI-compatible server (vLLM, `transformers serve`, llama.cpp, a hosted API), by HTTP.

Written on httpx rather than on the `openai` package: one POST is all that is needed, connecting and reading have
time-outs of their own, retries must be bounded, counted and shared among all requests in flight, and what the server
sends is validated here before it is used; the package builds its objects from unchecked JSON and retries by itself.
"""

import asyncio
import json
import logging
import os
import random
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import Any, ClassVar
from uuid import uuid4

import httpx
from pydantic import Field, field_validator

from components.chat.replies import Completion, MalformedReply, read_reply
from components.strict import Strict

log = logging.getLogger(__name__)

_REFUSED = (400, 413, 415, 422, 501)  # the server has judged this one request; another attempt would end the same
_TRANSIENT = (408, 409, 425, 429)
_LARGEST_REPLY = 8 * 1024**2
_KEEP_ALIVE = 2.0  # seconds; shorter than uvicorn's 5, or a request could be sent into a connection just being closed
_MOST_MODELS = 1000
_SHOWN = 300  # characters of a server's message that are repeated in an error


class ServerSettings(Strict):
    """Where a model is served, and how long and how often to try.

    Attributes:
        section: where these settings stand in a configuration, for messages.
    """

    section: ClassVar[str] = "the server's settings"

    base_url: str = Field(default="http://localhost:8000/v1", description="Root of the OpenAI-compatible API.")
    model: str = Field(default="Qwen/Qwen2.5-VL-72B-Instruct", description="Model name, as the server knows it.")
    api_key_variable: str = Field(
        default="OPENAI_API_KEY",
        pattern="^[A-Z_][A-Z0-9_]*$",
        description="Name of the environment variable that holds the key; unset for servers without one.",
    )
    attempts: int = Field(default=6, ge=1, description="How often a request is sent before it counts as failed.")
    connect_timeout: float = Field(default=10.0, gt=0, description="Longest wait for a connection. Seconds.")
    read_timeout: float = Field(default=180.0, gt=0, description="Longest silence of the server. Seconds.")
    answer_timeout: float = Field(default=300.0, gt=0, description="Longest time for a whole answer. Seconds.")
    first_backoff: float = Field(default=1.0, ge=0, description="Seconds before the second attempt; doubles after it.")
    longest_backoff: float = Field(default=60.0, ge=0, description="Where the doubling ends. Seconds.")
    longest_retry_after: float = Field(
        default=600.0, ge=0, description="Longest pause a server may ask for (Retry-After) before the run is stopped."
    )

    @field_validator("base_url")
    @classmethod
    def _is_plain_http(cls, text: str) -> str:
        try:
            url = httpx.URL(text)
        except httpx.InvalidURL as error:
            raise ValueError(f"expected a URL such as http://host:8000/v1: {error}") from None
        if url.scheme not in ("http", "https") or not url.host:
            raise ValueError("expected a URL such as http://host:8000/v1")
        if url.userinfo:
            raise ValueError("expected a URL without user and password: put a key into the api_key_variable")
        return text.rstrip("/")


class ChatServerError(RuntimeError):
    """The server cannot be used or left too much unanswered; what it has answered is kept by whoever asked."""


class RequestRefused(Exception):  # noqa: N818 (reads as a sentence where it is caught)
    """The server judged this request and will not answer it. ``status`` is its HTTP status."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{status}: {message}")
        self.status = status


class NoAnswer(Exception):  # noqa: N818
    """All attempts ended without an answer; the message is that of the last one."""


@dataclass
class Effort:
    """What the answer to one question has taken so far; tokens as the server counts them."""

    requests: int = 0
    input_tokens: int = 0
    output_tokens: int = 0


class _Trouble(Exception):  # noqa: N818
    """One attempt failed in a way that may pass."""

    def __init__(self, reason: str, retry_after: float = 0.0) -> None:
        super().__init__(reason)
        self.retry_after = retry_after


class ChatServer:
    """A connection pool to one server; use as an async context manager, from one event loop.

    Args:
        settings: address, key variable, time-outs and retries.
        connections: most requests in flight.
    """

    def __init__(self, settings: ServerSettings, connections: int) -> None:
        self.settings = settings
        self.requests = 0
        """Chat completions asked for so far, retries included."""
        self._key = (os.environ.get(settings.api_key_variable) or "").strip()
        self._client = httpx.AsyncClient(
            headers={"Authorization": f"Bearer {self._key}"} if self._key else {},
            timeout=httpx.Timeout(settings.read_timeout, connect=settings.connect_timeout, pool=None),
            limits=httpx.Limits(
                max_connections=connections, max_keepalive_connections=connections, keepalive_expiry=_KEEP_ALIVE
            ),
        )
        self._resume_at = 0.0
        self._metered = True

    async def __aenter__(self) -> "ChatServer":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.aclose()

    @property
    def held_back(self) -> bool:
        """Whether the server has asked for a pause that is not over; from within the event loop."""
        return self._resume_at > _now()

    async def check(self) -> None:
        """Make sure that somebody listens and accepts the key, before a long run begins.

        Raises:
            ChatServerError: nobody listens, or the key is refused; the message names the address.
        """
        settings = self.settings
        try:
            async with asyncio.timeout(settings.answer_timeout):
                status, _, content = await self._exchanged("GET", "models")
        except TimeoutError:
            raise ChatServerError(
                f"{settings.base_url}/models gives no whole answer within {settings.answer_timeout:g} s"
            ) from None
        except _Trouble as trouble:
            raise ChatServerError(f"{settings.base_url}/models: {trouble}: is this a chat server?") from None
        except httpx.RequestError as error:
            raise ChatServerError(
                f"no server answers at {settings.base_url} ({_named(error)}): start one there, for example with "
                f"`vllm serve {settings.model}`, and wait until it has loaded the model, or set "
                f"base_url in {settings.section} to where it runs"
            ) from error
        if status in (401, 403):
            raise self._unusable(status, content.decode(errors="replace"))
        try:
            listed = await asyncio.to_thread(json.loads, content)
            served = {str(entry["id"])[:_SHOWN] for entry in listed["data"][:_MOST_MODELS]}
        except (ValueError, KeyError, TypeError, RecursionError):
            return  # a server need not list its models
        if served and settings.model not in served:
            log.warning(
                "%s does not list %s; it lists %s", settings.base_url, settings.model, ", ".join(sorted(served))
            )

    async def complete(
        self, body: dict[str, Any], request_id: str, jitter: random.Random, effort: Effort
    ) -> Completion:
        """One chat completion, asked for up to `attempts` times.

        The pause before the n-th repetition is first_backoff * 2^(n-1) s, at most longest_backoff, times a random
        factor of 0.5 to 1.5; a Retry-After of the server holds back every request in flight, not only this one.

        Args:
            body: of the request, as the API defines it.
            request_id: sent as X-Request-Id with a random suffix for each attempt, to be found in the server's log.
            jitter: source of the random factors.
            effort: to which every attempt and the tokens of the answer are added.

        Raises:
            RequestRefused: the server judged the request and refused it.
            NoAnswer: every attempt failed.
            ChatServerError: no request can succeed: wrong key, model or address, or a pause that is too long.
        """
        backoff = self.settings.first_backoff
        for attempt in range(1, self.settings.attempts + 1):
            await self._wait_for_leave(jitter)
            try:
                effort.requests += 1
                return await self._attempt(body, f"{request_id}-{uuid4().hex[:8]}", effort)
            except _Trouble as trouble:
                log.info("%s, attempt %d of %d: %s", request_id, attempt, self.settings.attempts, trouble)
                if trouble.retry_after > self.settings.longest_retry_after:
                    raise ChatServerError(
                        f"{self.settings.base_url} asks to wait {trouble.retry_after:.0f} s, longer than "
                        f"longest_retry_after ({self.settings.longest_retry_after:.0f} s): run again then"
                    ) from trouble
                self._resume_at = max(self._resume_at, _now() + trouble.retry_after)
                if attempt == self.settings.attempts:
                    raise NoAnswer(str(trouble)) from trouble
                await asyncio.sleep(min(backoff, self.settings.longest_backoff) * (0.5 + jitter.random()))
                backoff *= 2
        raise AssertionError("at least one attempt is made")

    async def _wait_for_leave(self, jitter: random.Random) -> None:
        """Sleep until no Retry-After holds any more; a little longer, so that not all resume at the same moment."""
        while (pause := self._resume_at - _now()) > 0:
            await asyncio.sleep(pause + min(1.0, 0.1 * pause) * jitter.random())

    async def _attempt(self, body: dict[str, Any], request_id: str, effort: Effort) -> Completion:
        self.requests += 1
        try:
            async with asyncio.timeout(self.settings.answer_timeout):
                status, headers, content = await self._post(body, request_id)
        except TimeoutError:
            raise _Trouble(f"no whole answer within {self.settings.answer_timeout:g} s") from None
        except httpx.RequestError as error:
            raise _Trouble(_named(error)) from error
        if status == 200:
            return await self._read(content, effort)
        message = self._without_key(content.decode(errors="replace"))[:_SHOWN]
        if status in _REFUSED:
            raise RequestRefused(status, message)
        if status in _TRANSIENT or status >= 500:
            raise _Trouble(f"HTTP {status}: {message}", _retry_after(headers.get("retry-after")))
        raise self._unusable(status, message)

    async def _post(self, body: dict[str, Any], request_id: str) -> tuple[int, httpx.Headers, bytes]:
        return await self._exchanged("POST", "chat/completions", json=body, headers={"X-Request-Id": request_id})

    async def _exchanged(self, method: str, path: str, **request: Any) -> tuple[int, httpx.Headers, bytes]:
        """Status, headers and body of an answer, as long as that is not endless, decompressed."""
        async with self._client.stream(method, f"{self.settings.base_url}/{path}", **request) as response:
            content = bytearray()
            async for chunk in response.aiter_bytes():
                content += chunk
                if len(content) > _LARGEST_REPLY:
                    raise _Trouble(f"more than {_LARGEST_REPLY} bytes in one answer")
            return response.status_code, response.headers, bytes(content)

    async def _read(self, content: bytes, effort: Effort) -> Completion:
        try:
            completion, usage = await asyncio.to_thread(read_reply, content)
        except MalformedReply as error:
            raise _Trouble(str(error)) from None
        if usage is None and self._metered:
            self._metered = False
            log.warning("%s does not report token counts: tokens and cost will read too low", self.settings.base_url)
        if usage is not None:
            effort.input_tokens += usage.prompt_tokens
            effort.output_tokens += usage.completion_tokens
        return completion

    def _unusable(self, status: int, message: str) -> ChatServerError:
        return ChatServerError(
            f"{self.settings.base_url} refuses to answer as {self.settings.model} "
            f"(HTTP {status}: {self._without_key(message)[:_SHOWN]}); check base_url, model and the key in "
            f"{self.settings.api_key_variable}, which is {'set' if self._key else 'not set'}"
        )

    def _without_key(self, text: str) -> str:
        return text.replace(self._key, "***") if self._key else text


def _now() -> float:
    return asyncio.get_running_loop().time()


def _named(error: Exception) -> str:
    """A time-out has no message of its own."""
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def _retry_after(value: str | None) -> float:
    """Seconds that a Retry-After header asks to wait: a number or an HTTP date (RFC 9110, 10.2.3); 0 without one."""
    if not value:
        return 0.0
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        until = parsedate_to_datetime(value)
    except ValueError:
        return 0.0
    return max(0.0, (until.replace(tzinfo=until.tzinfo or UTC) - datetime.now(UTC)).total_seconds())
