"""`make benchmark-scale`: the training stages at the paper's counts of data, from their start to each step.

    python -m benchmarks.scale FOLDER                a 64th of the counts, and a quarter of that
    python -m benchmarks.scale FOLDER --share 1      all of them: 220 GB, hours

FOLDER keeps what was built, so a second call only measures. For each stage with the laptop's models: seconds and memory
from the start of the program to the end of the first step; the same after the run was ended midway; a step
against the same step on pictures that are in memory; the closing validation. What does not grow between the two counts
does not grow with the count. Prints a table and writes reports/benchmarks/scale.json as `benchmarks.main` does.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from benchmarks.main import BASE, PHOTOS, ROOT, BenchmarkRow, publish
from benchmarks.scale_corpus import Corpus, build, seeded_adapters
from benchmarks.scale_load import STAGES
from components.command_line import PATH, Command, Number, Option, run
from components.data.ingest import IngestSettings, build_manifest

RESULT = ROOT / "reports" / "benchmarks" / "scale.json"
APART = 4
"""How many times as many samples the larger of the two corpora has."""
_STEPS, _ENDED_AT = 8, 5
_FIRST_STEP, _EXTRA, _STEP, _ALIKE = 60.0, 1e9, 1.05, 1.1  # seconds, bytes, ratio, ratio


def measure(name: str, corpus: Path, steps: int = _STEPS) -> dict[str, float]:
    """What a stage takes on a corpus; "restart" is the first step after it was ended in the middle."""
    with tempfile.TemporaryDirectory() as work:

        def once(folder: str, *options: str) -> dict[str, float]:
            command = [sys.executable, "-m", "benchmarks.scale_load", name, str(corpus), str(Path(work) / folder)]
            done = subprocess.run(
                [*command, "--steps", str(steps), *options], cwd=ROOT, stdout=subprocess.PIPE, check=True, text=True
            )
            return json.loads(done.stdout.splitlines()[-1])

        found = once("whole")
        once("ended", "--end-after", str(_ENDED_AT))
        return found | {"restart": once("ended", "--only-start")["first_step"]}


def rows_of(name: str, few: dict[str, float], many: dict[str, float], counts: tuple[int, int]) -> list[BenchmarkRow]:
    """The figures of a stage: of the larger corpus, with those of the smaller one beside them."""
    what = f"{name}, {counts[1]:,} samples"

    def row(of: str, key: str, unit: str, target: str, ok: bool, scale: float = 1.0) -> BenchmarkRow:
        value, peer = many[key] / scale, few[key] / scale
        name = f"{what}: {of} (beside it: {counts[0]:,})"
        return BenchmarkRow(name=name, value=value, unit=unit, peer=peer, ratio=value / peer, target=target, ok=ok)

    alike = many["step"] <= _ALIKE * few["step"]
    within = many["first_step"] <= _FIRST_STEP
    memory = many["peak_bytes"] - few["peak_bytes"] <= _EXTRA
    no_slower = many["restart"] <= _ALIKE * many["first_step"]
    ratio = many["step"] / many["step_in_memory"]
    return [
        row("start to first step", "first_step", "s", f"<= {_FIRST_STEP:g} s", within),
        row("the same after an end in the middle", "restart", "s", "no slower than the first start", no_slower),
        row("peak memory until then", "peak_bytes", "GB", "at most 1 GB more", memory, 1e9),
        row("a step", "step", "s", f"ratio <= {_ALIKE:g}", alike),
        BenchmarkRow(
            name=f"{what}: a step against pictures in memory",
            value=many["step"],
            unit="s",
            peer=many["step_in_memory"],
            ratio=ratio,
            target=f"ratio <= {_STEP:g}",
            ok=ratio <= _STEP,
        ),
        row("closing validation", "validation", "s", "for information", True),
    ]


def corpora(folder: Path, share: float) -> tuple[Corpus, Corpus]:
    """The smaller and the larger corpus, built where they are missing."""
    with tempfile.TemporaryDirectory() as scratch:
        manifest = build_manifest(PHOTOS, PHOTOS / "ATTRIBUTION.csv", Path(scratch), IngestSettings())
        made = []
        for part in (share / APART, share):
            of_share = folder / f"share-{part:g}"
            made.append(build(of_share, part, manifest, PHOTOS))
            if not (of_share / "artist").is_dir():
                seeded_adapters(BASE, of_share)
    return made[0], made[1]


_PARAMETERS: list[click.Parameter] = [
    click.Argument(["folder"], type=PATH, help="Where the corpora are kept."),
    Option(["--share"], type=Number(float), default=1 / 64, help="Of the paper's counts."),
    Option(["--stage"], type=click.Choice(STAGES), multiple=True, help="Measure this one; repeatable; all by default."),
    Option(["--out"], type=PATH, default=RESULT, help="File to write the rows to."),
]


@click.command(cls=Command, params=_PARAMETERS)
def main(folder: Path, share: float, stage: tuple[str, ...], out: Path) -> int:
    """Build what is missing, measure, print and write the figures."""
    few, many = corpora(folder, share)
    rows: list[BenchmarkRow] = []
    for name in stage or STAGES:
        found: list[dict[str, Any]] = [measure(name, corpus.annotations.parent) for corpus in (few, many)]
        of = "views" if name == "train_critic" else "of_pairs"
        rows += rows_of(name, found[0], found[1], (getattr(few, of), getattr(many, of)))
    publish(rows, out, Console())
    return 0


if __name__ == "__main__":
    sys.exit(run(main, program="python -m benchmarks.scale"))
