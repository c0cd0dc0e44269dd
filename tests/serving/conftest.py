"""Real servers on free ports of the loopback address."""

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest
import uvicorn
from fastapi import FastAPI

from components.serving.app import create_app
from components.serving.limits import ServingLimits
from components.serving.processes import DecodeProcesses
from components.serving.service import PhotoService
from components.serving.transport import configured


@contextlib.contextmanager
def running(app: FastAPI, limits: ServingLimits | None = None) -> Iterator[str]:
    """Serve ``app`` from a thread as the command does; yields its address and stops it afterwards."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        server = uvicorn.Server(configured(app, limits or ServingLimits(end_seconds=2)))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.01)
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(timeout=10)


class Shared(DecodeProcesses):
    """Processes that one test leaves to the next, since they take seconds to start."""

    def close(self) -> None:
        pass


@pytest.fixture(scope="session")
def processes() -> Iterator[DecodeProcesses]:
    shared = Shared(readers=2)
    shared.start()
    while not shared.is_ready:
        time.sleep(0.05)
    yield shared
    DecodeProcesses.close(shared)


@pytest.fixture
def served(processes: DecodeProcesses) -> Callable[..., PhotoService]:
    """``served(enhancer, **limits)`` makes a service."""
    return lambda enhancer, **limits: PhotoService(enhancer, ServingLimits(**limits), processes)


@pytest.fixture
def serve() -> Iterator[Callable[..., str]]:
    """``serve(service)`` gives the address at which it is served until the test ends; options as of `create_app`."""
    with contextlib.ExitStack() as stack:

        def start(service: PhotoService, make: Callable[..., FastAPI] = create_app, **options: object) -> str:
            limits = service.limits.model_copy(update={"end_seconds": min(2.0, service.limits.end_seconds)})
            return stack.enter_context(running(make(service, **options), limits))

        yield start
