"""A server or a batch that is killed in the middle of a photo leaves none in the system's temporary folder."""

import multiprocessing
import os
import signal
import socket
import tempfile
import threading
import time
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import httpx
import pytest
import uvicorn

from components.imaging.originals import Original
from components.inference.enhancer import EditPlan, Enhancer
from components.serving.app import create_app
from components.serving.service import PhotoService
from pipelines.__main__ import main
from tests.inference.conftest import HalvingEnhancer
from tests.serving.stubs import Brightener, picture

FORK = multiprocessing.get_context("fork")


@pytest.fixture
def temporary(tmp_path: Path) -> Path:
    """What the processes of the test take for the system's temporary folder."""
    (tmp_path / "temporary").mkdir()
    return tmp_path / "temporary"


def killed_at_work(temporary: Path, work: Callable[..., None], *arguments: object) -> None:
    """Run ``work`` in a process of its own and kill it once it says, by an event, that a photo is being worked on."""
    at_work = FORK.Event()
    process = FORK.Process(target=with_temporary, args=(temporary, work, at_work, *arguments))
    process.start()
    assert at_work.wait(60)
    process.kill()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL


def with_temporary(temporary: Path, work: Callable[..., None], *arguments: object) -> None:
    os.environ["TMPDIR"], tempfile.tempdir = str(temporary), None
    work(*arguments)


def left(folder: Path) -> list[str]:
    return [str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()]


def serve(at_work, listener: socket.socket) -> None:
    class Stuck(Brightener):
        def _work(self) -> None:
            at_work.set()
            time.sleep(600)

    server = uvicorn.Server(uvicorn.Config(create_app(PhotoService(Stuck())), log_level="error"))
    server.run(sockets=[listener])


def test_a_killed_server(temporary: Path) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        address = f"http://127.0.0.1:{listener.getsockname()[1]}"

        def send() -> None:
            with suppress(httpx.HTTPError):
                httpx.post(f"{address}/enhance", content=picture(), headers={"Content-Type": "image/png"}, timeout=60)

        client = threading.Thread(target=send)
        client.start()
        killed_at_work(temporary, serve, listener)
    client.join()
    assert left(temporary) == []


def enhance(at_work, *arguments: str) -> None:
    class Stuck(HalvingEnhancer):
        def plan(self, original: Original, seed: int, draws: int | None) -> EditPlan:
            at_work.set()
            time.sleep(600)
            raise AssertionError("it should have been killed")

    Enhancer.load = lambda folder, placement: Stuck()
    main(["enhance", *arguments])


def test_a_killed_batch(enhancer, temporary: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        archive.writestr("a.png", picture(width=60, height=40))
    out = tmp_path / "out"
    arguments = (str(tmp_path / "photos.zip"), str(out), "--sidecar", "--compare")
    killed_at_work(temporary, enhance, *arguments)
    assert left(temporary) == [] and {Path(name).parts[0] for name in left(out)} == {".smartphotocrafter"}
    assert main(["enhance", *arguments]) == 0
    assert "a.png" in left(out) and left(temporary) == []
