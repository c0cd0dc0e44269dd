"""Clients that attack a real server: stalled, silent, endless and greedy ones, and the signal that ends it."""

import contextlib
import io
import json
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from PIL import Image

from components.serving.service import PhotoService
from tests import attacks
from tests.serving.clients import JPEG, connected, is_answered, is_cut
from tests.serving.stubs import Brightener, picture

Serve = Callable[..., str]
Served = Callable[..., PhotoService]


def test_stalled_uploads_keep_nobody_out(served: Served, serve: Serve) -> None:
    address = serve(served(Brightener(), waiting=4, upload_seconds=60))
    clients = [connected(address) for _ in range(60)]
    for client in clients:
        client.sendall(b"POST /enhance HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: 999\r\n\r\nx")
    time.sleep(0.5)
    assert is_answered(address)
    for client in clients:
        client.close()


def test_bodies_held_are_counted(served: Served, serve: Serve) -> None:
    """Uploads that stop short of their end hold what they sent; beyond a limit the next are turned away at once."""
    address = serve(served(Brightener(), max_bytes=100_000, upload_seconds=60))
    clients = [connected(address) for _ in range(10)]
    for client in clients:
        client.sendall(b"POST /enhance HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: 99999\r\n\r\n")
        client.sendall(bytes(99_000))
    time.sleep(1.0)
    held = [
        line
        for line in httpx.get(f"{address}/metrics").text.splitlines()
        if line.startswith("smartphotocrafter_body_bytes ")
    ]
    assert 4 * 99_000 <= float(held[0].split()[1]) <= 4 * (100_000 * 4 // 3 + 65_536)
    answers = [client.recv(100) for client in clients[-1:]]
    assert b" 429 " in answers[0]
    for client in clients:
        client.close()
    time.sleep(0.5)
    assert is_answered(address)


def test_headers_have_an_end(served: Served, serve: Serve) -> None:
    address = serve(served(Brightener()))
    with connected(address) as client:
        sent = 0
        try:
            client.sendall(b"GET /live HTTP/1.1\r\nHost: x\r\n")
            for _ in range(1000):
                client.sendall(b"X-More: " + b"x" * 1000 + b"\r\n")
                sent += 1000
                time.sleep(0.001)
        except OSError:
            pass
        assert sent < 1_000_000
    assert is_answered(address)


def test_connections_that_stand_still_are_cut(served: Served, serve: Serve) -> None:
    address = serve(served(Brightener(), idle_seconds=1.0))
    silent, slow = connected(address), connected(address)
    slow.sendall(b"GET /live HTTP/1.1\r\nHo")
    with silent, slow:
        assert is_cut(silent) and is_cut(slow)
    assert is_answered(address)


def test_clients_that_never_read_are_cut(served: Served, serve: Serve) -> None:
    """An answer of some megabytes, more than the system takes on its own, that nobody reads."""
    service = served(Brightener(), idle_seconds=1.0)
    address = serve(service)
    stream = io.BytesIO()
    Image.fromarray(attacks.noise(2000, 2000)).save(stream, "PNG", compress_level=1)
    content = stream.getvalue()
    host, port = address.removeprefix("http://").split(":")
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect((host, int(port)))
        head = f"POST /enhance HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: {len(content)}\r\n\r\n"
        client.sendall(head.encode() + content)
        deadline = time.monotonic() + 60
        while "never" not in (state := _state(client)):
            assert time.monotonic() < deadline, state
            time.sleep(0.2)
    assert is_answered(address)


def _state(client: socket.socket) -> str:
    """ "never" as soon as the server has cut the connection."""
    closed = struct.unpack_from("B", client.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 8))[0] in (7, 8)
    return "never" if closed else "open"


def test_too_many_connections_are_turned_away(served: Served, serve: Serve) -> None:
    address = serve(served(Brightener(), connections=5))
    clients = [connected(address) for _ in range(6)]
    time.sleep(0.3)
    assert httpx.get(f"{address}/live").status_code == 503
    for client in clients:
        client.close()
    time.sleep(0.3)
    assert is_answered(address)


def test_every_answer_has_the_documented_form_and_a_number(served: Served, serve: Serve) -> None:
    address = serve(served(Brightener()), hosts=("localhost", "127.0.0.1"))
    asked = {
        404: httpx.get(f"{address}/nothing/{'x' * 500}"),
        405: httpx.get(f"{address}/enhance"),
        421: httpx.get(f"{address}/live", headers={"Host": "evil.example"}),
        415: httpx.post(f"{address}/enhance", content=b"x", headers={"Content-Type": "text/" + "x" * 3000}),
    }
    for status, answer in asked.items():
        assert answer.status_code == status
        assert set(answer.json()) == {"error_code", "message"} and len(answer.text) < 300
        assert len(answer.headers["x-request-id"]) == 32
    assert httpx.get(f"{address}/live", headers={"X-Request-Id": "abc-1"}).headers["x-request-id"] == "abc-1"
    forged = httpx.get(f"{address}/live", headers={"X-Request-Id": "a" * 100})
    assert forged.headers["x-request-id"] != "a" * 100


def test_what_is_served_is_described(served: Served, serve: Serve) -> None:
    address = serve(served(Brightener()))
    described = httpx.get(f"{address}/openapi.json").json()
    names = {parameter["name"]: parameter for parameter in described["paths"]["/enhance"]["post"]["parameters"]}
    assert set(names) == {"seed", "strength"} and names["seed"]["schema"]["minimum"] == 0
    assert "422" not in json.dumps(described)
    assert httpx.get(f"{address}/ready").status_code == httpx.get(f"{address}/live").status_code == 200
    assert 'smartphotocrafter_requests_total{path="/ready",status="200"} 1.0' in httpx.get(f"{address}/metrics").text


def logged(caplog: pytest.LogCaptureFixture) -> list[str]:
    """The lines of the access log."""
    return [record.getMessage() for record in caplog.records if record.name == "components.serving.access"]


def test_requests_are_logged(served: Served, serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    address = serve(served(Brightener()))
    with caplog.at_level("INFO", logger="components.serving.access"):
        httpx.get(f"{address}/live?a=%0d%0aforged", headers={"X-Request-Id": "one"})
        until = time.monotonic() + 30  # a line is logged after its answer is sent
        while not (lines := logged(caplog)) and time.monotonic() < until:
            time.sleep(0.02)
    assert len(lines) == 1 and 'one 127.0.0.1 "GET /live" 200' in lines[0]
    assert "forged" not in lines[0]


@pytest.fixture
def command(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A server of its own, with work that never ends in time, as the command starts it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    code = (
        "import uvicorn; from components.serving.app import create_app; from components.serving.limits import "
        "ServingLimits; from components.serving.service import PhotoService; from components.serving.transport "
        "import configured; from tests.serving.stubs import Brightener; limits = ServingLimits(end_seconds=1.0); "
        f"uvicorn.Server(configured(create_app(PhotoService(Brightener(600), limits)), limits, port={port})).run()"
    )
    process = subprocess.Popen([sys.executable, "-c", code], cwd=Path(__file__).parents[2], text=True)
    address = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 400
        while True:
            try:
                if httpx.get(f"{address}/ready").status_code == 200:
                    break
            except httpx.TransportError:
                pass
            assert time.monotonic() < deadline
            time.sleep(0.2)
        yield process, address
    finally:
        process.kill()
        process.wait()


def test_sigterm_ends_a_server_with_work_uploads_and_silent_clients(command: tuple[subprocess.Popen[str], str]) -> None:
    process, address = command
    asking = threading.Thread(target=lambda: _quietly(address))
    asking.start()
    silent, upload = connected(address), connected(address)
    upload.sendall(b"POST /enhance HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: 999\r\n\r\nx")
    (copier,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    time.sleep(1.0)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=30) in (0, -signal.SIGTERM)
    asking.join(timeout=30)
    with silent, upload:
        assert is_cut(silent) and is_cut(upload)
    deadline = time.monotonic() + 10
    while Path(f"/proc/{copier}").exists():
        assert time.monotonic() < deadline, "the process that makes copies outlives its server"
        time.sleep(0.1)


def _quietly(address: str) -> None:
    with contextlib.suppress(httpx.TransportError):
        httpx.post(f"{address}/enhance", content=picture(), headers=JPEG, timeout=60)
