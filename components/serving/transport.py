"""The HTTP server, uvicorn with h11, and its limits on connections.

uvicorn limits connections, the size of headers and the time that requests have to end; it has no limit on how long a
header may take to arrive, nor an answer to be read, which are added here.
"""

import asyncio
import logging
import socket
import struct
from contextlib import suppress
from typing import Any

import h11
import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

from components.serving.limits import ServingLimits

log = logging.getLogger(__name__)

_MOST_HEADER = 32 * 1024
"""Bytes of the header of a request."""
_LOOKS = 4
"""How often a connection is looked at in the time that it may stand still."""


def configured(app: FastAPI, limits: ServingLimits, port: int = 0) -> uvicorn.Config:
    """The configuration under which uvicorn serves ``app`` within ``limits``."""

    class Limited(GuardedProtocol):
        idle_seconds = limits.idle_seconds

    return uvicorn.Config(
        app,
        port=port,
        http=Limited,
        ws="none",
        log_level="warning",
        access_log=False,
        server_header=False,
        limit_concurrency=limits.connections,
        h11_max_incomplete_event_size=_MOST_HEADER,
        timeout_keep_alive=max(1, int(limits.idle_seconds)),
        timeout_graceful_shutdown=max(1, int(limits.end_seconds)),
    )


class GuardedProtocol(H11Protocol):
    """A connection that is cut where the client stands still: in a header, or while it should read its answer.

    How long the body of a request may take is the application's business.
    """

    idle_seconds = 30.0

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._stood_since = self.loop.time()
        self._unsent = 0
        self._look_later()

    def connection_lost(self, exc: Exception | None) -> None:
        self._next_look.cancel()
        super().connection_lost(exc)

    def _look_later(self) -> None:
        self._next_look: asyncio.TimerHandle = self.loop.call_later(self.idle_seconds / _LOOKS, self._look)

    def _look(self) -> None:
        unsent = self.transport.get_write_buffer_size()
        is_reading = 0 < unsent < self._unsent
        is_asking = self.conn.their_state is h11.IDLE and not unsent
        is_working = not unsent and not is_asking and not self.transport.is_closing()
        if is_reading or is_working or (is_asking and self._has_answered_since()):
            self._stood_since = self.loop.time()
        self._unsent = unsent
        if self.loop.time() - self._stood_since >= self.idle_seconds:
            log.info("a connection stood still for %g s and was cut", self.idle_seconds)
            with suppress(OSError):  # without this, the system would go on trying to send what is left
                connection = self.transport.get_extra_info("socket")
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.transport.abort()
            return
        self._look_later()

    def _has_answered_since(self) -> bool:
        """Whether a request was answered since the last look, so that the time for the next one begins anew."""
        answered, self._answered = self._answered, id(self.cycle) if self.cycle is not None else 0
        return self._answered != answered

    _answered = 0
