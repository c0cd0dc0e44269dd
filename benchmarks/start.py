"""`make benchmark-start`: what commands take from their start to their end, beside the bare import of torch.

    python -m benchmarks.start                    all of it, with the champion
    python -m benchmarks.start --no-pipeline      without the pipeline, whose first run takes minutes
    python -m benchmarks.start --model DIR        with the package in a directory

Each command is a process of its own that is started several times, after a first time that does not count: files are
in the system's memory then, nothing of the process is. Seconds are wall time, peak memory is that of the largest
process. `import torch` is the floor: whoever uses a model waits for it.

Prints a table and writes reports/benchmarks/start.json: {"rows": [{name, value, unit, peer, ratio, target, ok}]}.
"""

import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import click
from PIL import Image
from rich.console import Console

from benchmarks.main import PHOTOS, ROOT, BenchmarkRow, publish
from components.command_line import PATH, Command, Number, Option, run
from components.inference.arguments import CHAMPION

RESULT = ROOT / "reports" / "benchmarks" / "start.json"
COMMAND = [sys.executable, "-m", "pipelines"]
IMPORTS = """
from components import quick_start

quick_start.own_process()
quick_start.begin()
import components.inference.workflow

raise SystemExit(quick_start.end(0))
"""
"""The imports of an enhanced photo, and nothing else."""
_LAUNCHER = """
import json, os, subprocess, sys, time
began = time.perf_counter()
process = subprocess.Popen(sys.argv[1:])
_, status, usage = os.wait4(process.pid, 0)
seconds = time.perf_counter() - began
cost = seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024
print(json.dumps([os.waitstatus_to_exitcode(status), *cost]))
"""
"""A small process to start the command from: a child's peak counts the memory of the one that it was forked from."""
_LONGER_SIDE = 640


class Cost(NamedTuple):
    """What a process took, or the medians of several."""

    seconds: float
    cpu_seconds: float
    peak_bytes: float


def run_once(command: Sequence[str]) -> tuple[Cost, str]:
    """Run a command to its end in the repository's root; returns what it took and what it printed.

    Raises:
        subprocess.CalledProcessError: it failed; what it said is on the terminal.
    """
    launch = [sys.executable, "-S", "-c", _LAUNCHER, *command]
    done = subprocess.run(launch, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=True)
    text, _, figures = done.stdout.rstrip().rpartition("\n")
    status, *cost = json.loads(figures)
    if status:
        print(text, file=sys.stderr)
        raise subprocess.CalledProcessError(status, command)
    return Cost(*cost), text


def measure(command: Sequence[str], repeats: int) -> Cost:
    """Medians over ``repeats`` runs after one that does not count. Raises as `run_once`."""
    run_once(command)
    costs = [run_once(command)[0] for _ in range(repeats)]
    return Cost(*map(statistics.median, zip(*costs, strict=True)))


def measure_cached_pipeline(repeats: int) -> Cost:
    """Medians of the pipeline with every step from the cache; a first run does what is not there yet.

    Raises:
        RuntimeError: a step was run although nothing had changed.
        subprocess.CalledProcessError: the pipeline failed.
    """
    command = [sys.executable, "-m", "pipelines", "run"]
    run_once(command)
    costs = []
    for _ in range(repeats):
        cost, text = run_once(command)
        if "Step `" in text.replace("Using cached version of step `", ""):
            raise RuntimeError(f"not every step came from the cache:\n{text}")
        costs.append(cost)
    return Cost(*map(statistics.median, zip(*costs, strict=True)))


def rows(told: Cost, torch: Cost, imports: Cost, enhanced: Cost, pipeline: Cost | None) -> list[BenchmarkRow]:
    """The promised figures; the floor, `import torch`, is their peer.

    Args:
        told: `smartphotocrafter --help`.
        torch: `import torch`.
        imports: all imports of an enhanced photo.
        enhanced: one small photo enhanced.
        pipeline: the pipeline from the cache, or None where it was left out.
    """
    share = imports.cpu_seconds / enhanced.cpu_seconds
    found = [
        _row("start: smartphotocrafter --help", told.seconds, "s", 0.07, None),
        _row("start: one small photo enhanced", enhanced.seconds, "s", 3.5, torch.seconds),
        _row("start: one small photo enhanced, processor time", enhanced.cpu_seconds, "s", None, torch.cpu_seconds),
        _row("start: one small photo enhanced, peak", enhanced.peak_bytes / 1e6, "MB", 800, torch.peak_bytes / 1e6),
        _row("start: one small photo enhanced, share of imports in it", 100 * share, "%", None, None),
    ]
    if pipeline is not None:
        found.append(_row("start: pipeline, every step from the cache", pipeline.seconds, "s", 10, None))
    return found


_PARAMETERS: list[click.Parameter] = [
    Option(["--model"], default=CHAMPION, metavar="DIR", help="Folder of the package to enhance with."),
    Option(["--pipeline/--no-pipeline"], default=True, help="With the pipeline, whose first run is long, or not."),
    Option(["--repeats"], type=Number(int, 1), default=5, help="How often each command is run."),
    Option(["--out"], type=PATH, default=RESULT, help="File to write the rows to."),
]


@click.command(cls=Command, params=_PARAMETERS)
def main(model: str, pipeline: bool, repeats: int, out: Path) -> int:
    """Measure what commands take from start to end, print and write the figures."""
    console = Console()
    try:
        with tempfile.TemporaryDirectory(prefix="spc-benchmark-") as folder:
            source = Path(folder) / "in.jpg"
            with Image.open(next(iter(sorted(PHOTOS.glob("*.jpg"))))) as photo:
                photo.thumbnail((_LONGER_SIDE, _LONGER_SIDE))
                photo.save(source, quality=92)
            enhance = ["enhance", str(source), f"{folder}/out.jpg", "--overwrite", "--model", model]
            costs = {
                what: measure(command, repeats)
                for what, command in {
                    "told": [*COMMAND, "--help"],
                    "torch": [sys.executable, "-c", "import torch"],
                    "imports": [sys.executable, "-c", IMPORTS],
                    "enhanced": [*COMMAND, *enhance],
                }.items()
            }
        cached = measure_cached_pipeline(repeats) if pipeline else None
    except subprocess.CalledProcessError as error:
        console.print(f"[red]{' '.join(map(str, error.cmd))} failed with status {error.returncode}[/]")
        return 1
    publish(rows(**costs, pipeline=cached), out, console)
    return 0


def _row(name: str, value: float, unit: str, most: float | None, peer: float | None) -> BenchmarkRow:
    return BenchmarkRow(
        name=name,
        value=value,
        unit=unit,
        peer=peer,
        ratio=value / peer if peer else None,
        target="" if most is None else f"<= {most:g} {unit}",
        ok=most is None or value <= most,
    )


if __name__ == "__main__":
    sys.exit(run(main, program="python -m benchmarks.start"))
