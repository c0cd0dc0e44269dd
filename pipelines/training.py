"""The training pipeline: from photos under DVC to a promoted model. The whole graph, and nothing else."""

from operator import call
from typing import Any

from zenml import pipeline

from pipelines.learning import learn
from pipelines.nodes import spread
from steps.annotate import annotate
from steps.drift import drift
from steps.ingest import ingest
from steps.synthesize import synthesize
from steps.validate import validate


@pipeline(name="training")
def training(settings: dict[str, Any], data_revision: str, working_copy: str) -> None:
    """Train Critic and Artist on the photos of one data revision and promote them if they are better.

    Args:
        settings: a checked configuration (components/settings.py) as plain data, a section for each stage.
        data_revision: the DVC revision of data/.
        working_copy: digest of the files on disk, so that touched ones are looked at again.
    """
    # Data: DVC checkout -> manifest -> validated manifest, compared with the version before -> annotations and pairs
    manifest = ingest(data_revision, working_copy, settings["ingest"])
    manifest, _ = validate(manifest, settings["validation"])
    drift(manifest, data_revision, settings["drift"])
    annotations = annotate(manifest, data_revision, settings["annotate"])
    pairs = synthesize(manifest, data_revision, settings["synthesize"])

    # Stages I to III, judgement
    learn(spread(call), manifest, annotations, pairs, data_revision, settings)
