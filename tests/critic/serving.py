"""A real HTTP server on the loopback that plays an OpenAI-compatible endpoint, well-behaved or not."""

import base64
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Behaviour = Callable[[bytes, int], tuple[int, str]]
"""(picture as PNG, how many times it has been asked about before) -> (HTTP status, answer text or special word)."""

STALL, CUT, HALF = "<stall>", "<cut>", "<half>"


class ModelServer:
    """Answers chat completions; records what it was asked.

    Attributes:
        asked: number of requests by picture.
        peak: largest number of requests it served at the same time.
        bodies, headers: of all requests; header names in lower case.
    """

    def __init__(self, behave: Behaviour, delay: float = 0.0) -> None:
        self.behave = behave
        self.delay = delay
        self.asked: Counter[bytes] = Counter()
        self.bodies: list[dict] = []
        self.headers: list[dict[str, str]] = []
        self.peak = 0
        self._serving = 0
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                outer.serve(self)

            def log_message(self, *arguments: object) -> None:
                """Requests are recorded, not printed."""

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self.base_url = f"http://127.0.0.1:{self._http.server_port}/v1"

    @contextmanager
    def running(self) -> Iterator["ModelServer"]:
        thread = threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._stopped.set()
            self._http.shutdown()
            self._http.server_close()
            thread.join()

    def serve(self, handler: BaseHTTPRequestHandler) -> None:
        body = json.loads(handler.rfile.read(int(handler.headers["Content-Length"])))
        picture = base64.b64decode(body["messages"][1]["content"][0]["image_url"]["url"].split(",", 1)[1])
        with self._lock:
            before = self.asked[picture]
            self.asked[picture] += 1
            self.bodies.append({"path": handler.path, **body})
            self.headers.append({name.lower(): value for name, value in handler.headers.items()})
            self._serving += 1
            self.peak = max(self.peak, self._serving)
        try:
            time.sleep(self.delay)
            self._reply(handler, *self.behave(picture, before))
        except (BrokenPipeError, ConnectionResetError):
            pass  # the client gave up or was killed
        finally:
            with self._lock:
                self._serving -= 1

    def _reply(self, handler: BaseHTTPRequestHandler, status: int, text: str) -> None:
        if text == STALL:
            self._stopped.wait(30)
            return
        if text == CUT:
            handler.close_connection = True
            return
        reason = "length" if text == HALF else "stop"
        message = {"role": "assistant", "content": text}
        content = {
            "id": "x",
            "object": "chat.completion",
            "created": 0,
            "model": "m",
            "choices": [{"index": 0, "message": message, "finish_reason": reason}],
            "usage": {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110},
        }
        payload = json.dumps(content if status == 200 else {"error": {"message": text, "type": "error"}}).encode()
        handler.send_response(status)
        handler.send_header("Content-Type", "application/json")
        handler.send_header("Content-Length", str(len(payload)))
        if status == 429:
            handler.send_header("Retry-After", "0.05")
        handler.end_headers()
        handler.wfile.write(payload)
