"""Stage II on several nodes as pipelines of their own, static and dynamic, on what a training run has made."""

from operator import call
from typing import Any

from zenml import pipeline
from zenml.client import Client
from zenml.steps import BaseStep

from pipelines.nodes import ON_NODES, spread
from steps.adapt_artist import adapt_artist


@pipeline(name="nodes")
def nodes(settings: dict[str, Any], data_revision: str, inputs: list[str]) -> None:
    """Only adapt_artist, with the ids of artifact versions for its inputs."""
    spread(call)(adapt_artist, *_artifacts(inputs), data_revision, settings["adapt_artist"])


@pipeline(name="nodes", dynamic=True, depends_on=ON_NODES)
def dynamic_nodes(settings: dict[str, Any], data_revision: str, inputs: list[str]) -> None:
    """The same as a graph that grows while it runs."""
    spread(BaseStep.submit)(adapt_artist, *_artifacts(inputs), data_revision, settings["adapt_artist"])


def _artifacts(identifiers: list[str]) -> list[Any]:
    return [Client().get_artifact_version(identifier) for identifier in identifiers]
