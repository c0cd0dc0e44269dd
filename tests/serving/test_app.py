"""The HTTP application on a real server: the protocol, every refusal with its status, load, and steady memory."""

import asyncio
import base64
import collections
import gc
import http.client
import json
import socket
import time
import tracemalloc
import weakref
from collections.abc import Callable

import httpx
import pytest
from torch import Tensor

from components.imaging.originals import Original
from components.inference.enhancer import EditPlan
from components.serving.service import PhotoService
from tests.serving.stubs import VERDICT, Brightener, level, picture

JPEG = {"Content-Type": "image/jpeg"}
Serve = Callable[..., str]
Served = Callable[..., PhotoService]


def start(served: Served, serve: Serve, seconds: float = 0.0, **limits: float) -> str:
    return serve(served(Brightener(seconds), **limits))


def check_refusal(response: httpx.Response, status: int, reason: str) -> None:
    assert response.status_code == status, response.text
    content = response.json()
    assert set(content) == {"error_code", "message"}
    assert reason in content["message"]


@pytest.mark.parametrize("query", ["stregth=0.5", "seed=1&seed=2", "strength=1&Seed=3"])
def test_parameters_without_effect_are_refused(served: Served, serve: Serve, query: str) -> None:
    address = start(served, serve)
    answer = httpx.post(f"{address}/enhance?{query}", content=picture(), headers=JPEG)
    check_refusal(answer, 400, "expected at most seed and strength, once each, found")
    check_refusal(httpx.post(f"{address}/critique?seed=1", content=picture(), headers=JPEG), 400, "expected none")


def test_a_form_is_told_what_to_send_instead(served: Served, serve: Serve) -> None:
    answer = httpx.post(f"{start(served, serve)}/enhance", files={"photo": picture()})
    check_refusal(answer, 415, "send the file itself as the body")


def test_mlflows_protocol(served: Served, serve: Serve) -> None:
    address = start(served, serve)
    for path in ("/ping", "/health", "/version"):
        assert httpx.get(address + path).status_code == 200
    content = base64.b64encode(picture("JPEG")).decode()
    body = {"dataframe_records": [{"photo": content}] * 2, "params": {"seed": 4, "strength": 0.5}}
    rows = httpx.post(f"{address}/invocations", json=body).json()["predictions"]
    assert [row["text"] for row in rows] == ["seed 4"] * 2
    assert level(base64.b64decode(rows[1]["photo"])) == pytest.approx(100 + 0.05 * 255, abs=2)
    assert json.loads(rows[0]["verdict"])["score"] == 60


def test_files_as_they_are(served: Served, serve: Serve) -> None:
    address = start(served, serve)
    answer = httpx.post(f"{address}/enhance?seed=1&strength=2", content=picture("WEBP"), headers=JPEG).json()
    assert (answer["media_type"], answer["suffix"], answer["strength"]) == ("image/webp", ".webp", 2)
    assert level(base64.b64decode(answer["photo"])) == pytest.approx(151, abs=2)
    assert VERDICT.model_validate_json(json.dumps(answer["verdict"])) == VERDICT
    judged = httpx.post(f"{address}/critique", content=picture(), headers=JPEG).json()
    assert (judged["text"], judged["verdict"]["score"]) == ("9 x 6", 60)


def test_every_mistake_has_its_status_and_reason(served: Served, serve: Serve) -> None:
    address = start(served, serve, max_bytes=2000, max_pixels=5000)
    check_refusal(httpx.post(f"{address}/enhance", content=b"no picture", headers=JPEG), 400, "not a picture")
    check_refusal(httpx.post(f"{address}/enhance", content=picture("JPEG")[:200], headers=JPEG), 400, "photo: ")
    check_refusal(httpx.post(f"{address}/enhance", content=picture("PNG", 100, 51), headers=JPEG), 413, "100 x 51")
    check_refusal(httpx.post(f"{address}/enhance", content=b"x" * 2001, headers=JPEG), 413, "at most 2000 bytes")
    check_refusal(httpx.post(f"{address}/enhance?strength=9", content=picture(), headers=JPEG), 400, "strength")
    check_refusal(httpx.post(f"{address}/enhance?seed=x", content=picture(), headers=JPEG), 400, "seed")
    check_refusal(
        httpx.post(f"{address}/enhance", content=picture(), headers={"Content-Type": "text/html"}), 415, "html"
    )
    check_refusal(httpx.post(f"{address}/invocations", content=b"{}", headers=JPEG), 415, "application/json")
    check_refusal(httpx.post(f"{address}/invocations", json={"inputs": []}), 400, "expected 1 to 8 photos")
    check_refusal(httpx.post(f"{address}/invocations", json={"inputs": "x" * 80_000}), 413, "smaller file")
    assert httpx.get(f"{address}/enhance").status_code == 405
    assert httpx.post(f"{address}/enhance", content=picture(), headers=JPEG).status_code == 200


def test_a_body_without_a_length_is_cut_off(served: Served, serve: Serve) -> None:
    """The answer comes while the client could still go on writing."""
    address = start(served, serve, max_bytes=2000)
    connection = http.client.HTTPConnection(address.removeprefix("http://"), timeout=10)
    connection.putrequest("POST", "/enhance")
    connection.putheader("Content-Type", "image/png")
    connection.putheader("Transfer-Encoding", "chunked")
    connection.endheaders()
    for _ in range(3):  # and no empty chunk, which would end the body
        connection.send(b"3e8\r\n" + b"x" * 1000 + b"\r\n")
    response = connection.getresponse()
    assert response.status == 413
    assert b"at most 2000 bytes" in response.read()
    connection.close()


def test_a_body_that_does_not_come_is_given_up(served: Served, serve: Serve) -> None:
    address = start(served, serve, upload_seconds=0.2)
    connection = http.client.HTTPConnection(address.removeprefix("http://"), timeout=10)
    connection.putrequest("POST", "/enhance")
    connection.putheader("Content-Type", "image/png")
    connection.putheader("Content-Length", "1000")
    connection.endheaders(b"x")
    response = connection.getresponse()
    assert response.status == 408
    assert b"did not arrive" in response.read()
    connection.close()


def test_work_that_takes_too_long_is_answered_and_keeps_its_place(served: Served, serve: Serve) -> None:
    """The models cannot be stopped: until they are done, there is no place for another request."""
    service = served(Brightener(8), timeout_seconds=4, waiting=0)
    address = serve(service)
    check_refusal(httpx.post(f"{address}/enhance", content=picture(), headers=JPEG, timeout=30), 504, "not done in 4 s")
    check_refusal(httpx.post(f"{address}/enhance", content=picture(), headers=JPEG), 429, "waiting already")
    deadline = time.monotonic() + 60
    while service.admission.inside:
        assert time.monotonic() < deadline, "the work has ended, and its place is still taken"
        time.sleep(0.05)


def test_an_unexpected_failure_is_logged_and_says_nothing_of_the_inside(
    served: Served, serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(Brightener):
        def plan(self, *_: object) -> None:
            raise RuntimeError("/secret/path")

    address = serve(served(Broken()))
    response = httpx.post(f"{address}/enhance", content=picture(), headers=JPEG)
    check_refusal(response, 500, "the server failed")
    assert "secret" not in response.text
    assert "RuntimeError: /secret/path" in caplog.text


def test_beyond_saturation_requests_queue_or_are_turned_away(served: Served, serve: Serve) -> None:
    enhancer = Brightener(seconds=0.02)
    address = serve(served(enhancer, waiting=5))

    async def storm() -> list[httpx.Response]:
        async with httpx.AsyncClient(timeout=30, limits=httpx.Limits(max_connections=40)) as client:
            requests = [client.post(f"{address}/enhance", content=picture(), headers=JPEG) for _ in range(120)]
            return await asyncio.gather(*requests)

    responses = asyncio.run(storm())
    counts = collections.Counter(response.status_code for response in responses)
    assert set(counts) == {200, 429}
    assert counts[200] == enhancer.calls >= 6
    assert enhancer.most == 1
    assert all("retry-after" in response.headers for response in responses if response.status_code == 429)
    assert httpx.get(f"{address}/health").status_code == 200


def test_clients_that_hang_up_leave_no_trace(served: Served, serve: Serve) -> None:
    address = start(served, serve, waiting=1)
    host, port = address.removeprefix("http://").split(":")
    for _ in range(10):
        with socket.create_connection((host, int(port))) as client:
            client.sendall(
                b"POST /enhance HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: 99\r\n\r\nx"
            )
    deadline = time.monotonic() + 5
    while httpx.post(f"{address}/enhance", content=picture(), headers=JPEG).status_code != 200:
        assert time.monotonic() < deadline, "the places of clients that went away are still taken"


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_requests(served: Served, serve: Serve) -> None:
    """Counted: the tensors that are alive, and the bytes that Python and NumPy hold."""
    tensors: list[weakref.ref[Tensor]] = []

    class Remembering(Brightener):
        def plan(self, photo: Original, seed: int, draws: int | None) -> EditPlan:
            plan = super().plan(photo, seed, draws)
            tensors.extend(weakref.ref(held) for held in (plan.before, plan.after))
            return plan

    address = serve(served(Remembering()))
    content = picture("BMP", 200, 150)
    with httpx.Client() as client:

        def ask(times: int) -> int:
            for _ in range(times):
                assert client.post(f"{address}/enhance", content=content, headers=JPEG).status_code == 200
            gc.collect()
            return tracemalloc.get_traced_memory()[0]

        tracemalloc.start()
        try:
            before = ask(5)
            grown = ask(20) - before
        finally:
            tracemalloc.stop()
    assert len(tensors) == 50
    assert sum(tensor() is not None for tensor in tensors) <= 2, "at most those of the last request"
    assert grown < 5 * len(content), "20 requests leave less than five of their bodies"
