"""Annotation and synthesis spread over shards of the photos, each a step of its own: parts of dynamic graphs.

Which shards hold photos is known only once the manifest is, so these graphs are dynamic: ZenML calls their function
while the run goes on. On a cluster every step is a pod, and the steps of all shards run at the same time; in one
process they run one after the other, as in graphs without shards. What comes of them is the same to the byte, so the
stages after them come from the cache of a run with another number of shards, or with none.
"""

from typing import Any, NamedTuple

from zenml.client import Client
from zenml.models import ArtifactVersionResponse
from zenml.steps import BaseStep

from pipelines.learning import Start
from steps.annotate import annotate
from steps.gather_annotations import gather_annotations
from steps.gather_pairs import gather_pairs
from steps.partition import partition
from steps.synthesize import synthesize


def of_shards(step: BaseStep) -> BaseStep:
    """The step as it runs on a shard: another revision of the data is no reason to do the same shard again."""
    policy = step.configuration.cache_policy.model_copy(update={"ignored_inputs": ["data_revision"]})
    return step.with_options(cache_policy=policy)


annotate_shard, synthesize_shard = of_shards(annotate), of_shards(synthesize)
ANNOTATION, SYNTHESIS = [annotate_shard, gather_annotations], [synthesize_shard, gather_pairs]
"""What a pipeline has to say it depends on, so that the stack file finds it, beside `partition`."""


class Shards(NamedTuple):
    """A manifest in parts."""

    whole: Any
    """The manifest, an output of a step."""
    manifests: dict[str, ArtifactVersionResponse]
    """Those of the shards, by number."""
    revision: Any
    """The DVC revision of data/ as an artifact, which a cache policy can pass over; a parameter it cannot."""


def starter() -> Start:
    """How steps start where the graph's function runs: all together in pods, or in this process and in turn."""
    return BaseStep.submit if Client().active_stack.orchestrator.can_run_isolated_steps else _in_turn


def split(start: Start, manifest: Any, data_revision: str, settings: dict[str, Any]) -> Shards:
    """Add the step that partitions a manifest, and wait for it."""
    shards, revision = start(partition, manifest, data_revision, settings["scale_out"], settings["synthesize"])
    manifests = {number: Client().get_artifact_version(identifier) for number, identifier in shards.load().items()}
    return Shards(manifest, manifests, revision)


def annotate_shards(start: Start, shards: Shards, settings: dict[str, Any]) -> Any:
    """Add a step `annotate-NUMBER` for each shard, and `annotate`, which puts the annotations together.

    The latter has the name of the stage in graphs without shards, so that whoever looks for the annotations of a run
    finds them there.
    """
    parts = [
        start(annotate_shard, shard, shards.revision, settings["annotate"], id=f"annotate-{number}")
        for number, shard in shards.manifests.items()
    ]
    return start(gather_annotations, shards.whole, parts, id="annotate")


def synthesize_shards(start: Start, shards: Shards, data_revision: str, settings: dict[str, Any]) -> Any:
    """Add a step `synthesize-NUMBER` for each shard, and `synthesize`, which puts the pairs together."""
    parts = [
        start(synthesize_shard, shard, shards.revision, settings["synthesize"], id=f"synthesize-{number}")
        for number, shard in shards.manifests.items()
    ]
    return start(gather_pairs, shards.whole, data_revision, parts, settings["synthesize"], id="synthesize")


def _in_turn(step: BaseStep, *inputs: Any, after: Any = None, **options: Any) -> Any:
    """Run a step to its end; what it is to come after has ended by then."""
    return step(*inputs, **options)
