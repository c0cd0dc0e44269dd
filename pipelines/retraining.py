"""The retraining pipeline: the champion goes on learning on the newest data. The whole graph, and nothing else."""

from operator import call
from typing import Any

from zenml import pipeline

from pipelines.learning import refine
from pipelines.nodes import spread
from steps.drift import drift
from steps.ingest import ingest
from steps.load_champion import load_champion
from steps.synthesize import synthesize
from steps.validate import validate


@pipeline(name="retraining")
def retraining(settings: dict[str, Any], data_revision: str, working_copy: str, champion: str) -> None:
    """Take the champion's adapters through stages II and III on the photos of one data revision.

    Stage I, which starts adapters from nothing, is left out; `make pipeline` runs it.

    Args:
        settings: a checked configuration (components/settings.py) as plain data, a section for each stage.
        data_revision: the DVC revision of data/.
        working_copy: digest of the files on disk, so that touched ones are looked at again.
        champion: the version in the registry to go on from.
    """
    # Data: DVC checkout -> manifest -> validated manifest -> drift against the data before -> pairs
    manifest = ingest(data_revision, working_copy, settings["ingest"])
    manifest, _ = validate(manifest, settings["validation"])
    drifted = drift(manifest, data_revision, settings["drift"])
    pairs = synthesize(manifest, data_revision, settings["synthesize"])

    # Where to go on from
    critic, artist = load_champion(champion, data_revision)

    # Stages II and III, judgement
    refine(spread(call), critic, artist, manifest, pairs, data_revision, settings, after=[drifted])
