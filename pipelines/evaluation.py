"""The evaluation pipeline: the paper's tables for any registered versions. The whole graph, and nothing else."""

from typing import Any

from zenml import pipeline

from steps.ingest import ingest
from steps.judge import judge
from steps.validate import validate


@pipeline(name="evaluation")
def evaluation(settings: dict[str, Any], data_revision: str, working_copy: str, versions: dict[str, str]) -> None:
    """Judge registered versions on the held-out photos of one data revision.

    Args:
        settings: as the training pipeline's.
        data_revision: the DVC revision of data/.
        working_copy: digest of the files on disk, so that touched ones are looked at again.
        versions: version of the registered model by its name in the tables.
    """
    manifest = ingest(data_revision, working_copy, settings["ingest"])
    manifest, _ = validate(manifest, settings["validation"])
    judge(manifest, data_revision, versions, settings["evaluate"]["tables"])
