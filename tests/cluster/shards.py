"""The data stages of the sharded training as a pipeline of their own, so that nothing has to be trained to try them."""

from typing import Any

from zenml import pipeline

from pipelines.shards import ANNOTATION, SYNTHESIS, annotate_shards, split, starter, synthesize_shards
from steps.ingest import ingest
from steps.partition import partition
from steps.validate import validate


@pipeline(name="shards", dynamic=True, depends_on=[ingest, validate, partition, *ANNOTATION, *SYNTHESIS])
def shards(settings: dict[str, Any], data_revision: str, working_copy: str) -> None:
    """ingest -> validate -> partition -> annotate and synthesize each shard -> gather."""
    start = starter()
    manifest = start(ingest, data_revision, working_copy, settings["ingest"])
    manifest, _ = start(validate, manifest, settings["validation"])
    parts = split(start, manifest, data_revision, settings)
    annotate_shards(start, parts, settings)
    synthesize_shards(start, parts, data_revision, settings)
