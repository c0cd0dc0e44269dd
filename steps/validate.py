"""Validate: the manifest against a Great Expectations suite; the Data Docs are kept whatever the outcome."""

import shutil
from pathlib import Path
from typing import Annotated, Any

from steps.folders import output_folder
from steps.stage import stage
from steps.tracking import tracked


class InvalidData(ValueError):  # noqa: N818  reads as a sentence where it is raised
    """The manifest does not meet the expectations; the message has one line for each."""


@stage
def validate(
    manifest: Path, settings: dict[str, Any]
) -> tuple[Annotated[Path, "validated_manifest"], Annotated[Path, "data_docs"]]:
    """The manifest unchanged, if it meets every expectation, and the Data Docs.

    Raises:
        InvalidData: an expectation failed; nothing is trained on such data.
    """
    from components.data.expectations import ValidationSettings
    from components.data.expectations import validate as check
    from components.data.records import read_manifest

    with tracked(settings) as tracker:
        out = output_folder()
        report = check(read_manifest(manifest), out / "docs", ValidationSettings.model_validate(settings))
        tracker.metrics(report.statistics, 0)
        tracker.artifact(out / "docs", "data_docs")
        if not report.success:
            raise InvalidData("\n".join(["the photos do not meet the expectations:", *report.failures]))
        shutil.copytree(manifest, out / "manifest")
        return out / "manifest", out / "docs"
