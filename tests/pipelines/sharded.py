"""The real steps of shards on a few sample photos: what the sharded training does before anything is trained."""

from pathlib import Path
from typing import Annotated, Any

from zenml import pipeline

from components.data.records import Manifest, write_manifest
from pipelines.shards import ANNOTATION, SYNTHESIS, annotate_shards, split, starter, synthesize_shards
from steps.folders import output_folder
from steps.partition import partition
from steps.stage import stage
from steps.tracking import tracked
from tests.data.builders import record


@stage
def list_photos(listing: dict[str, str]) -> Annotated[Path, "manifest"]:
    """A manifest of the photos in ``listing``: SHA-256 by file name, which need not be the true one."""
    with tracked():
        out = output_folder()
        write_manifest(Manifest.of(record(name, sha256=digest) for name, digest in listing.items()), out)
        return out


@pipeline(name="sharded", dynamic=True, depends_on=[list_photos, partition, *ANNOTATION, *SYNTHESIS])
def sharded(listing: dict[str, str], data_revision: str, settings: dict[str, Any]) -> None:
    """list_photos -> partition -> annotate and synthesize each shard -> gather."""
    start = starter()
    shards = split(start, start(list_photos, listing), data_revision, settings)
    annotate_shards(start, shards, settings)
    synthesize_shards(start, shards, data_revision, settings)
