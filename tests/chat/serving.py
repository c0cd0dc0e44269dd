"""A server on the loopback that is as troublesome as real ones: it stalls, cuts, garbles, rate-limits and breaks."""

import base64
import io
import math
import re
import threading
import time
from collections import Counter
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler

from PIL import Image

from benchmarks.chat_loopback import ChatRequest, LoopbackServer, completion, send_json

Behaviour = Callable[[bytes, int], tuple[int, str]]
"""(picture as JPEG, how many times it has been asked about before) -> (HTTP status, answer text or special word)."""

STALL, CUT, HALF, TRICKLE, GARBLED, ODD = "<stall>", "<cut>", "<half>", "<trickle>", "<garbled>", "<odd>"
"""Never answer; close before, close within the body; end at the token limit; send a byte now and then; send what is no
JSON; send JSON that is no completion."""


class ModelServer(LoopbackServer):
    """Answers about pictures as told.

    Attributes:
        asked: number of requests by picture.
        bodies, headers, times: of all requests; monotonic seconds.
        retry_after: header sent with 429.
        thinking: field of the message that what stands in <think> tags is moved to, as parsers of reasoning do.
        chance: probability of "yes" about a picture; with it, what asks for probabilities of tokens gets them.
    """

    def __init__(
        self,
        behave: Behaviour,
        delay: float = 0.0,
        retry_after: str = "0.05",
        thinking: str | None = None,
        chance: Callable[[bytes], float] | None = None,
    ) -> None:
        super().__init__(lambda request: "")
        self.behave = behave
        self.delay = delay
        self.retry_after = retry_after
        self.thinking = thinking
        self.chance = chance
        self.asked: Counter[bytes] = Counter()
        self.times: list[float] = []
        self._counting = threading.Lock()
        self._stopped = threading.Event()

    @property
    def bodies(self) -> list[dict]:
        return [request.body for request in self.requests]

    @property
    def headers(self) -> list[dict[str, str]]:
        return [request.headers for request in self.requests]

    def stop(self) -> None:
        self._stopped.set()

    def reply(self, handler: BaseHTTPRequestHandler, request: ChatRequest) -> None:
        picture = picture_of(request.body)
        with self._counting:
            before = self.asked[picture]
            self.asked[picture] += 1
            self.times.append(time.monotonic())
        time.sleep(self.delay)
        status, text = self.behave(picture, before)
        if text == STALL:
            self._stopped.wait(30)
        elif text == TRICKLE:
            self._trickle(handler)
        elif text == GARBLED:
            _send(handler, b'{"choices": [{"mess', 19)
        elif text == CUT:
            _send(handler, b'{"choices": [{"mess', 1000)
            handler.close_connection = True
        elif text == ODD:
            send_json(handler, 200, {"choices": [{"message": {"content": 7}}]})
        elif status == 200 and self.thinking:
            thought, _, rest = text.removeprefix("<think>").partition("</think>")
            send_json(handler, 200, completion(rest.lstrip(), **{self.thinking: thought.strip()}))
        elif status == 200:
            chances = spelt(text, self.chance(picture)) if self.chance and request.body.get("logprobs") else None
            send_json(handler, 200, completion(text, "length" if text == HALF else "stop", chances))
        else:
            more = {"Retry_After": self.retry_after} if status == 429 else {}
            send_json(handler, status, {"error": {"message": text, "type": "error"}}, **more)

    def _trickle(self, handler: BaseHTTPRequestHandler) -> None:
        _send(handler, b"", 1000)
        while not self._stopped.wait(0.05):
            handler.wfile.write(b" ")


def spelt(text: str, chance: float) -> list[dict]:
    """The text in tokens, as vLLM reports them: a quotation mark may share a token with the space before it.

    Where "yes" or "no" is written, nine tenths of the probability are on these two, `chance` of them on "yes".
    """

    def token(written: str, *alternatives: tuple[str, float]) -> dict:
        logarithms = {t: math.log(p) if p else -9999.0 for t, p in alternatives or [(written, 1.0)]}
        top = [{"token": t, "logprob": value, "bytes": list(t.encode())} for t, value in logarithms.items()]
        return {"token": written, "logprob": logarithms[written], "bytes": None, "top_logprobs": top}

    words = (("yes", 0.9 * chance), ("no", 0.9 * (1 - chance)), ("maybe", 0.1))
    written = re.findall(r'\s*"|yes|no|.', text, re.DOTALL)
    return [*(token(t, *words) if t in ("yes", "no") else token(t) for t in written), token("<|im_end|>")]


def picture_of(body: dict) -> bytes:
    """The last JPEG in a request."""
    url = [part for part in body["messages"][1]["content"] if part["type"] == "image_url"][-1]["image_url"]["url"]
    assert url.startswith("data:image/jpeg;base64,")
    return base64.b64decode(url.split(",", 1)[1], validate=True)


def grey_of(picture: bytes) -> float:
    """Mean level of a picture, 0 to 255."""
    levels = Image.open(io.BytesIO(picture)).convert("L").tobytes()
    return sum(levels) / len(levels)


def _send(handler: BaseHTTPRequestHandler, payload: bytes, promised: int) -> None:
    """The start of a response whose body is said to be ``promised`` bytes long."""
    handler.send_response(200)
    handler.send_header("Content-Type", "application/json")
    handler.send_header("Content-Length", str(promised))
    handler.end_headers()
    handler.wfile.write(payload)
