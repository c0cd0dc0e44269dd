"""What a stage in other processes reports, on its way to the tracker of the process that started it.

The main rank appends events to a file, a JSON object a line, with pictures beside it; the starting process reads what
has been added and hands it on. A half-written last line is left for the next time.
"""

import json
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from components.training.tracker import Tracker

EVENTS_FILE, PICTURES_FOLDER = "events.jsonl", "pictures"


class EventWriter:
    """A `Tracker` that writes down what it is told, in a folder."""

    def __init__(self, folder: Path):
        self._folder = Path(folder)
        (self._folder / PICTURES_FOLDER).mkdir(parents=True, exist_ok=True)
        self._file = (self._folder / EVENTS_FILE).open("a", encoding="utf-8")
        self._pictures = 0

    def params(self, values: dict[str, Any]) -> None:
        self._write("params", values=values)

    def hardware(self, device: str, dtype: str, devices: int) -> None:
        self._write("hardware", device=device, dtype=dtype, devices=devices)

    def metrics(self, values: dict[str, float], step: int) -> None:
        self._write("metrics", values=values, step=step)

    def picture(self, name: str, image: Tensor, step: int) -> None:
        self._pictures += 1
        file = f"{PICTURES_FOLDER}/{self._pictures:06d}.safetensors"
        save_file({"image": image.detach().cpu().contiguous()}, self._folder / file)
        self._write("picture", name=name, file=file, step=step)

    def artifact(self, path: Path, name: str) -> None:
        self._write("artifact", path=str(Path(path).resolve()), name=name)

    def note(self, text: str) -> None:
        self._write("note", text=text)

    def _write(self, kind: str, **content: Any) -> None:
        self._file.write(json.dumps({"kind": kind, **content}) + "\n")
        self._file.flush()


class EventReader:
    """Hands what an `EventWriter` wrote to a tracker, each event once.

    Args:
        keep: leave the files of pictures, for another reader.
    """

    def __init__(self, folder: Path, tracker: Tracker, keep: bool = False):
        self._folder, self._tracker, self._keep = Path(folder), tracker, keep
        self._position = 0

    def forward(self) -> None:
        """Hand on what is new."""
        path = self._folder / EVENTS_FILE
        if not path.exists():
            return
        with path.open("rb") as file:
            file.seek(self._position)
            for line in file:
                if not line.endswith(b"\n"):
                    break
                self._hand_on(json.loads(line))
                self._position += len(line)

    def _hand_on(self, event: dict[str, Any]) -> None:
        kind = event.pop("kind")
        if kind == "picture":
            file = self._folder / event.pop("file")
            event["image"] = load_file(file)["image"]
            if not self._keep:
                file.unlink()
        elif kind == "artifact":
            event["path"] = Path(event["path"])
        getattr(self._tracker, kind)(**event)
