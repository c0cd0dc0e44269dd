"""`make benchmark-serving`: the real server with a real package under load, on the loopback address.

    python -m components.serving.benchmark --package .spc/champion --requests 1000

Prints a table and writes reports/benchmarks/serving.json in the form of components/evaluation/benchmark.py. A figure
that misses its target is shown as such and is no error.
"""

import argparse
import collections
import io
import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import httpx
import numpy as np
import psutil
from PIL import Image
from rich.console import Console
from tqdm import tqdm

from components.evaluation.benchmark import ROOT, BenchmarkRow, publish

RESULT = ROOT / "reports" / "benchmarks" / "serving.json"
_WAITING = 8
_SETTLING = 30  # requests until caches and pools have their size
_HEADERS = {"Content-Type": "image/jpeg"}


class Load(NamedTuple):
    """What a number of requests met."""

    statuses: collections.Counter[int]
    """By HTTP status; 0 for a connection that broke."""
    seconds: float
    latencies: list[float]
    """Seconds of the requests that were answered with 200."""


@contextmanager
def served(package: Path) -> Iterator[tuple[str, psutil.Process]]:
    """`make serve` in a process of its own: its address and its process.

    Raises:
        RuntimeError: it ended before it served.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "components.serving", "--package", str(package), "--port", str(port)]
    process = subprocess.Popen([*command, "--waiting", str(_WAITING)], env=os.environ | {"HF_HUB_OFFLINE": "1"})
    address = f"http://127.0.0.1:{port}"
    try:
        while True:
            try:
                httpx.get(f"{address}/health")
                break
            except httpx.TransportError as error:
                if process.poll() is not None:
                    raise RuntimeError(f"the server ended with status {process.returncode}") from error
                time.sleep(0.2)
        yield address, psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait(timeout=60)


def apply_load(address: str, photo: bytes, requests: int, at_once: int, label: str) -> Load:
    """Send ``requests`` pictures, ``at_once`` at a time."""
    statuses, latencies = collections.Counter(), []
    with httpx.Client(timeout=300, limits=httpx.Limits(max_connections=at_once)) as client:

        def send(_: int) -> None:
            began = time.monotonic()
            try:
                status = client.post(f"{address}/enhance", content=photo, headers=_HEADERS).status_code
            except httpx.TransportError:
                status = 0
            statuses[status] += 1
            if status == 200:
                latencies.append(time.monotonic() - began)

        began = time.monotonic()
        with ThreadPoolExecutor(at_once) as pool:
            for _ in tqdm(pool.map(send, range(requests)), total=requests, desc=label, unit="request"):
                pass
    return Load(statuses, time.monotonic() - began, latencies)


def rows_of(within: Load, beyond: Load, memory_before: int, memory_after: int) -> list[BenchmarkRow]:
    """The figures: errors up to saturation and beyond it, speed, and memory."""
    failures = sum(count for status, count in within.statuses.items() if status != 200)
    odd = sum(count for status, count in beyond.statuses.items() if status not in (200, 429))
    growth = (memory_after - memory_before) / 2**20
    requests = within.statuses.total()
    latency = statistics.median(within.latencies) if within.latencies else 0.0
    return [
        _row(f"serving: errors up to saturation, {requests} requests", failures, "", "0", failures == 0),
        _row(
            f"serving: beyond saturation, neither 200 nor 429 ({beyond.statuses[200]} and {beyond.statuses[429]})",
            odd,
            "",
            "0",
            odd == 0,
        ),
        _row("serving: photos a second", len(within.latencies) / within.seconds, "1/s", "", True),
        _row(f"serving: median latency, {_WAITING} at once", latency, "s", "", True),
        BenchmarkRow(
            name=f"serving: memory grown over {requests + beyond.statuses.total()} requests",
            value=growth,
            unit="MiB",
            peer=memory_before / 2**20,
            ratio=growth / (memory_before / 2**20),
            target="ratio <= 0.05",
            ok=growth <= 0.05 * memory_before / 2**20,
        ),
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print and write the figures; 1 when the server could not be started."""
    parser = argparse.ArgumentParser(prog="python -m components.serving.benchmark", description=__doc__)
    parser.add_argument("--package", type=Path, default=ROOT / ".spc" / "champion", help="default: %(default)s")
    parser.add_argument("--requests", type=int, default=1000, help="default: %(default)s")
    parser.add_argument("--out", type=Path, default=RESULT, help="default: %(default)s")
    options = parser.parse_args(arguments)
    photo, console = _photo(), Console()
    try:
        with served(options.package) as (address, process):
            apply_load(address, photo, _SETTLING, _WAITING, "settling")
            before = process.memory_info().rss
            within = apply_load(address, photo, options.requests, _WAITING, "up to saturation")
            beyond = apply_load(address, photo, options.requests, 8 * _WAITING, "beyond saturation")
            after = process.memory_info().rss
    except RuntimeError as error:
        console.print(f"[red]{error}[/]")
        return 1
    publish(rows_of(within, beyond, before, after), options.out, console)
    return 0


def _photo() -> bytes:
    """A JPEG of 640x480 pixels with smooth colours and noise, the same every time."""
    rows, columns = np.mgrid[0:480, 0:640]
    colours = np.stack([columns / 3, rows / 2, 255 - columns / 3], axis=-1)
    noise = np.random.default_rng(0).normal(0, 12, colours.shape)
    stream = io.BytesIO()
    Image.fromarray((colours + noise).clip(0, 255).astype(np.uint8)).save(stream, "JPEG", quality=92)
    return stream.getvalue()


def _row(name: str, value: float, unit: str, target: str, ok: bool) -> BenchmarkRow:
    return BenchmarkRow(name=name, value=float(value), unit=unit, peer=None, ratio=None, target=target, ok=ok)


if __name__ == "__main__":
    sys.exit(main())
