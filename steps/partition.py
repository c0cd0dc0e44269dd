"""Partition: a manifest in shards, so that annotation and synthesis run in a step for each."""

from pathlib import Path
from typing import Annotated, Any

from zenml import save_artifact

from steps.folders import output_folder
from steps.stage import stage
from steps.tracking import tracked

ARTIFACT = "manifest_shard"


@stage
def partition(
    manifest: Path, data_revision: str, settings: dict[str, Any], synthesis: dict[str, Any]
) -> tuple[Annotated[dict[str, str], "shards"], Annotated[str, "revision"]]:
    """Ids of the shards' manifests by number, and ``data_revision`` as an artifact.

    Each manifest is an artifact of its own, with a hash of its own, so that the steps of a shard that did not change
    come from the cache; as parts of one artifact they would all change together.
    """
    from components.data.partition import ScaleOutSettings
    from components.data.partition import partition as write_shards
    from components.data.records import read_manifest
    from components.data.synthesis import SynthesisSettings, shared_photos

    with tracked(settings) as tracker:
        whole = read_manifest(manifest)
        shared = shared_photos(whole, SynthesisSettings.model_validate(synthesis))
        shards = ScaleOutSettings.model_validate(settings).shards
        folders = write_shards(whole, output_folder(), shards, shared)
        sizes = {f"photos/{number}": float(len(read_manifest(folder))) for number, folder in folders.items()}
        tracker.metrics({"shards": float(len(folders)), **sizes}, 0)
        saved = {str(number): str(save_artifact(folder, ARTIFACT).id) for number, folder in folders.items()}
        return saved, data_revision
