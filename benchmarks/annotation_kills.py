"""A trial of annotation: kill -9 at random moments, start again, and count what was asked and what was recorded.

The process under trial is the real one: `components.annotation.annotations.annotate` with the client and its journal,
over HTTP, on photos that are read from files. The server counts on its side, so that nothing rests on the journal's
word.
"""

import hashlib
import io
import json
import multiprocessing
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from benchmarks.chat_loopback import ChatRequest, LoopbackServer
from components.annotation.annotations import AnnotationSettings, annotate
from components.annotation.client import NAME_LENGTH, ClientSettings, OpenAICompatibleAnnotator
from components.annotation.records import read_annotations
from components.data.records import Manifest, PhotoRecord, read_manifest, write_manifest
from components.verdict.grammar import Verdict, render, suggest

_ANSWER_SECONDS = (0.02, 0.08)
_SIZE = (40, 32)
_PATIENCE = 600.0
"""Seconds without progress after which a trial is given up; a busy machine may take minutes to import the libraries."""


class KillTrial(NamedTuple):
    """What a trial found. Each photo is annotated exactly once when ``once`` equals ``photos``."""

    photos: int
    kills: int
    """Processes that were killed while they worked."""
    once: int
    """Photos with exactly one line in the journal, one annotation, and in both the score that the server gave."""
    asked_again: int
    """Requests about a photo whose answer was in the journal when the asking process started."""
    lost: int
    """Answers that were in the journal at a kill and not at the end."""
    requests: int
    """That the server received."""
    in_flight: int
    """Most requests that kills can have cut off: kills times concurrency."""
    moments: tuple[int, ...]
    """Answers in the journal at each kill."""


def run_kill_trial(folder: Path, photos: int, kills: int, seed: int, concurrency: int = 4) -> KillTrial:
    """Annotate synthetic photos in a process that is killed at random moments, then let it finish.

    A moment is a random number of requests, counted by the server from the start of the process, and a random time
    after that; so kills fall while the process starts, while requests are in flight and while answers are recorded.

    Args:
        folder: an empty one, for photos, manifest, journal and results.
        photos: at least 4 for each kill, so that there is work left to be killed at.
        kills: how often.
        seed: of the photos and the moments.

    Raises:
        RuntimeError: the process under trial ended by itself with an error.
        TimeoutError: it made no progress for minutes.
    """
    if photos < 4 * kills:
        raise ValueError(f"expected at least {4 * kills} photos for {kills} kills, found {photos}")
    _write_photos(folder, photos, seed)
    moments = random.Random(seed)
    delays = random.Random(seed + 1)

    def write(request: ChatRequest) -> str:
        time.sleep(delays.uniform(*_ANSWER_SECONDS))
        return render(Verdict(reasoning=("fine",) * 5, suggestions=(suggest("exposure", 0.5),), score=_score(request)))

    journal = folder / "journal.jsonl"
    killed, asked_again, recorded = [], 0, set()
    seen: set[str] = set()
    with LoopbackServer(write).running() as server:
        for left in range(kills, 0, -1):
            start = len(server.requests)
            wanted = moments.randrange(max(1, int(1.6 * (photos - len(recorded)) / (left + 1))))
            with _annotating(folder, server.base_url, concurrency) as process:
                _wait(process, lambda: len(server.requests) >= start + wanted)  # noqa: B023 (used in this turn only)
                time.sleep(moments.uniform(0, 2 * _ANSWER_SECONDS[1]))
                process.kill()
                process.join()
            if process.exitcode == -signal.SIGKILL:
                killed.append(len(_recorded(journal)))
            asked_again += _asked_about(server, start, recorded)
            recorded = set(_recorded(journal))
            seen |= recorded
        start = len(server.requests)
        with _annotating(folder, server.base_url, concurrency) as process:
            _wait(process, lambda: not process.is_alive())
        asked_again += _asked_about(server, start, recorded)
    lines = _recorded(journal)
    return KillTrial(
        photos=photos,
        kills=len(killed),
        once=_annotated_once(folder, photos),
        asked_again=asked_again,
        lost=len(seen - set(lines)),
        requests=len(server.requests),
        in_flight=len(killed) * concurrency,
        moments=tuple(killed),
    )


def annotate_folder(folder: Path, base_url: str, concurrency: int) -> None:
    """What the process under trial does; its errors and its progress go to `process.log`."""
    with (folder / "process.log").open("a", encoding="utf-8") as log:
        sys.stderr = log
        client = ClientSettings(base_url=base_url, model="loopback", concurrency=concurrency, structured="never")
        settings = AnnotationSettings(annotator="openai", short_side=min(_SIZE), faulty_views=0, client=client)
        annotator = OpenAICompatibleAnnotator(client, folder / "journal.jsonl")
        annotate(read_manifest(folder / "manifest"), folder / "photos", folder / "out", settings, annotator)


@contextmanager
def _annotating(folder: Path, base_url: str, concurrency: int) -> Iterator[BaseProcess]:
    """A new process at work, which is gone when the block ends.

    It is forked from a server process that has imported the libraries, so that a kill costs milliseconds, not the
    seconds of importing torch; it is a process of its own all the same.
    """
    context = multiprocessing.get_context("forkserver")
    started = getattr(sys.modules["__main__"], "__spec__", None)  # each process imports the program's module as well
    context.set_forkserver_preload([__name__, *([started.name] if started else [])])
    process = context.Process(target=annotate_folder, args=(folder, base_url, concurrency))
    process.start()
    try:
        yield process
    finally:
        if process.is_alive():
            process.kill()
        process.join()
    if process.exitcode not in (0, -signal.SIGKILL):
        raise RuntimeError(f"the annotating process ended with {process.exitcode}: see {folder / 'process.log'}")


def _wait(process: BaseProcess, reached: Callable[[], bool]) -> None:
    """Until ``reached`` or the process has ended."""
    deadline = time.monotonic() + _PATIENCE
    while process.is_alive() and not reached():
        if time.monotonic() > deadline:
            raise TimeoutError(f"the annotating process (pid {process.pid}) made no progress in {_PATIENCE:.0f} s")
        time.sleep(0.002)


def _recorded(journal: Path) -> list[str]:
    """Keys of the complete lines, in order."""
    content = journal.read_bytes() if journal.exists() else b""
    return [json.loads(line)["key"] for line in content.splitlines(keepends=True) if line.endswith(b"\n")]


def _asked_about(server: LoopbackServer, start: int, recorded: set[str]) -> int:
    """Requests from number ``start`` on that ask for an answer which was recorded."""
    names = {key[:NAME_LENGTH] for key in recorded}
    return sum(request.name in names for request in server.requests[start:])


def _annotated_once(folder: Path, photos: int) -> int:
    journal = [json.loads(line) for line in (folder / "journal.jsonl").read_text("utf-8").splitlines()]
    lines = Counter(entry["id"] for entry in journal)
    scores = {entry["id"]: _score_of(entry["key"]) for entry in journal}
    annotations = read_annotations(folder / "out")
    entries = Counter(entry.id for entry in annotations)
    right = {entry.id for entry in annotations if entry.score == scores[entry.id]}
    wanted = (f"{_name(index)}#00" for index in range(photos))
    return sum(lines[name] == 1 and entries[name] == 1 and name in right for name in wanted)


def _score(request: ChatRequest) -> float:
    return _score_of(request.name)


def _score_of(key: str) -> float:
    """A score that tells photos apart, from the key of the question."""
    return float(int(key[:NAME_LENGTH], 16) % 101)


def _name(index: int) -> str:
    return f"trial/{index:06d}.jpg"


def _write_photos(folder: Path, count: int, seed: int) -> None:
    """Different small JPEGs and their manifest."""
    random_levels = np.random.default_rng(seed)
    (folder / "photos" / "trial").mkdir(parents=True)
    records = []
    for index in range(count):
        levels = random_levels.integers(0, 256, (4, 5, 3), dtype=np.uint8)
        stream = io.BytesIO()
        Image.fromarray(levels).resize(_SIZE, Image.Resampling.BICUBIC).save(stream, "JPEG", quality=95)
        (folder / "photos" / _name(index)).write_bytes(stream.getvalue())
        records.append(
            PhotoRecord(
                id=_name(index),
                path=_name(index),
                sha256=hashlib.sha256(stream.getvalue()).hexdigest(),
                perceptual_hash=f"{index:016x}",
                width=_SIZE[0],
                height=_SIZE[1],
                bit_depth=8,
                mode="RGB",
                dataset="trial",
                split="train",
                licence="CC0-1.0",
            )
        )
    write_manifest(Manifest.of(records), folder / "manifest")
