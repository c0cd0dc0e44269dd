"""Where a stage reports what it does; the library knows only this protocol, never a tracking server."""

from pathlib import Path
from typing import Any, Protocol

from torch import Tensor


class Tracker(Protocol):
    """Receives what a stage reports while it runs."""

    def params(self, values: dict[str, Any]) -> None:
        """Record settings, once."""

    def hardware(self, device: str, dtype: str, devices: int) -> None:
        """Record what the metrics that follow are computed on.

        Args:
            device: name of the GPU as its driver gives it, or "cpu".
            dtype: in which most is computed, such as "bfloat16".
            devices: devices that work together.
        """

    def metrics(self, values: dict[str, float], step: int) -> None:
        """Record scalars at an optimiser step."""

    def picture(self, name: str, image: Tensor, step: int) -> None:
        """Record an sRGB picture (3, H, W) in [0, 1]."""

    def artifact(self, path: Path, name: str) -> None:
        """Record a file or a folder under the folder `name`."""

    def note(self, text: str) -> None:
        """Say at the head of the record what whoever reads it must know, in place of an earlier note."""


class NullTracker:
    """Records nothing: for use of the library without a tracking server."""

    def params(self, values: dict[str, Any]) -> None:
        pass

    def hardware(self, device: str, dtype: str, devices: int) -> None:
        pass

    def metrics(self, values: dict[str, float], step: int) -> None:
        pass

    def picture(self, name: str, image: Tensor, step: int) -> None:
        pass

    def artifact(self, path: Path, name: str) -> None:
        pass

    def note(self, text: str) -> None:
        pass
