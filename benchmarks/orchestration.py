"""What the orchestration costs: real stages as steps of a pipeline against the same work in one process, in one run.

    python -m benchmarks.orchestration                 the data stages of configs/local.yaml, three times each way

Prints a table and writes reports/benchmarks/orchestration.json in the format of `benchmarks.main`. The
pipeline runs on the local stack in a new state folder, which is removed afterwards. Both ways take turns, after one of
each that does not count: it imports the libraries and makes the databases. A step's share holds everything that a
direct call has not: ZenML's bookkeeping, storing and hashing artifacts, and MLflow.
"""

import os
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console

from benchmarks.main import BenchmarkRow, publish
from components.command_line import PATH, Command, Number, Option, run
from pipelines import console as terminal
from pipelines.configuration import checked_settings
from pipelines.environment import ROOT, State, prepare

if TYPE_CHECKING:
    from zenml.pipelines.pipeline_definition import Pipeline

RESULT = ROOT / "reports" / "benchmarks" / "orchestration.json"
STEPS = ("ingest", "validate", "annotate", "synthesize")
MOST_SECONDS = 3.0
"""What a step may add."""


_PARAMETERS: list[click.Parameter] = [
    Option(["--config"], type=PATH, default=ROOT / "configs" / "local.yaml", help="Profile to run."),
    Option(["--repeats"], type=Number(int, 1), default=3, help="How often each way is taken."),
    Option(["--out"], type=PATH, default=RESULT, help="File to write the rows to."),
]


@click.command(cls=Command, params=_PARAMETERS)
def main(config: Path, repeats: int, out: Path) -> int:
    """Measure, print and write the figures."""
    folder = Path(tempfile.mkdtemp(prefix="spc-benchmark-"))
    os.environ["SPC_STATE"] = str(folder)
    try:
        state = prepare()
        terminal.before_zenml()
        with terminal.quiet(state.log):
            rows = measure(checked_settings(config, (), state), state, repeats)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    publish(rows, out, Console())
    return 0


def measure(settings: dict[str, Any], state: State, repeats: int) -> list[BenchmarkRow]:
    """Run the stages both ways in turns, and once more with everything in the cache."""
    from components.data.versioning import data_revision
    from pipelines.run import run_pipeline
    from steps.lineage import data_folders, working_copy

    parameters = {
        "settings": settings,
        "data_revision": data_revision(ROOT),
        "working_copy": working_copy(*data_folders(settings)),
    }
    pipeline = stages()

    def as_pipeline(use_cache: bool) -> float:
        if not use_cache:
            (state.folder / "facts.sqlite").unlink(missing_ok=True)  # or nothing of the photos would be read again
        began = time.perf_counter()
        run_pipeline(pipeline, parameters, "local", state, use_cache=use_cache)
        return time.perf_counter() - began

    def direct() -> float:
        work = Path(tempfile.mkdtemp(dir=state.folder))
        began = time.perf_counter()
        in_one_process(settings, parameters["data_revision"], work)
        took = time.perf_counter() - began
        shutil.rmtree(work)
        return took

    times: dict[str, list[float]] = {"pipeline": [], "direct": [], "cached": []}
    for _ in range(repeats + 1):
        times["direct"].append(direct())
        times["pipeline"].append(as_pipeline(use_cache=False))
        times["cached"].append(as_pipeline(use_cache=True))
    return rows_of({way: seconds[1:] for way, seconds in times.items()})


def rows_of(times: dict[str, list[float]]) -> list[BenchmarkRow]:
    """Medians of the seconds that each way took: `direct`, `pipeline` and `cached`, in turns."""
    added = [(whole - bare) / len(STEPS) for whole, bare in zip(times["pipeline"], times["direct"], strict=True)]
    middle = {way: statistics.median(seconds) for way, seconds in times.items()}
    return [
        BenchmarkRow(
            name=f"orchestration: {', '.join(STEPS)} as a pipeline against the same in one process",
            value=middle["pipeline"],
            unit="s",
            peer=middle["direct"],
            ratio=middle["pipeline"] / middle["direct"],
            target="for information",
            ok=True,
        ),
        _share("orchestration: what a step adds", statistics.median(added)),
        _share("orchestration: a step that comes from the cache", middle["cached"] / len(STEPS)),
    ]


def in_one_process(settings: dict[str, Any], revision: str, work: Path) -> None:
    """What the steps of the pipeline do, without steps: the components one after the other, files below ``work``."""
    from components.annotation.annotations import AnnotationSettings, annotate, build_annotator
    from components.data.expectations import ValidationSettings, validate
    from components.data.ingest import IngestSettings, build_manifest
    from components.data.synthesis import SynthesisSettings, synthesize
    from components.data.versioning import dvc_checkout

    dvc_checkout(ROOT)
    photos = ROOT / "data" / "photos"
    manifest = build_manifest(
        photos,
        photos / "ATTRIBUTION.csv",
        work / "manifest",
        IngestSettings.model_validate(settings["ingest"]),
        data_revision=revision,
        facts=work / "facts.sqlite",
    )
    validate(manifest, work / "docs", ValidationSettings.model_validate(settings["validation"]))
    annotation = AnnotationSettings.model_validate(settings["annotate"])
    (work / "annotations").mkdir()
    annotator = build_annotator(annotation, work / "answers.jsonl")
    annotate(manifest, photos, work / "annotations", annotation, annotator)
    synthesize(manifest, photos, work / "pairs", SynthesisSettings.model_validate(settings["synthesize"]))


def stages() -> "Pipeline":
    """The first stages of the training pipeline."""
    from zenml import pipeline

    from steps.annotate import annotate
    from steps.ingest import ingest
    from steps.synthesize import synthesize
    from steps.validate import validate

    @pipeline(name="orchestration")
    def orchestration(settings: dict[str, Any], data_revision: str, working_copy: str) -> None:
        manifest = ingest(data_revision, working_copy, settings["ingest"])
        manifest, _ = validate(manifest, settings["validation"])
        annotate(manifest, data_revision, settings["annotate"])
        synthesize(manifest, data_revision, settings["synthesize"])

    return orchestration


def _share(name: str, seconds: float) -> BenchmarkRow:
    return BenchmarkRow(
        name=name,
        value=seconds,
        unit="s",
        peer=None,
        ratio=None,
        target=f"<= {MOST_SECONDS:g} s",
        ok=seconds <= MOST_SECONDS,
    )


if __name__ == "__main__":
    sys.exit(run(main, program="python -m benchmarks.orchestration"))
