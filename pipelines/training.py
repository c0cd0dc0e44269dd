"""The training pipeline: from photos under DVC to a promoted model. The whole graph, and nothing else."""

from typing import Any

from zenml import pipeline

from steps.adapt_artist import adapt_artist
from steps.annotate import annotate
from steps.drift import drift
from steps.evaluate import evaluate
from steps.ingest import ingest
from steps.promote import promote
from steps.reinforce import reinforce
from steps.synthesize import synthesize
from steps.train_artist import train_artist
from steps.train_critic import train_critic
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

    # Stage I, foundation: the two modules apart
    critic = train_critic(annotations, data_revision, settings["train_critic"])
    artist = train_artist(pairs, data_revision, settings["train_artist"])

    # Stage II, reasoning-conditioned adaptation: the Artist follows the Critic
    artist = adapt_artist(critic, artist, pairs, data_revision, settings["adapt_artist"])

    # Stage III, coordinated reinforcement learning: both in one loop
    critic, artist = reinforce(critic, artist, pairs, data_revision, settings["reinforce"])

    # Judgement: held-out photos, then the gate
    package, _ = evaluate(critic, artist, manifest, data_revision, settings["evaluate"])
    promote(package, manifest, data_revision, settings["gate"], settings["evaluate"])
