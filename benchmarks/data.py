"""`make benchmark-data`: what the data layer promises, each figure beside its peer in one run.

    python -m benchmarks.data                       everything
    python -m benchmarks.data manifest shards       these sections only

Prints a table and writes reports/benchmarks/data.json in the format of `benchmarks.main`. A figure that
misses its target is shown as such and is no error. `SECTIONS` is the list: a new section is one function that takes a
folder to work in and gives rows.
"""

import hashlib
import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib.util import find_spec
from itertools import cycle, islice
from pathlib import Path

import click
import imagehash
import numpy as np
from PIL import Image
from rich.console import Console
from tqdm import tqdm

from benchmarks.main import ROOT, BenchmarkRow, publish, section_parameters
from components.command_line import Command, CommandError, run
from components.data.building import BuildSettings, build
from components.data.facts import read_facts
from components.data.shards import Sample, ShardSet, write_index, write_shard
from components.data.sources.base import open_source
from components.data.streaming import ShardStream
from components.imaging.photo import MAX_PIXELS, read_header

RESULT = ROOT / "reports" / "benchmarks" / "data.json"
PHOTOS = ROOT / "data" / "photos"
_CORPUS = 960  # photos of about a megapixel
_REPEATS = 3
_RECORDS = 200_000
_SHARD = 40  # photos a shard
_PEERS = ("kornia", "albumentations")
_INSTALL = "run .venv/bin/pip install -c requirements.lock -e '.[benchmark]'"


def manifest_rows(work: Path) -> list[BenchmarkRow]:
    """Building a manifest against reading the same files with nothing around it, on as many threads."""
    photos = write_corpus(work / "photos", _CORPUS)
    workers = os.cpu_count() or 1
    paths = sorted(photos.iterdir())
    source = open_source("single_folder", photos)

    def built(facts: Path | None = None) -> float:
        out = Path(tempfile.mkdtemp(dir=work))
        return _seconds(partial(build, [source], out, BuildSettings(workers=workers), photos_dir=photos, facts=facts))

    def bare(read: Callable[[Path], object]) -> float:
        with ThreadPoolExecutor(workers) as pool:
            return _seconds(lambda: list(pool.map(read, paths)))

    ways = {
        "build": built,
        "facts": partial(bare, partial(read_facts, max_pixels=MAX_PIXELS)),
        "plain": partial(bare, _hash_as_people_do),
        "header": partial(bare, _hash_without_looking),
    }
    took = _interleaved(ways)
    rate = {name: len(paths) / seconds for name, seconds in took.items()}
    first, again = built(work / "facts.sqlite"), built(work / "facts.sqlite")
    return [
        _against("manifest: building against hashing and header reading alone", rate["build"], rate["facts"], 0.8),
        _against("manifest: building against hashlib, Pillow and ImageHash alone", rate["build"], rate["plain"], 0.8),
        BenchmarkRow(
            name="manifest: building (decodes for the perceptual hash) against SHA-256 and headers without it",
            value=rate["build"],
            unit="photos/s",
            peer=rate["header"],
            ratio=rate["build"] / rate["header"],
            target="for information",
            ok=True,
        ),
        BenchmarkRow(
            name="manifest: second build, nothing changed",
            value=again,
            unit="s",
            peer=first,
            ratio=again / first,
            target="for information",
            ok=True,
        ),
    ]


def validation_rows(work: Path) -> list[BenchmarkRow]:
    """Peak memory and time of validating a large manifest, Data Docs included, in a process of its own."""
    folder = work / "validation"
    command = [sys.executable, "-m", "benchmarks.validation_load", str(folder), str(_RECORDS)]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True, text=True)
    found = json.loads(done.stdout.splitlines()[-1])
    if not found["success"]:
        raise RuntimeError(f"the synthetic manifest is not valid: {'; '.join(found['failures'])}")
    peak = found["peak_bytes"] / 1e9
    name = f"validation: {_RECORDS:,} records,"
    return [
        BenchmarkRow(
            name=f"{name} peak memory", value=peak, unit="GB", peer=None, ratio=None, target="<= 1 GB", ok=peak <= 1
        ),
        BenchmarkRow(
            name=f"{name} time",
            value=found["seconds"],
            unit="s",
            peer=None,
            ratio=None,
            target="for information",
            ok=True,
        ),
    ]


def shard_rows(work: Path) -> list[BenchmarkRow]:
    """Reading JPEGs out of shards, shuffled, against decoding the same ones from memory in the same thread."""
    photos = sorted(write_corpus(work / "photos", _CORPUS).iterdir())
    folder = work / "shards"
    names = [f"photos-{start:05d}.tar" for start in range(0, len(photos), _SHARD)]
    for name, start in zip(names, range(0, len(photos), _SHARD), strict=True):
        group = photos[start : start + _SHARD]
        write_shard(folder / name, ((path.stem, {"jpg": path.read_bytes()}) for path in group), "benchmark")
    write_index(folder, names)
    stream = ShardStream(ShardSet(folder), _decoded)
    contents = [path.read_bytes() for path in photos]
    ways = {
        "shards": lambda: _seconds(lambda: sum(picture.size > 0 for picture in stream)),
        "memory": lambda: _seconds(lambda: sum(_decode(content).size > 0 for content in contents)),
    }
    took = _interleaved(ways)
    rate = {name: len(photos) / seconds for name, seconds in took.items()}
    return [_against("shards: reading against decoding the same JPEGs alone", rate["shards"], rate["memory"], 0.9)]


def annotation_rows(work: Path) -> list[BenchmarkRow]:
    """Annotation killed at ten random moments."""
    from benchmarks.annotation import measure_kills  # starts servers; only where it is asked for

    return measure_kills()


def synthesis_rows(work: Path) -> list[BenchmarkRow]:
    """Pair synthesis against kornia and albumentations."""
    from benchmarks.synthesis import synthesis_rows as measured  # needs the packages of the extra

    return measured(PHOTOS)


SECTIONS: dict[str, Callable[[Path], list[BenchmarkRow]]] = {
    "manifest": manifest_rows,
    "validation": validation_rows,
    "shards": shard_rows,
    "synthesis": synthesis_rows,
    "annotation": annotation_rows,
}
"""Sections by name, in the order of the table."""


def write_corpus(folder: Path, count: int) -> Path:
    """``count`` different JPEGs of about a megapixel, made of the sample photos; kept when they are already there."""
    if folder.is_dir():
        return folder
    folder.mkdir(parents=True)
    sources = cycle(sorted(PHOTOS.glob("*.jpg")))
    for number, path in enumerate(tqdm(islice(sources, count), total=count, desc="benchmark photos", unit="photo")):
        with Image.open(path) as image:
            scale = (1e6 / (image.width * image.height)) ** 0.5
            size = (round(image.width * scale), round(image.height * scale))
            image.convert("RGB").resize(size).save(folder / f"{number:05d}.jpg", quality=80 + number % 16)
    return folder


@click.command(cls=Command, params=section_parameters(SECTIONS, RESULT))
def main(sections: tuple[str, ...], out: Path) -> int:
    """Measure the sections that are asked for, print and write the figures."""
    console = Console()
    chosen = list(sections or SECTIONS)
    if "synthesis" in chosen and (missing := [peer for peer in _PEERS if find_spec(peer) is None]):
        problem = f"synthesis is compared with {' and '.join(_PEERS)}; not installed: {', '.join(missing)}; {_INSTALL}"
        if sections:
            raise CommandError(problem)
        console.print(f"[yellow]{problem}; left out[/]")
        chosen.remove("synthesis")
    rows: list[BenchmarkRow] = []
    with tempfile.TemporaryDirectory(prefix="spc-benchmark-data-") as work:
        for name in chosen:
            console.print(f"{name} ...")
            rows += SECTIONS[name](Path(work))
    publish(rows, out, console)
    return 0


def _interleaved(ways: dict[str, Callable[[], float]]) -> dict[str, float]:
    """Median seconds of each way, taken in turns, so that a slow moment of the machine falls on all; warmed up once."""
    for way in ways.values():
        way()
    times = [{name: way() for name, way in ways.items()} for _ in range(_REPEATS)]
    return {name: statistics.median(time[name] for time in times) for name in ways}


def _seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def _against(name: str, value: float, peer: float, least: float) -> BenchmarkRow:
    ratio = value / peer
    target = f"ratio >= {least:g}"
    return BenchmarkRow(
        name=name, value=value, unit="photos/s", peer=peer, ratio=ratio, target=target, ok=ratio >= least
    )


def _hash_as_people_do(path: Path) -> tuple[str, str, tuple[int, int]]:
    """Both hashes and the size with the usual libraries."""
    with Image.open(path) as image:
        return hashlib.sha256(path.read_bytes()).hexdigest(), str(imagehash.phash(image)), image.size


def _hash_without_looking(path: Path) -> tuple[str, int]:
    """SHA-256 and header; the picture is not decoded."""
    return hashlib.sha256(path.read_bytes()).hexdigest(), read_header(path).width


def _decode(content: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(content)))


def _decoded(sample: Sample) -> np.ndarray:
    return _decode(sample["jpg"])


if __name__ == "__main__":
    sys.exit(run(main, program="python -m benchmarks.data"))
