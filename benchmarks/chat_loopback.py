"""A real HTTP server on the loopback that speaks the part of the OpenAI API that is used here, with no model behind.

It serves load tests and trials of the clients: it counts what it is asked, and what it answers is up to the
caller.
"""

import json
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple, Self


class ChatRequest(NamedTuple):
    """One chat completion that was asked for."""

    name: str
    """The X-Request-Id without the part that differs between attempts."""
    body: dict
    headers: dict[str, str]
    """Names in lower case."""


class _Http(ThreadingHTTPServer):
    """Does not report clients that are killed in the middle of a request: that is what some trials are about."""

    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


class LoopbackServer:
    """Answers chat completions with the text that ``write`` returns, in one thread a connection.

    Args:
        write: the text for a request; called from many threads.

    Attributes:
        base_url: as the client's settings want it.
        requests: all chat completions asked for so far.
        peak: the largest number of requests that were served at the same time.
    """

    def __init__(self, write: Callable[[ChatRequest], str]) -> None:
        self.requests: list[ChatRequest] = []
        self.peak = 0
        self._write = write
        self._serving = 0
        self._lock = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                send_json(self, 200, {"object": "list", "data": []})

            def do_POST(self) -> None:
                outer._serve(self)

            def log_message(self, *arguments: object) -> None:
                """Requests are recorded, not printed."""

        self._http = _Http(("127.0.0.1", 0), Handler)
        self.base_url = f"http://127.0.0.1:{self._http.server_port}/v1"

    @contextmanager
    def running(self) -> Iterator[Self]:
        """Serve until the block ends."""
        thread = threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self.stop()
            self._http.shutdown()
            self._http.server_close()
            thread.join()

    def stop(self) -> None:
        """Called when the server is about to stop, to release what still waits."""

    def reply(self, handler: BaseHTTPRequestHandler, request: ChatRequest) -> None:
        """Send the answer to one request."""
        send_json(handler, 200, completion(self._write(request)))

    def _serve(self, handler: BaseHTTPRequestHandler) -> None:
        length = int(handler.headers["Content-Length"])
        content = handler.rfile.read(length)
        if len(content) < length:
            raise ConnectionResetError("the client was gone before its request was complete")
        body = json.loads(content)
        headers = {name.lower(): value for name, value in handler.headers.items()}
        request = ChatRequest(headers.get("x-request-id", "").rpartition("-")[0], body, headers)
        with self._lock:
            self.requests.append(request)
            self._serving += 1
            self.peak = max(self.peak, self._serving)
        try:
            self.reply(handler, request)
        except (BrokenPipeError, ConnectionResetError):
            handler.close_connection = True  # the client gave up or was killed
        finally:
            with self._lock:
                self._serving -= 1


def completion(text: str, finish_reason: str = "stop", logprobs: list[dict] | None = None, **more: str) -> dict:
    """The body of a chat completion with one choice; 100 tokens read, 10 written; ``more`` goes into the message."""
    message = {"role": "assistant", "content": text, **more}
    chances = None if logprobs is None else {"content": logprobs}
    return {
        "id": "loopback",
        "object": "chat.completion",
        "created": 0,
        "model": "loopback",
        "choices": [{"index": 0, "message": message, "finish_reason": finish_reason, "logprobs": chances}],
        "usage": {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110},
    }


def send_json(handler: BaseHTTPRequestHandler, status: int, content: dict, **headers: str) -> None:
    """Send a whole JSON response; ``headers`` are further ones, with underscores for hyphens."""
    payload = json.dumps(content).encode()
    handler.send_response(status)
    handler.send_header("Content-Type", "application/json")
    handler.send_header("Content-Length", str(len(payload)))
    for name, value in headers.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.end_headers()
    handler.wfile.write(payload)
