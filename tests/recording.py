"""A tracker that remembers what a stage reported."""

from pathlib import Path
from typing import Any

from torch import Tensor


class RecordingTracker:
    """`rows` holds (step, metrics) in the order they came, `pictures` (name, step, picture), `notes` texts."""

    def __init__(self) -> None:
        self.rows: list[tuple[int, dict[str, float]]] = []
        self.pictures: list[tuple[str, int, Tensor]] = []
        self.notes: list[str] = []

    def params(self, values: dict[str, Any]) -> None:
        pass

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
