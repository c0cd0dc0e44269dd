"""Picture bytes in, enhanced picture and the Critic's verdict out, within limits; knows neither HTTP nor MLflow.

A picture goes the way that it goes on the command line (`components.inference.workflow`): both give the same file. It
is read, edited and written in a process of its own (`components.serving.processes`), and in memory only: a server that
is killed leaves no photo on a disk.

Both faces of the model use it: the pyfunc that `mlflow models serve` runs (steps/serving.py) and the HTTP application
of `make serve` (components/serving/app.py).
"""

import json
import threading
from typing import TYPE_CHECKING, NamedTuple

from components.serving.limits import ServingLimits
from components.serving.processes import DecodeProcesses
from components.serving.work import Admission, Reason, Refused, Work

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
_NAME = "photo"


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
    """Enhances pictures: models look at one at a time, while others are read or written.

    The models fill the machine with one picture, so pictures in parallel would only share it and double the memory.

    Args:
        enhancer: does the work; never called from two threads at once.
        processes: in which photos are opened, if they are there already; `close` ends them in any case.

    Attributes:
        admission: the queue. Whoever calls `enhance` or `critique` has a place in it.
    """

    def __init__(
        self,
        enhancer: "Enhancer",
        limits: ServingLimits | None = None,
        processes: DecodeProcesses | None = None,
    ):
        self.limits = limits or ServingLimits()
        self.admission = Admission(self.limits.waiting + 1)
        self.processes = processes or DecodeProcesses(self.limits.readers)
        self.processes.start()
        self._enhancer = enhancer
        self._turn = threading.Semaphore(1)

    @property
    def strength(self) -> float:
        """The model's own strength, where a request names none."""
        return self._enhancer.settings.strength

    def close(self) -> None:
        """End all processes in which photos are open."""
        self.processes.close()

    def enhance(
        self, content: bytes, seed: int = 0, strength: float | None = None, work: Work | None = None
    ) -> EnhancedPicture:
        """Enhance the picture file ``content``.

        Args:
            seed: of the Artist's noise, from 0 to 2^63 - 1.
            strength: from 0 (unchanged) to 2; by default the model's own, less where its Critic finds a photo good.
            work: until when it must be done, by default as long as the limits say.

        Raises:
            Refused: too large, not a picture, parameters out of range, or not done in time.
            components.serving.work.Abandoned: nobody waits for it any more.
        """
        if not 0 <= seed < 2**63:
            raise Refused(Reason.INVALID, f"seed: expected a number from 0 to 2^63 - 1, found {str(seed)[:40]}")
        if strength is not None and not 0 <= strength <= 2:
            raise Refused(Reason.INVALID, f"strength: expected a number from 0 to 2, found {strength}")
        self._check_size(content)
        from components.inference.transfer import FieldEdit
        from components.inference.workflow import EnhanceOptions, decide

        work = work or Work(self.limits.timeout_seconds)
        with self.processes.opened(_NAME, content, self.limits, work) as photo:
            suffix = SUFFIXES.get(photo.format, ".png")
            options = EnhanceOptions(strength=strength, seed=seed)
            with work.turn(self._turn):
                _, edit, report = decide(self._enhancer, photo, _NAME, f"{_NAME}{suffix}", options)
            assert isinstance(edit, FieldEdit) and report.edit is not None
            made = photo.finished(edit, f"{_NAME}{suffix}")
        verdict = json.dumps(report.verdict.model_dump(mode="json") if report.verdict else None)
        return EnhancedPicture(made, suffix, report.text, verdict, report.edit.strength)

    def critique(self, content: bytes, work: Work | None = None) -> "Critique":
        """The Critic's opinion of the picture file ``content``, without an edit.

        Raises: as `enhance` does.
        """
        self._check_size(content)
        work = work or Work(self.limits.timeout_seconds)
        with self.processes.opened(_NAME, content, self.limits, work) as photo, work.turn(self._turn):
            return self._enhancer.critique(photo)

    def _check_size(self, content: bytes) -> None:
        if len(content) > self.limits.max_bytes:
            raise Refused(
                Reason.TOO_LARGE,
                f"photo: expected at most {self.limits.max_bytes} bytes, found {len(content)}: send a smaller file",
            )
