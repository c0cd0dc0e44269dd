"""The retraining pipeline with synthesis spread over shards of the photos (`pipelines.shards`)."""

from typing import Any

from zenml import pipeline

from pipelines.learning import REFINING, refine
from pipelines.nodes import ON_NODES, spread
from pipelines.shards import SYNTHESIS, split, starter, synthesize_shards
from steps.drift import drift
from steps.ingest import ingest
from steps.load_champion import load_champion
from steps.partition import partition
from steps.validate import validate


@pipeline(
    name="retraining",
    dynamic=True,
    depends_on=[ingest, validate, drift, partition, *SYNTHESIS, load_champion, *REFINING, *ON_NODES],
)
def sharded_retraining(settings: dict[str, Any], data_revision: str, working_copy: str, champion: str) -> None:
    """Take the champion's adapters through stages II and III on the photos of one data revision.

    Args:
        settings: a checked configuration (components/settings.py) as plain data, a section for each stage.
        data_revision: the DVC revision of data/.
        working_copy: digest of the files on disk, so that touched ones are looked at again.
        champion: the version in the registry to go on from.
    """
    start = starter()

    # Data: DVC checkout -> manifest -> validated manifest -> drift against the data before -> shards -> pairs
    manifest = start(ingest, data_revision, working_copy, settings["ingest"])
    manifest, _ = start(validate, manifest, settings["validation"])
    drifted = start(drift, manifest, data_revision, settings["drift"])
    pairs = synthesize_shards(start, split(start, manifest, data_revision, settings), data_revision, settings)

    # Where to go on from, stages II and III, judgement
    critic, artist = start(load_champion, champion, data_revision)
    refine(spread(start), critic, artist, manifest, pairs, data_revision, settings, after=[drifted])
