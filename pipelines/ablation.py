"""The ablation pipeline: what stage III, and r_photo in it, are worth. The whole graph, and nothing else."""

from typing import Any

from zenml import pipeline

from components.evaluation.ablation import without_photometric
from pipelines.nodes import nodes_of
from pipelines.stack_file import StackError
from steps.ablate import REINFORCE_WITHOUT_PHOTOMETRIC, ablate
from steps.adapt_artist import adapt_artist
from steps.annotate import annotate
from steps.ingest import ingest
from steps.reinforce import reinforce
from steps.synthesize import synthesize
from steps.train_artist import train_artist
from steps.train_critic import train_critic
from steps.validate import validate


@pipeline(name="ablation")
def ablation(settings: dict[str, Any], data_revision: str, working_copy: str) -> None:
    """Train three variants from the same stage II and compare them on the held-out photos.

    Everything up to the full stage III is the training pipeline's, step by step, and comes from its cache.

    Args:
        settings: as the training pipeline's.
        data_revision: the DVC revision of data/.
        working_copy: digest of the files on disk, so that touched ones are looked at again.

    Raises:
        StackError: a stage is to train on several nodes.
    """
    if several := nodes_of(settings):
        raise StackError(f"the ablation trains each variant on one node: set {min(several)}.compute.nodes to 1")

    # Data and stages I and II, as the training pipeline makes them
    manifest = ingest(data_revision, working_copy, settings["ingest"])
    manifest, _ = validate(manifest, settings["validation"])
    annotations = annotate(manifest, data_revision, settings["annotate"])
    pairs = synthesize(manifest, data_revision, settings["synthesize"])
    critic = train_critic(annotations, data_revision, settings["train_critic"])
    artist = train_artist(pairs, data_revision, settings["train_artist"])
    artist = adapt_artist(critic, artist, pairs, data_revision, settings["adapt_artist"])

    # Stage III twice: as it ships, and without the photometric reward
    full = reinforce(critic, artist, pairs, data_revision, settings["reinforce"])
    partial = reinforce(
        critic,
        artist,
        pairs,
        data_revision,
        without_photometric(settings["reinforce"]),
        id=REINFORCE_WITHOUT_PHOTOMETRIC,
    )

    # The same held-out photos for all
    ablate(critic, artist, *partial, *full, manifest, data_revision, settings["evaluate"])
