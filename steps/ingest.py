"""Ingest: DVC checkout, then a manifest of every usable photo with hash, size, licence and split."""

from pathlib import Path
from typing import Annotated, Any

from steps.folders import output_folder, state_folder
from steps.stage import stage
from steps.tracking import tracked


@stage
def ingest(data_revision: str, working_copy: str, settings: dict[str, Any]) -> Annotated[Path, "manifest"]:
    """Bring data/ to ``data_revision`` and write its manifest.

    ``working_copy`` only belongs to the cache key: files that were touched are looked at again. What was read of each
    photo is kept in the state folder, so only new and changed files are read.
    """
    from components.data.ingest import IngestSettings, build_manifest
    from components.data.versioning import dvc_checkout
    from steps.lineage import ROOT, data_folder

    with tracked(settings) as tracker:
        dvc_checkout(ROOT)
        photos = data_folder(data_revision) / "photos"
        out = output_folder()
        manifest = build_manifest(
            photos,
            photos / "ATTRIBUTION.csv",
            out,
            IngestSettings.model_validate(settings),
            data_revision=data_revision,
            facts=state_folder() / "facts.sqlite",
        )
        tracker.metrics({"photos": len(manifest), "quarantined": len(manifest.quarantine)}, 0)
        tracker.artifact(out, "manifest")
        return out
