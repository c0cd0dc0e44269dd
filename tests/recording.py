"""A tracker that remembers what a stage reported."""

from pathlib import Path
from typing import Any

from torch import Tensor


class RecordingTracker:
    """`rows` holds (step, metrics) in the order they came, `pictures` (name, step, picture), `notes` texts,
    `devices` what was computed on."""

    def __init__(self) -> None:
        self.rows: list[tuple[int, dict[str, float]]] = []
        self.pictures: list[tuple[str, int, Tensor]] = []
        self.notes: list[str] = []
        self.devices: list[tuple[str, str, int]] = []

    def params(self, values: dict[str, Any]) -> None:
        pass

    def hardware(self, device: str, dtype: str, devices: int) -> None:
        self.devices.append((device, dtype, devices))

    def metrics(self, values: dict[str, float], step: int) -> None:
        self.rows.append((step, values))

    def picture(self, name: str, image: Tensor, step: int) -> None:
        self.pictures.append((name, step, image))

    def artifact(self, path: Path, name: str) -> None:
        pass

    def note(self, text: str) -> None:
        self.notes.append(text)

    def series(self, name: str) -> list[tuple[int, float]]:
        """(step, value) of one metric."""
        return [(step, values[name]) for step, values in self.rows if name in values]
