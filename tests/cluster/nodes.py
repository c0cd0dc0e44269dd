"""One stage on several nodes as pipelines of their own, static and dynamic, on what a training run has made."""

from operator import call
from typing import Any

from zenml import pipeline
from zenml.client import Client
from zenml.steps import BaseStep

from pipelines.nodes import ON_NODES, spread
from steps.adapt_artist import adapt_artist
from steps.reinforce import reinforce

STAGES = {step.name: step for step in (adapt_artist, reinforce)}


@pipeline(name="nodes")
def nodes(stage: str, settings: dict[str, Any], data_revision: str, inputs: list[str]) -> None:
    """Only this stage, with the ids of artifact versions for its inputs."""
    spread(call)(STAGES[stage], *_artifacts(inputs), data_revision, settings[stage])


@pipeline(name="nodes", dynamic=True, depends_on=ON_NODES)
def dynamic_nodes(stage: str, settings: dict[str, Any], data_revision: str, inputs: list[str]) -> None:
    """The same as a graph that grows while it runs."""
    spread(BaseStep.submit)(STAGES[stage], *_artifacts(inputs), data_revision, settings[stage])


def _artifacts(identifiers: list[str]) -> list[Any]:
    return [Client().get_artifact_version(identifier) for identifier in identifiers]
