"""Annotate: chain of thought, suggestions and score for intact and faulty views of every photo."""

import logging
from pathlib import Path
from typing import Annotated, Any

from zenml import get_step_context

from steps.folders import output_folder, state_folder
from steps.stage import stage
from steps.tracking import tracked

MEASURES = (
    "annotated",
    "restored",
    "repaired",
    "requests",
    "input_tokens",
    "output_tokens",
    "cost",
    "seconds",
)
"""Fields of the report that are recorded as metrics of the run."""


@stage
def annotate(manifest: Path, data_revision: str, settings: dict[str, Any]) -> Annotated[Path, "annotations"]:
    """A folder of annotated views as JSON Lines; what conflicts with a label is dropped and counted.

    Answers of a model are kept in the state folder across runs: they are found again by the whole question, so a run
    that died, or one with other settings for the rest of the pipeline, asks and pays for none of them twice. Steps that
    annotate shards of a manifest at the same time keep a journal each, named like the step, and look into all of them.
    """
    from components.annotation.annotations import REPORT_FILE, AnnotationSettings, build_annotator
    from components.annotation.annotations import annotate as judge_views
    from components.data.records import read_manifest
    from steps.lineage import data_folder

    with tracked(settings) as tracker:
        checked = AnnotationSettings.model_validate(settings)
        out = output_folder()
        logging.getLogger("httpx").setLevel(logging.WARNING)  # it has a line to say about every request
        answers = state_folder() / "answers"
        journal = answers / f"{get_step_context().step_run.name}.jsonl"
        annotator = build_annotator(checked, journal, answers.glob("annotate*.jsonl"))
        report = judge_views(read_manifest(manifest), data_folder(data_revision) / "photos", out, checked, annotator)
        counts = {f"dropped/{reason}": float(count) for reason, count in report.dropped.items()}
        took = {name: float(getattr(report, name)) for name in MEASURES}
        tracker.metrics({**took, **counts}, 0)
        tracker.artifact(out, "annotations")
        (out / REPORT_FILE).unlink()  # it holds the time taken, and equal annotations are to be equal artifacts
        return out
