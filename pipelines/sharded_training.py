"""The training pipeline with annotation and synthesis spread over shards of the photos (`pipelines.shards`)."""

from typing import Any

from zenml import pipeline

from pipelines.learning import LEARNING, learn
from pipelines.nodes import ON_NODES, spread
from pipelines.shards import ANNOTATION, SYNTHESIS, annotate_shards, split, starter, synthesize_shards
from steps.drift import drift
from steps.ingest import ingest
from steps.partition import partition
from steps.validate import validate


@pipeline(
    name="training",
    dynamic=True,
    depends_on=[ingest, validate, drift, partition, *ANNOTATION, *SYNTHESIS, *LEARNING, *ON_NODES],
)
def sharded_training(settings: dict[str, Any], data_revision: str, working_copy: str) -> None:
    """Train Critic and Artist on the photos of one data revision and promote them if they are better.

    Args:
        settings: a checked configuration (components/settings.py) as plain data, a section for each stage.
        data_revision: the DVC revision of data/.
        working_copy: digest of the files on disk, so that touched ones are looked at again.
    """
    start = starter()

    # Data: DVC checkout -> manifest -> validated manifest, compared with the version before -> shards -> both stages
    manifest = start(ingest, data_revision, working_copy, settings["ingest"])
    manifest, _ = start(validate, manifest, settings["validation"])
    start(drift, manifest, data_revision, settings["drift"])
    shards = split(start, manifest, data_revision, settings)
    annotations = annotate_shards(start, shards, settings)
    pairs = synthesize_shards(start, shards, data_revision, settings)

    # Stages I to III, judgement
    learn(spread(start), manifest, annotations, pairs, data_revision, settings)
