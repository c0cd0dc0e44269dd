"""Hundreds of hostile files, none of which may crash, hang, take much memory or write where it should not."""

import json
import queue
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.hostile_files import crafted, damaged, sound_files

ROOT = Path(__file__).resolve().parents[1]
SECONDS = 60
"""For one file; a thousand times what a sound one takes, because test machines are busy."""
MOST_GROWTH = 300_000_000
"""Bytes beyond the imports: 4 megapixels may be held as samples, decoded and encoded."""


class Worker:
    """The process of hostile_worker.py; ends with the test that made it."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.hostile_worker"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self.answers: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._listen, daemon=True).start()
        self.base = self._answer(300)["peak"]

    def ask(self, source: Path, out: Path) -> dict:
        self.process.stdin.write(json.dumps({"source": str(source), "out": str(out)}) + "\n")
        self.process.stdin.flush()
        return self._answer(SECONDS)

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()

    def _listen(self) -> None:
        for line in self.process.stdout:
            self.answers.put(line)
        self.answers.put("")

    def _answer(self, seconds: float) -> dict:
        try:
            line = self.answers.get(timeout=seconds)
        except queue.Empty:
            return {"result": "hang", "reason": f"no answer within {seconds} s", "peak": 0}
        if not line:
            return {"result": "crash", "reason": f"exit status {self.process.wait()}", "peak": 0}
        return json.loads(line)


@pytest.mark.slow
def test_hostile_files_do_no_harm(tmp_path: Path) -> None:
    (tmp_path / "sound").mkdir()
    (tmp_path / "hostile").mkdir()
    (tmp_path / "out").mkdir()
    sound = sound_files(tmp_path / "sound")
    hostile = {**dict(damaged(sound, seed=0)), **dict(crafted(sound))}
    assert len(hostile) > 300
    before = {path for path in tmp_path.rglob("*") if "out" not in path.relative_to(tmp_path).parts}
    worker, harm, results = Worker(), {}, {}
    growth = 0
    try:
        for name, content in {**{f"sound-{name}": content for name, content in sound.items()}, **hostile}.items():
            source = tmp_path / "hostile" / name
            source.write_bytes(content)
            before.add(source)
            answer = worker.ask(source, tmp_path / "out")
            results[name] = answer
            growth = max(growth, answer["peak"] - worker.base)
            if answer["result"] in ("crash", "hang"):
                worker.stop()
                worker = Worker()
            if answer["result"] not in ("written", "refused"):
                harm[name] = f"{answer['result']}: {answer['reason']}"
    finally:
        worker.stop()
    assert not harm, "\n".join(f"{name}: {what}" for name, what in harm.items())
    assert all(results[f"sound-{name}"]["result"] == "written" for name in sound)
    assert all(answer["reason"] for answer in results.values() if answer["result"] == "refused")
    assert sum(answer["result"] == "refused" for answer in results.values()) > 100
    assert growth < MOST_GROWTH
    after = {path for path in tmp_path.rglob("*") if "out" not in path.relative_to(tmp_path).parts}
    assert after == before
    assert all(path.suffix in (".tif", ".jpg", ".png") for path in (tmp_path / "out").iterdir())


def test_the_same_seed_gives_the_same_files(tmp_path: Path) -> None:
    sound = {"a.jpg": bytes(range(256)) * 20}
    assert list(damaged(sound, seed=1)) == list(damaged(sound, seed=1)) != list(damaged(sound, seed=2))
