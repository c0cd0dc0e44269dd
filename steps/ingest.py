"""Ingest: DVC checkout, then a manifest of every usable photo with hash, size, licence and split."""

from pathlib import Path
from typing import Annotated, Any

from steps.caching import expire_running_step
from steps.folders import output_folder, state_folder
from steps.stage import stage
from steps.tracking import tracked


@stage
def ingest(data_revision: str, working_copy: str, settings: dict[str, Any]) -> Annotated[Path, "manifest"]:
    """Bring data/ to ``data_revision`` and write its manifest.

    ``working_copy`` only belongs to the cache key: files that were touched are looked at again. What was read of each
    photo is kept in the state folder, so only new and changed files are read. A manifest that lacks photos because
    they could not be read is never taken from the cache: the next run looks again.
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
        unread = sum(entry.unread for entry in manifest.quarantine)
        tracker.metrics({"photos": len(manifest), "quarantined": len(manifest.quarantine), "unread": unread}, 0)
        if unread:
            expire_running_step()
        tracker.artifact(out, "manifest")
        return out
