"""Attacks on a real server: what each gets, and that the next ordinary request is answered as ever."""

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from components.serving.processes import DecodeProcesses
from components.serving.service import PhotoService
from components.serving.work import Abandoned, Reason, Refused, Work
from tests import attacks
from tests.serving.clients import JPEG, connected, is_answered
from tests.serving.stubs import Brightener, picture

Serve = Callable[..., str]
Served = Callable[..., PhotoService]


@pytest.fixture
def files() -> dict[str, bytes]:
    return {
        "scans": attacks.jpeg_of_scans(40_000),
        "tile": attacks.tiff_of_one_tile(65_536),
        "row": attacks.grey_png(4_000_000, 16),
        "pieces": attacks.grey_png(16, 4_000_000),
    }


@pytest.mark.parametrize("name", ["scans", "tile", "row", "pieces"])
def test_files_made_to_stop_a_server_are_refused(
    served: Served, serve: Serve, files: dict[str, bytes], name: str
) -> None:
    enhancer = Brightener()
    address = serve(served(enhancer))
    answer = httpx.post(f"{address}/enhance", content=files[name], headers=JPEG, timeout=60)
    assert (answer.status_code, enhancer.calls) == (400, 0), answer.text
    assert is_answered(address)


def test_metadata_made_to_stop_a_server_is_left_out(served: Served, serve: Serve) -> None:
    address = serve(served(Brightener()))
    for content in (
        attacks.with_exif(attacks.exif_of_pointers(5000, 80_000)),
        attacks.png_of_texts(200),
        attacks.with_profile(12 * 2**20),
    ):
        assert httpx.post(f"{address}/enhance", content=content, headers=JPEG, timeout=60).status_code == 200
    assert is_answered(address)


def test_a_file_that_takes_too_long_ends_its_process_alone(
    served: Served, serve: Serve, processes: DecodeProcesses
) -> None:
    before = processes.ends["SIGXCPU"]
    address = serve(served(Brightener(), photo_seconds=1.0))
    answer = httpx.post(f"{address}/enhance", content=attacks.jpeg_of_scans(190, 7000), headers=JPEG, timeout=120)
    assert answer.status_code == 400 and "1 s of processor time" in answer.text
    assert processes.ends["SIGXCPU"] == before + 1
    assert is_answered(address)
    counted = httpx.get(f"{address}/metrics").text
    assert f'smartphotocrafter_decode_processes_ended_total{{reason="SIGXCPU"}} {before + 1}.0' in counted


def test_a_file_that_takes_too_much_memory_is_refused(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a file is allowed 8 MiB beyond what its process has, a picture of 48 MB is too much and a small one not."""
    monkeypatch.setattr("components.serving.processes._ROOM", 8 * 2**20)
    monkeypatch.setattr("components.serving.processes._ROOM_A_PIXEL", 0)
    service = served(Brightener())
    with pytest.raises(Refused, match="more than 8 MiB") as caught:
        service.enhance(attacks.grey_png(4000, 4000))
    assert caught.value.reason is Reason.INVALID
    assert service.enhance(picture()).photo


def test_a_process_that_crashes_takes_nobody_along(served: Served, processes: DecodeProcesses) -> None:
    """Killed in the middle by its number, as the system does when memory runs out."""
    while _children(processes):  # of the test before
        time.sleep(0.01)
    service = served(Brightener(seconds=2))
    caught: list[BaseException] = []

    def ask() -> None:
        try:
            service.enhance(picture())
        except Refused as refused:
            caught.append(refused)

    asking = threading.Thread(target=ask)
    asking.start()
    while not (copies := _children(processes)):
        time.sleep(0.01)
    time.sleep(0.3)
    os.kill(copies[0], signal.SIGKILL)
    asking.join(timeout=60)
    assert caught and "ended the process" in str(caught[0])
    assert service.enhance(picture()).photo


def _children(processes: DecodeProcesses) -> list[int]:
    assert processes._process is not None
    parent = processes._process.pid
    return [int(pid) for pid in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()]


def test_the_process_that_makes_copies_is_started_again() -> None:
    service = PhotoService(Brightener())
    try:
        assert service.enhance(picture()).photo
        process = service.processes._process
        assert process is not None
        process.kill()
        process.wait()
        assert service.enhance(picture()).photo
    finally:
        service.close()
    assert not service.processes.is_ready
    with pytest.raises(Refused, match="is ending"):
        service.enhance(picture())


def test_a_client_that_hangs_up_ends_the_work(served: Served, serve: Serve, processes: DecodeProcesses) -> None:
    service = served(Brightener())
    address = serve(service)
    content = attacks.jpeg_of_scans(190, 7000)
    with connected(address) as client:
        head = (
            f"POST /enhance HTTP/1.1\r\nHost: x\r\nContent-Type: image/jpeg\r\nContent-Length: {len(content)}\r\n\r\n"
        )
        client.sendall(head.encode() + content)
        while not _children(processes):
            time.sleep(0.01)
    deadline = time.monotonic() + 15
    while service.admission.inside or _children(processes):
        assert time.monotonic() < deadline, "the work of a client that went away goes on"
        time.sleep(0.05)


def test_a_body_of_brackets_is_refused_before_it_is_parsed(served: Served, serve: Serve) -> None:
    address = serve(served(Brightener()))
    body = b'{"inputs":[' + b"[]," * 20_000_000 + b"[]]}"
    answer = httpx.post(
        f"{address}/invocations", content=body, headers={"Content-Type": "application/json"}, timeout=60
    )
    assert answer.status_code == 400 and "at most 10000 values" in answer.text
    assert is_answered(address)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ('{"inputs": [], "params": {"strength": 1e400}}', "params"),
        ('{"inputs": [{"photo": "AAAA"}], "params": {"strength": 1e400}}', "from 0 to 2, found inf"),
        ('{"inputs": [{"photo": "AAAA"}], "params": {"strength": 1' + "0" * 400 + "}}", "from 0 to 2"),
        ('{"inputs": [{"photo": "AAAA"}], "params": {"seed": 1e400}}', "expected an integer"),
        ('{"inputs": [{"photo": "AAAA"}], "params": {"seed": -1}}', "expected an integer from 0"),
        ('{"' + "k" * 100_000 + '": 1}', "found keys 'kkk"),
    ],
    ids=["nothing", "infinite", "long", "infinite seed", "negative", "long key"],
)
def test_extreme_numbers_and_keys_are_400_in_few_words(served: Served, serve: Serve, body: str, said: str) -> None:
    address = serve(served(Brightener()))
    headers = {"Content-Type": "application/json"}
    answer = httpx.post(f"{address}/invocations", content=body, headers=headers, timeout=60)
    assert answer.status_code == 400 and len(answer.text) < 1200
    assert said in answer.json()["message"] or said == "params"


@pytest.mark.parametrize("query", ["strength=1e400", "strength=nan", "seed=1e3", "seed=99999999999999999999", "seed="])
def test_extreme_numbers_in_the_address_are_400(served: Served, serve: Serve, query: str) -> None:
    answer = httpx.post(f"{serve(served(Brightener()))}/enhance?{query}", content=picture(), headers=JPEG)
    assert answer.status_code == 400
    assert answer.json()["message"].startswith(query.partition("=")[0])


def test_work_that_nobody_waits_for_is_not_begun(served: Served) -> None:
    enhancer = Brightener()
    work = Work(60)
    work.abandon()
    with pytest.raises(Abandoned):
        served(enhancer).enhance(picture(), work=work)
    assert enhancer.calls == 0
