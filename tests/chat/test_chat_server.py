"""The connection to a server: pauses it asks for, keys it refuses, and what is said when nobody is there."""

import asyncio
import random
import socket
import threading
import time
import zlib
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from components.annotation.format import opening_messages
from components.chat.replies import Completion
from components.chat.server import (
    ChatServer,
    ChatServerError,
    Effort,
    NoAnswer,
    ServerSettings,
)
from tests.chat.serving import ModelServer

BODY = {"model": "m", "messages": opening_messages("s", "data:image/jpeg;base64,AAAA", structured=False)}


def ask(server_url: str, count: int = 1, **more: object) -> list[Completion | BaseException]:
    """``count`` completions at the same time."""
    fields = {"base_url": server_url, "model": "m", "first_backoff": 0.01, "attempts": 3}

    async def run() -> list[Completion | BaseException]:
        async with ChatServer(ServerSettings(**(fields | more)), count) as server:
            asks = (server.complete(BODY, f"r{i}", random.Random(i), Effort()) for i in range(count))
            return await asyncio.gather(*asks, return_exceptions=True)

    return asyncio.run(run())


def check(server_url: str, **more: object) -> None:
    async def run() -> None:
        async with ChatServer(ServerSettings(base_url=server_url, model="m", **more), 1) as server:
            await server.check()

    asyncio.run(run())


@pytest.mark.parametrize("form", ["seconds", "date"])
def test_a_pause_that_the_server_asks_for_is_kept(form: str) -> None:
    until = datetime.now(UTC) + timedelta(seconds=2)
    pause = "0.5" if form == "seconds" else format_datetime(until, usegmt=True)  # a date has whole seconds
    answers = ModelServer(lambda picture, before: (200, "good") if before else (429, "slow down"), retry_after=pause)
    with answers.running() as server:
        assert ask(server.base_url) == [Completion("good", cut_off=False)]
    if form == "seconds":
        assert server.times[1] - server.times[0] >= 0.5
    else:
        assert time.time() >= until.replace(microsecond=0).timestamp()


def test_a_pause_holds_back_requests_that_were_not_refused_themselves() -> None:
    answers = ModelServer(lambda picture, before: (200, "good") if before else (429, "slow down"), retry_after="0.6")

    async def run(url: str) -> list[Completion]:
        async with ChatServer(ServerSettings(base_url=url, model="m", first_backoff=0.01), 2) as server:

            async def later() -> Completion:
                while not server.held_back:
                    await asyncio.sleep(0.01)
                return await server.complete(BODY, "later", random.Random(1), Effort())

            return await asyncio.gather(server.complete(BODY, "first", random.Random(0), Effort()), later())

    with answers.running() as server:
        assert [completion.text for completion in asyncio.run(run(server.base_url))] == ["good", "good"]
    assert len(server.times) == 3 and server.times[1] - server.times[0] >= 0.6


def test_a_pause_that_is_too_long_ends_the_run() -> None:
    with ModelServer(lambda picture, before: (429, "quota"), retry_after="86400").running() as server:
        (error,) = ask(server.base_url)
    assert isinstance(error, ChatServerError)
    assert "86400 s" in str(error) and "run again" in str(error)


def test_attempts_are_bounded_and_the_last_trouble_is_named() -> None:
    with ModelServer(lambda picture, before: (502, "bad gateway")).running() as server:
        (error,) = ask(server.base_url, attempts=4)
        assert sum(server.asked.values()) == 4
    assert isinstance(error, NoAnswer) and "502" in str(error) and "bad gateway" in str(error)


def test_pauses_grow_and_differ() -> None:
    with ModelServer(lambda picture, before: (500, "broken")).running() as server:
        ask(server.base_url, attempts=5, first_backoff=0.05)
        pauses = [later - earlier for earlier, later in zip(server.times, server.times[1:], strict=False)]
    for number, pause in enumerate(pauses):
        assert pause >= 0.5 * 0.05 * 2**number
    assert len({round(pause / 2**number, 4) for number, pause in enumerate(pauses)}) > 1


def test_a_server_that_is_down_is_named_with_what_to_do() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound and not listening: connections are refused
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/v1"
        with pytest.raises(ChatServerError, match=r"vllm serve m.*base_url in the server's") as caught:
            check(url)
    assert url in str(caught.value)


def test_connecting_has_a_time_out_of_its_own() -> None:
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        url = f"http://127.0.0.1:{full.getsockname()[1]}/v1"
        waiting = [socket.socket() for _ in range(3)]
        try:
            for one in waiting:  # fill the queue of connections, so that the next one gets no reply
                one.setblocking(False)
                one.connect_ex(full.getsockname())
            with pytest.raises(ChatServerError, match="ConnectTimeout"):
                check(url, connect_timeout=0.2, read_timeout=600.0)
        finally:
            for one in waiting:
                one.close()


@pytest.mark.parametrize(
    ("status", "variable"), [(401, "ANNOTATION_KEY"), (403, "ANNOTATION_KEY"), (404, "OPENAI_API_KEY")]
)
def test_a_wrong_key_or_model_ends_the_run_without_showing_the_key(
    status: int, variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANNOTATION_KEY", "secret-7")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with ModelServer(lambda picture, before: (status, "secret-7 is wrong")).running() as server:
        (error,) = ask(server.base_url, api_key_variable=variable)
        assert sum(server.asked.values()) == 1
        sent = [headers.get("authorization") for headers in server.headers]
    assert isinstance(error, ChatServerError) and variable in str(error) and str(status) in str(error)
    if variable == "ANNOTATION_KEY":
        assert "secret-7" not in str(error) and sent == ["Bearer secret-7"]
    else:
        assert sent == [None] and "not set" in str(error)


def test_a_list_of_models_has_an_end() -> None:
    """256 megabytes of zeros, which 250 kilobytes of gzip become, sent as it is read."""
    squeezer = zlib.compressobj(9, wbits=31)
    piece = bytes(2**20)
    bomb = b"".join(squeezer.compress(piece) for _ in range(256)) + squeezer.flush()

    class Endless(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Encoding", "gzip")
            self.send_header("Content-Length", str(len(bomb)))
            self.end_headers()
            with suppress(OSError):  # the client has had enough
                self.wfile.write(bomb)

        def log_message(self, *_: object) -> None:
            """Nothing is printed."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Endless)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        with pytest.raises(ChatServerError, match="more than 8388608 bytes"):
            check(f"http://127.0.0.1:{server.server_port}/v1")
    finally:
        server.shutdown()
        server.server_close()
