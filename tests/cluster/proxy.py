"""A proxy in front of an HTTP server that fails on purpose: error answers, slow answers and dropped connections."""

import asyncio
import threading
from typing import NamedTuple

import aiohttp
from aiohttp import web

_HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "te", "upgrade", "content-length"}
_SLOW_DOWN = "<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"


class Faults(NamedTuple):
    """Which requests go wrong: every n-th of all that arrive, 0 for none."""

    errors_every: int = 0
    """Answered with 503 SlowDown, as S3 does under load, and not passed on."""
    drops_every: int = 0
    """The connection is closed without an answer."""
    slow_every: int = 0
    """Answered `delay` seconds late."""
    delay: float = 0.0


class FaultyProxy:
    """Passes requests on to ``upstream``; starts at once, on a free port of the loopback address.

    Args:
        upstream: address of the server behind it, without a slash at the end.
    """

    def __init__(self, upstream: str) -> None:
        self.faults = Faults()
        self.served = {"passed": 0, "error": 0, "dropped": 0, "slow": 0}
        """How many requests met which fate since the start."""
        self._upstream, self._arrived = upstream, 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="faulty-proxy", daemon=True)
        self._thread.start()
        port = asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(timeout=30)
        self.url = f"http://127.0.0.1:{port}"

    def stop(self) -> None:
        """Close the port."""
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(timeout=30)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=10)

    async def _start(self) -> int:
        self._session = aiohttp.ClientSession(auto_decompress=False, skip_auto_headers={"User-Agent", "Accept"})
        application = web.Application(client_max_size=2**30)
        application.router.add_route("*", "/{path:.*}", self._answer)
        self._runner = web.AppRunner(application, access_log=None, auto_decompress=False)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        return int(self._runner.addresses[0][1])

    async def _close(self) -> None:
        await self._runner.cleanup()
        await self._session.close()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        self._arrived += 1
        faults = self.faults
        if _due(self._arrived, faults.errors_every):
            self.served["error"] += 1
            return web.Response(status=503, text=_SLOW_DOWN, content_type="application/xml")
        if _due(self._arrived, faults.drops_every):
            self.served["dropped"] += 1
            assert request.transport is not None
            request.transport.abort()
            return web.Response(status=500)
        if _due(self._arrived, faults.slow_every):
            self.served["slow"] += 1
            await asyncio.sleep(faults.delay)
        self.served["passed"] += 1
        kept = {name: value for name, value in request.headers.items() if name.lower() not in _HOP_BY_HOP}
        address = f"{self._upstream}{request.raw_path}"
        async with self._session.request(
            request.method, aiohttp.client.URL(address, encoded=True), headers=kept, data=body, allow_redirects=False
        ) as answer:
            headers = {name: value for name, value in answer.headers.items() if name.lower() not in _HOP_BY_HOP}
            if request.method == "HEAD" and "Content-Length" in answer.headers:
                headers["Content-Length"] = answer.headers["Content-Length"]
            return web.Response(status=answer.status, headers=headers, body=await answer.read())


def _due(number: int, every: int) -> bool:
    return bool(every) and number % every == 0
