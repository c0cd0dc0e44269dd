"""`make benchmark-serving`: the real server with a real package under load, on the loopback address.

    python -m benchmarks.serving --package .spc/champion --requests 1000

Eight requests at once keep the server busy without filling its queue; then eight times as many arrive as it takes. The
second is done again by wrk (the Debian package of that name), where it is installed: a client that others wrote, and
one that never waits. Then the memory of the server is compared with that before.

Prints a table and writes reports/benchmarks/serving.json in the form of benchmarks/main.py. A figure
that misses its target is shown as such and is no error.
"""

import collections
import io
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import click
import httpx
import numpy as np
import psutil
from PIL import Image
from rich.console import Console
from tqdm import tqdm

from benchmarks.main import ROOT, BenchmarkRow, publish
from components.command_line import PATH, Command, Number, Option, run

RESULT = ROOT / "reports" / "benchmarks" / "serving.json"
_WAITING = 8
_WARM_UP = 30  # requests until caches and pools have their size
_HEADERS = {"Content-Type": "image/jpeg"}
_WRK_SCRIPT = Path(__file__).with_name("wrk.lua")


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
    command = [sys.executable, "-m", "pipelines", "serve", "--package", str(package), "--port", str(port)]
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


def apply_wrk(address: str, photo: bytes, seconds: int, at_once: int) -> Load | None:
    """Send pictures for some seconds over ``at_once`` connections with wrk; None where it is not installed."""
    if (wrk := shutil.which("wrk")) is None:
        return None
    with tempfile.TemporaryDirectory(prefix="spc-") as folder:
        file = Path(folder) / "photo.jpg"
        file.write_bytes(photo)
        options = ["--threads", "1", "--connections", str(at_once), "--duration", f"{seconds}s", "--timeout", "300s"]
        command = [wrk, *options, "--script", str(_WRK_SCRIPT), f"{address}/enhance", "--", str(file)]
        done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    counted = json.loads(done.stdout.splitlines()[-1])
    statuses = collections.Counter({int(status): count for status, count in counted["statuses"].items()})
    return Load(statuses, counted["seconds"], [])


def rows_of(
    within: Load, beyond: Load, memory_before: int, memory_after: int, by_wrk: Load | None = None
) -> list[BenchmarkRow]:
    """The figures: errors up to saturation and beyond it, speed, and memory."""
    failures = sum(count for status, count in within.statuses.items() if status != 200)
    growth = (memory_after - memory_before) / 2**20
    requests = within.statuses.total()
    total = sum(load.statuses.total() for load in (within, beyond, by_wrk) if load)
    latency = statistics.median(within.latencies) if within.latencies else 0.0
    return [
        _row(f"serving: errors up to saturation, {requests} requests", failures, "", "0", failures == 0),
        _beyond("beyond saturation", beyond),
        *(
            [_beyond(f"{by_wrk.statuses.total() / by_wrk.seconds:.0f} requests per second by wrk", by_wrk)]
            if by_wrk
            else []
        ),
        _row("serving: photos per second", len(within.latencies) / within.seconds, "1/s", "", True),
        _row(f"serving: median latency, {_WAITING} at once", latency, "s", "", True),
        BenchmarkRow(
            name=f"serving: memory grown over {total} requests",
            value=growth,
            unit="MiB",
            peer=memory_before / 2**20,
            ratio=growth / (memory_before / 2**20),
            target="ratio <= 0.05",
            ok=growth <= 0.05 * memory_before / 2**20,
        ),
    ]


_PARAMETERS: list[click.Parameter] = [
    Option(["--package"], type=PATH, default=ROOT / ".spc" / "champion", help="Folder of the package to serve."),
    Option(["--requests"], type=Number(int, 1), default=1000, help="Number of requests of each load."),
    Option(["--wrk-seconds"], type=Number(int, 1), default=20, help="Duration of the load by wrk, in seconds."),
    Option(["--out"], type=PATH, default=RESULT, help="File to write the rows to."),
]


@click.command(cls=Command, params=_PARAMETERS)
def main(package: Path, requests: int, wrk_seconds: int, out: Path) -> int:
    """Measure, print and write the figures; 1 when the server could not be started."""
    photo, console = _photo(), Console()
    try:
        with served(package) as (address, process):
            apply_load(address, photo, _WARM_UP, _WAITING, "warm-up")
            before = process.memory_info().rss
            within = apply_load(address, photo, requests, _WAITING, "up to saturation")
            beyond = apply_load(address, photo, requests, 8 * _WAITING, "beyond saturation")
            by_wrk = apply_wrk(address, photo, wrk_seconds, 8 * _WAITING)
            after = process.memory_info().rss
    except RuntimeError as error:
        console.print(f"[red]{error}[/]")
        return 1
    publish(rows_of(within, beyond, before, after, by_wrk), out, console)
    return 0


def _photo() -> bytes:
    """A JPEG of 640x480 pixels with smooth colours and noise, the same every time."""
    rows, columns = np.mgrid[0:480, 0:640]
    colours = np.stack([columns / 3, rows / 2, 255 - columns / 3], axis=-1)
    noise = np.random.default_rng(0).normal(0, 12, colours.shape)
    stream = io.BytesIO()
    Image.fromarray((colours + noise).clip(0, 255).astype(np.uint8)).save(stream, "JPEG", quality=92)
    return stream.getvalue()


def _beyond(what: str, load: Load) -> BenchmarkRow:
    """Of a load that is more than the server takes on: what was neither served nor turned away."""
    odd = sum(count for status, count in load.statuses.items() if status not in (200, 429))
    name = f"serving: {what}, neither 200 nor 429 ({load.statuses[200]} and {load.statuses[429]})"
    return _row(name, odd, "", "0", odd == 0)


def _row(name: str, value: float, unit: str, target: str, ok: bool) -> BenchmarkRow:
    return BenchmarkRow(name=name, value=float(value), unit=unit, peer=None, ratio=None, target=target, ok=ok)


if __name__ == "__main__":
    sys.exit(run(main, program="python -m benchmarks.serving"))
