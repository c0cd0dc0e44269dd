"""Drift: how the photos of this data version differ from those of the one before, kept as JSON and as a page."""

import logging
from pathlib import Path
from typing import Annotated, Any

from zenml.client import Client

from steps.folders import output_folder
from steps.stage import stage
from steps.tracking import tracked

log = logging.getLogger(__name__)

ARTIFACT = "drift"
_LOOKED_AT = 50  # stored reports, newest first, among which one of another data version is looked for


@stage
def drift(manifest: Path, data_revision: str, settings: dict[str, Any]) -> Annotated[Path, ARTIFACT]:
    """profile.parquet, drift.json and drift.html; the first data version is only profiled.

    The version before is the newest stored report of another data revision. It is not part of the cache key: a data
    version is compared once, with what came before it then.
    """
    from components.data.drift import DriftSettings, report_drift
    from components.data.records import read_manifest
    from steps.lineage import data_folder

    with tracked(settings) as tracker:
        out = output_folder()
        report = report_drift(
            read_manifest(manifest),
            data_folder(data_revision) / "photos",
            out,
            DriftSettings.model_validate(settings),
            previous=profile_before(data_revision),
        )
        tracker.metrics({f"psi/{shift.name}": shift.psi for shift in report.shifts if shift.psi is not None}, 0)
        tracker.tags({"drift": report.worst})
        tracker.artifact(out, ARTIFACT)
        return out


def profile_before(data_revision: str) -> Path | None:
    """The newest stored report of a data revision other than ``data_revision``, or None before there is one."""
    from components.data.drift import read_profile

    stored = Client().list_artifact_versions(artifact=ARTIFACT, sort_by="desc:created", size=_LOOKED_AT)
    for version in stored.items:
        try:
            folder = version.load()
            _, revision = read_profile(folder)
        except (FileNotFoundError, ValueError) as error:
            log.warning("the drift report %s cannot be compared with: %s", version.id, error)
            continue
        if revision != data_revision:
            return folder
    return None
