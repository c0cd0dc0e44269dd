"""`make benchmark`: run the pipeline afresh and from the cache, and hold every promised figure against its target.

    python -m benchmarks.main                 both runs in a new state folder, then all figures
    python -m benchmarks.main --no-pipeline   the figures of the last run only

Prints a table and writes reports/benchmarks/main.json: {"rows": [{name, value, unit, peer, ratio, target, ok}]}. A
figure that misses its target is shown as such and is no error. The new state folder is removed afterwards; the report
of its run stays in reports/latest, in the place of an earlier one.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import click
import psutil
from pydantic import Field
from rich.console import Console
from rich.table import Table

from benchmarks.stages import StageGain, compare_stages
from components import files
from components.command_line import PATH, Command, Option, run
from components.data.records import read_manifest
from components.evaluation.evaluate import evaluate_enhancer
from components.evaluation.records import Evaluation, EvaluationSettings
from components.imaging.photo import MAX_PIXELS
from components.inference.enhancer import Enhancer
from components.metrics.tables import LIBRARY, OURS, OWN, BootstrapSettings
from components.settings import load_settings
from components.strict import Strict
from components.training.tracker import NullTracker

ROOT = Path(__file__).resolve().parent.parent
BASE, PHOTOS = ROOT / "data" / "base", ROOT / "data" / "photos"
RESULT = ROOT / "reports" / "benchmarks" / "main.json"
_SAMPLE_SECONDS = 0.5


class BenchmarkRow(Strict):
    """One promised figure."""

    name: str
    value: float
    unit: str
    peer: float | None = Field(description="What it is compared with, in the same unit.")
    ratio: float | None = Field(description="value / peer.")
    target: str = Field(description='What was promised, such as "ratio <= 0.65".')
    ok: bool


_FAMILIES = {OWN: "our own faults", LIBRARY: "faults of other people's code"}
_LEFT = {OWN: 0.65, LIBRARY: 0.66}
_HARM = 1.5


class ProcessUsage(NamedTuple):
    """What a command took."""

    seconds: float
    peak_bytes: int
    """Largest sum over the command and all its descendants of the memory they hold, shared pages counted once (PSS),
    looked at twice per second."""


def evaluation_rows(evaluation: Evaluation) -> list[BenchmarkRow]:
    """Figures of the held-out evaluation: colour error and the Critic."""
    error = {row.method: row.measures["ciede2000"].value for row in evaluation.rows}
    baseline, critic = evaluation.best_baseline, evaluation.critic
    to_baseline = evaluation.ratio_to_best_baseline.value
    left = [
        BenchmarkRow(
            name=f"enhance: colour error left, {_FAMILIES[figures.family]}",
            value=figures.ratio_to_input.value,
            unit="of the input's CIEDE2000",
            peer=figures.baseline_ratio_to_input.value,
            ratio=figures.ratio_to_input.value / figures.baseline_ratio_to_input.value,
            target=f"<= {_LEFT[figures.family]:g}",
            ok=figures.ratio_to_input.value <= _LEFT[figures.family],
        )
        for figures in evaluation.families
    ]
    return [
        *left,
        BenchmarkRow(
            name="enhance: change of photos without a fault",
            value=evaluation.change_of_intact.value,
            unit="CIEDE2000",
            peer=None,
            ratio=None,
            target=f"<= {_HARM:g}",
            ok=evaluation.change_of_intact.value <= _HARM,
        ),
        BenchmarkRow(
            name=f"enhance: colour error against the best baseline ({baseline.replace('_', ' ')})",
            value=error[OURS],
            unit="CIEDE2000",
            peer=error[baseline],
            ratio=to_baseline,
            target="ratio <= 0.85",
            ok=to_baseline <= 0.85,
        ),
        _share("critic: outputs that parse", critic.parse_rate.value, 1.0),
        _share("critic: fault direction right", critic.direction_accuracy.value, 0.75),
        BenchmarkRow(
            name="critic: rank correlation of score and quality",
            value=critic.score_correlation,
            unit="Spearman",
            peer=None,
            ratio=None,
            target=">= 0.6",
            ok=critic.score_correlation >= 0.6,
        ),
    ]


def judge_in_full(manifest: Path, adapters: tuple[Path, Path], settings: EvaluationSettings) -> Evaluation:
    """The pipeline's evaluation of Critic and Artist once more, on the photos as large as they are.

    Args:
        adapters: the Critic's and the Artist's.
    """
    enhancer = Enhancer.from_parts(BASE, *adapters, placement=settings.compute.place())
    whole = settings.model_copy(update={"max_side": MAX_PIXELS})
    with tempfile.TemporaryDirectory(prefix="spc-judged-") as folder:
        photos = read_manifest(manifest)
        return evaluate_enhancer(enhancer, photos, PHOTOS, BASE, Path(folder), whole, NullTracker())


def stage_row(gain: StageGain) -> BenchmarkRow:
    """The gain of stage III; the promise is about the lower end of its interval."""
    interval = gain.gain
    return BenchmarkRow(
        name=f"stage III: r_PA against stage II (gain {interval.value:+.4f}, 95% {interval.low:+.4f} to "
        f"{interval.high:+.4f})",
        value=gain.after,
        unit="r_PA",
        peer=gain.before,
        ratio=gain.after / gain.before if gain.before else None,
        target="interval of the gain above 0",
        ok=interval.low > 0,
    )


def pipeline_rows(fresh: ProcessUsage, cached: ProcessUsage) -> list[BenchmarkRow]:
    """Time and memory of `make pipeline` in a new state folder, and of the same once more."""
    return [
        _cost("pipeline: first run", fresh.seconds, "s", 720),
        _cost("pipeline: peak memory", fresh.peak_bytes / 1e9, "GB", 4),
        BenchmarkRow(
            name="pipeline: second run, nothing changed",
            value=cached.seconds,
            unit="s",
            peer=fresh.seconds,
            ratio=cached.seconds / fresh.seconds,
            target="<= 10 s",
            ok=cached.seconds <= 10,
        ),
    ]


def measure_command(command: Sequence[str], environment: Mapping[str, str], folder: Path) -> ProcessUsage:
    """Run a command to its end, with its output on the terminal, and measure it with all its descendants.

    Raises:
        subprocess.CalledProcessError: it failed.
    """
    began = time.monotonic()
    process = subprocess.Popen(command, env={**os.environ, **environment}, cwd=folder)
    peak = 0
    try:
        while process.poll() is None:
            peak = max(peak, _held_by(process.pid))
            time.sleep(_SAMPLE_SECONDS)
    except BaseException:
        process.terminate()
        process.wait()
        raise
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return ProcessUsage(time.monotonic() - began, peak)


def show(rows: Sequence[BenchmarkRow], console: Console) -> None:
    """Print the rows as a table."""
    table = Table(title="SmartPhotoCrafter: figures", title_justify="left")
    table.add_column("figure")
    for column in ("value", "peer", "ratio"):
        table.add_column(column, justify="right")
    table.add_column("target")
    table.add_column("", justify="center")
    for row in rows:
        table.add_row(
            row.name,
            f"{row.value:.4g} {row.unit}",
            "" if row.peer is None else f"{row.peer:.4g}",
            "" if row.ratio is None else f"{row.ratio:.3f}",
            row.target,
            "[green]met[/]" if row.ok else "[red]missed[/]",
        )
    console.print(table)


def section_parameters(sections: Iterable[str], result: Path) -> list[click.Parameter]:
    """What a benchmark of several sections takes: which of them to measure, and where to write the rows."""
    names = list(sections)
    return [
        click.Argument(
            ["sections"],
            nargs=-1,
            type=click.Choice(names),
            metavar="[SECTION]...",
            help=f"What to measure, of {', '.join(names)}; all by default.",
        ),
        Option(["--out"], type=PATH, default=result, help="File to write the rows to."),
    ]


def publish(rows: Sequence[BenchmarkRow], path: Path, console: Console) -> None:
    """Write the rows to ``path`` as every benchmark does, and print them."""
    content = {"rows": [row.model_dump() for row in rows]}
    files.write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")
    show(rows, console)
    console.print(f"Written to {path}.")


_PARAMETERS: list[click.Parameter] = [
    Option(["--no-pipeline"], is_flag=True, help="Take the figures of the last completed run."),
    Option(["--config"], type=PATH, default=ROOT / "configs" / "local.yaml", help="Profile to run."),
    Option(["--out"], type=PATH, default=RESULT, help="File to write the rows to."),
]


@click.command(cls=Command, params=_PARAMETERS)
def main(no_pipeline: bool, config: Path, out: Path) -> int:
    """Measure, print and write the figures; 1 when the pipeline failed or there is nothing to measure."""
    console = Console()
    state = None if no_pipeline else Path(tempfile.mkdtemp(prefix="spc-benchmark-"))
    environment = {"SPC_STATE": str(state)} if state else {}
    try:
        costs = [] if no_pipeline else _run_twice(config, environment, console)
        outputs = _outputs(environment)
        settings = load_settings(config)
        reinforced = (
            Path(outputs["reinforce/reinforced_critic_adapter"]),
            Path(outputs["reinforce/reinforced_artist_adapter"]),
        )
        console.print("Judging the edits of the held-out photos at their full resolution ...")
        evaluation = judge_in_full(Path(outputs["validate/validated_manifest"]), reinforced, settings.evaluate)
        console.print("Scoring the policies of stages II and III on the held-out photos ...")
        gain = compare_stages(
            BASE,
            (Path(outputs["train_critic/critic_adapter"]), Path(outputs["adapt_artist/adapted_artist_adapter"])),
            reinforced,
            Path(outputs["synthesize/pairs"]),
            settings.reinforce,
            BootstrapSettings(),
        )
    except subprocess.CalledProcessError as error:
        console.print(f"[red]{' '.join(map(str, error.cmd))} failed with status {error.returncode}[/]")
        return 1
    finally:
        if state:
            shutil.rmtree(state, ignore_errors=True)
    publish([*evaluation_rows(evaluation), stage_row(gain), *costs], out, console)
    return 0


def _run_twice(config: Path, environment: Mapping[str, str], console: Console) -> list[BenchmarkRow]:
    command = ["make", "pipeline", f"CONFIG={config}"]
    console.print("The pipeline, in a new state folder:")
    fresh = measure_command(command, environment, ROOT)
    console.print("The pipeline once more, with nothing changed:")
    return pipeline_rows(fresh, measure_command(command, environment, ROOT))


def _outputs(environment: Mapping[str, str]) -> dict[str, str]:
    """Folders of the last completed run by "step/output"."""
    command = [sys.executable, "-m", "pipelines.outputs"]
    done = subprocess.run(command, env={**os.environ, **environment}, cwd=ROOT, stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def _held_by(pid: int) -> int:
    """Proportional set size of a process and its descendants, bytes; those that end meanwhile count 0."""
    total = 0
    try:
        root = psutil.Process(pid)
        for process in [root, *root.children(recursive=True)]:
            try:
                total += process.memory_full_info().pss
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue
    except psutil.NoSuchProcess:
        pass
    return total


def _share(name: str, value: float, least: float) -> BenchmarkRow:
    return BenchmarkRow(
        name=name, value=100 * value, unit="%", peer=None, ratio=None, target=f">= {least:.0%}", ok=value >= least
    )


def _cost(name: str, value: float, unit: str, most: float) -> BenchmarkRow:
    return BenchmarkRow(
        name=name, value=value, unit=unit, peer=None, ratio=None, target=f"<= {most:g} {unit}", ok=value <= most
    )


if __name__ == "__main__":
    sys.exit(run(main, program="python -m benchmarks.main"))
