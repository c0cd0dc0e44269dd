"""Picture bytes in, enhanced picture and the Critic's verdict out, within limits; knows neither HTTP nor MLflow.

A picture goes the way that it goes on the command line (`components.inference.workflow`): both give the same file.
A picture is in memory only, from the request to the answer: a server that is killed leaves no photo on a disk.

Both faces of the model use it: the pyfunc that `mlflow models serve` runs (steps/serving.py) and the HTTP application
of `make serve` (components/serving/app.py).
"""

import json
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

from components.imaging.originals import read_original
from components.imaging.photo import UnreadablePhoto, read_header
from components.imaging.source import MemoryFile
from components.serving.limits import ServingLimits

if TYPE_CHECKING:  # the model libraries take long to import, which is the enhancer's business
    from components.inference.enhancer import Critique, Enhancer

SUFFIXES = {"JPEG": ".jpg", "PNG": ".png", "TIFF": ".tif", "WEBP": ".webp", "AVIF": ".avif"}
"""Formats that are answered in kind, with the suffix `components.imaging.photo` writes them by; others become PNG."""
MEDIA_TYPES = {
    ".jpg": "image/jpeg",
    ".png": "image/png",
    ".tif": "image/tiff",
    ".webp": "image/webp",
    ".avif": "image/avif",
}
"""Media type of each suffix (RFC 2046, RFC 9649 and the AVIF registration at IANA)."""


class Reason(Enum):
    """Why a request got no picture."""

    INVALID = "invalid"
    TOO_LARGE = "too large"
    BUSY = "busy"
    TIMED_OUT = "timed out"


class Refused(Exception):  # noqa: N818 (reads as a sentence where it is caught)
    """A request that is turned away; the message says what was expected, what was found and what to do."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class EnhancedPicture(NamedTuple):
    """One enhanced picture."""

    photo: bytes
    """The file, in the format that came in where that can be written, in PNG otherwise."""
    suffix: str
    """A key of `MEDIA_TYPES`."""
    text: str
    """What the Critic wrote, word for word."""
    verdict: str
    """The same parsed, as JSON; "null" where it is not in the grammar."""
    strength: float
    """Of the edit; 0 where the Critic found nothing to mend and the photo is as it was."""


class PhotoService:
    """Enhances one picture at a time, with a bounded number of requests waiting for their turn.

    The models fill the machine with one picture, so pictures in parallel would only share it and double the memory.

    Args:
        enhancer: does the work; never called from two threads at once.
    """

    def __init__(self, enhancer: "Enhancer", limits: ServingLimits | None = None):
        self.limits = limits or ServingLimits()
        self._enhancer = enhancer
        self._turn = threading.Lock()
        self._places = threading.BoundedSemaphore(self.limits.waiting + 1)

    @property
    def strength(self) -> float:
        """The model's own strength, where a request names none."""
        return self._enhancer.settings.strength

    def enhance(
        self, content: bytes, seed: int = 0, strength: float | None = None, deadline: float | None = None
    ) -> EnhancedPicture:
        """Enhance the picture file ``content``.

        Args:
            seed: of the Artist's noise, from 0 to 2^63 - 1.
            strength: from 0 (unchanged) to 2; by default the model's own, less where its Critic finds a photo good.
            deadline: on the clock of `time.monotonic`; a request still waiting then is given up.

        Raises:
            Refused: too large, not a picture, parameters out of range, too many waiting, or waited too long.
        """
        if not 0 <= seed < 2**63:
            raise Refused(Reason.INVALID, f"seed: expected a number from 0 to 2^63 - 1, found {seed}")
        if strength is not None and not 0 <= strength <= 2:
            raise Refused(Reason.INVALID, f"strength: expected a number from 0 to 2, found {strength}")
        with self._admitted(content, deadline) as source:
            from components.inference.workflow import EnhanceOptions, enhance_file

            options = EnhanceOptions(strength=strength, seed=seed, max_pixels=self.limits.max_pixels)
            with _refusing():
                suffix = SUFFIXES.get(read_header(source, self.limits.max_pixels).format, ".png")
                made = enhance_file(self._enhancer, source, f"{source.stem}{suffix}", options)
            report = made.report
            verdict = json.dumps(report.verdict.model_dump(mode="json") if report.verdict else None)
            strength = report.edit.strength if report.edit else 0.0
            return EnhancedPicture(made.files[f"{source.stem}{suffix}"], suffix, report.text, verdict, strength)

    def critique(self, content: bytes, deadline: float | None = None) -> "Critique":
        """The Critic's opinion of the picture file ``content``, without an edit.

        Raises:
            Refused: as `enhance` does.
        """
        with self._admitted(content, deadline) as source:
            with _refusing():
                original = read_original(source, self.limits.max_pixels)
            return self._enhancer.critique(original)

    @contextmanager
    def _admitted(self, content: bytes, deadline: float | None) -> Iterator[MemoryFile]:
        """The content as a file in memory, once it is this request's turn."""
        self._check_size(content)
        if not self._places.acquire(blocking=False):
            raise Refused(
                Reason.BUSY, f"{self.limits.waiting} requests are waiting already: try again in a few seconds"
            )
        try:
            source = MemoryFile("photo", content)
            self._check_pixels(source)
            patience = -1 if deadline is None else max(0.0, deadline - time.monotonic())
            if not self._turn.acquire(timeout=patience):
                raise Refused(Reason.TIMED_OUT, "the request waited too long for its turn: try again later")
            try:
                yield source
            finally:
                self._turn.release()
        finally:
            self._places.release()

    def _check_size(self, content: bytes) -> None:
        if len(content) > self.limits.max_bytes:
            raise Refused(
                Reason.TOO_LARGE,
                f"photo: expected at most {self.limits.max_bytes} bytes, found {len(content)}: send a smaller file",
            )

    def _check_pixels(self, source: MemoryFile) -> None:
        """Looks at the header only, so that a picture that is too large is never decoded."""
        with _refusing():
            header = read_header(source, sys.maxsize)
        if header.width * header.height > self.limits.max_pixels:
            raise Refused(
                Reason.TOO_LARGE,
                f"photo: expected at most {self.limits.max_pixels} pixels, found {header.width} x {header.height}: "
                f"send it scaled down",
            )


@contextmanager
def _refusing() -> Iterator[None]:
    """Turn a file that is no usable photo into a request that is turned away."""
    try:
        yield
    except UnreadablePhoto as error:
        raise Refused(Reason.INVALID, f"photo: {error.reason}") from error
