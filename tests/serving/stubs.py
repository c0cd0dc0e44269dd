"""An Enhancer that only brightens, as slowly as a test wants, and picture files to feed it."""

import io
import threading
import time
from dataclasses import dataclass

import numpy as np
from PIL import Image

from components.imaging.originals import Original
from components.inference.enhancer import EditPlan, EnhancerSettings
from components.verdict.grammar import Verdict

VERDICT = Verdict(reasoning=("a", "b", "c", "d", "e"), suggestions=(), score=60.0)


@dataclass
class Result:
    """As much of `Critique` as serving looks at."""

    text: str
    verdict: Verdict | None


class Brightener:
    """Adds ``strength`` tenths of full scale; the verdict does not parse for seed 0."""

    settings = EnhancerSettings(strength=1.25)

    def __init__(self, seconds: float = 0.0):
        self.seconds, self.calls, self.together, self.most = seconds, 0, 0, 0
        self._lock = threading.Lock()

    def plan(self, photo: Original, seed: int, draws: int | None) -> EditPlan:
        self._work()
        (small,) = photo.reduced([(6, 9)])
        return EditPlan(f"seed {seed}", VERDICT if seed else None, small, small + 0.1)

    def strength_for(self, verdict: Verdict | None) -> float:
        return self.settings.strength

    def critique(self, photo: Original) -> Result:
        self._work()
        return Result(f"{photo.width} x {photo.height}", VERDICT)

    def _work(self) -> None:
        with self._lock:
            self.calls += 1
            self.together += 1
            self.most = max(self.most, self.together)
        time.sleep(self.seconds)
        with self._lock:
            self.together -= 1


def picture(file_format: str = "PNG", width: int = 9, height: int = 6) -> bytes:
    """A grey picture file of level 100."""
    stream = io.BytesIO()
    Image.fromarray(np.full((height, width, 3), 100, np.uint8)).save(stream, file_format)
    return stream.getvalue()


def level(content: bytes) -> float:
    """The mean level of a picture file."""
    return float(np.asarray(Image.open(io.BytesIO(content)).convert("RGB")).mean())
