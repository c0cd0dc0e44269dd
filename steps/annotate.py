"""Annotate: chain of thought, suggestions and score for intact and faulty views of every photo."""

from pathlib import Path
from typing import Annotated, Any

from steps.folders import checkpoint_folder, output_folder
from steps.stage import stage
from steps.tracking import tracked


@stage
def annotate(manifest: Path, data_revision: str, settings: dict[str, Any]) -> Annotated[Path, "annotations"]:
    """A folder of annotated views as JSON Lines; what conflicts with a label is dropped and counted."""
    from components.data.annotations import REPORT_FILE, AnnotationSettings, build_annotator
    from components.data.annotations import annotate as judge_views
    from components.data.records import read_manifest
    from steps.lineage import data_folder

    with tracked(settings) as tracker:
        checked = AnnotationSettings.model_validate(settings)
        out = output_folder()
        annotator = build_annotator(checked, checkpoint_folder() / "answers.jsonl")
        report = judge_views(read_manifest(manifest), data_folder(data_revision) / "photos", out, checked, annotator)
        counts = {f"dropped/{reason}": float(count) for reason, count in report.dropped.items()}
        tracker.metrics({"annotated": float(report.annotated), "seconds": report.seconds, **counts}, 0)
        tracker.artifact(out, "annotations")
        (out / REPORT_FILE).unlink()  # it holds the time taken, and equal annotations are to be equal artifacts
        return out
