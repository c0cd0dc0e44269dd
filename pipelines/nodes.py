"""Stages II and III on several nodes: parts of graphs that take the place of a step where its settings ask for it.

A stage with `compute.nodes` above 1 is three steps: one prepares the job on the volume that all pods share, a command
step of ZenML's is an Indexed Job of so many pods on the nodes of the stage, and one, which has the name of the stage,
waits for them, hands on to MLflow what they report while they train, and returns what the stage's own step returns.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from zenml.steps import BaseStep, CommandStep

from pipelines.stack_file import StackError
from steps.adapt_artist import adapt_artist, follow_adapt_artist, prepare_adapt_artist
from steps.pods import command, training_step
from steps.reinforce import follow_reinforce, prepare_reinforce, reinforce


class OnNodes(NamedTuple):
    """The steps of a stage on several nodes, in order."""

    prepare: BaseStep
    train: CommandStep
    follow: BaseStep


STAGES = {
    step.name: OnNodes(prepare, CommandStep(command(step.name), name=training_step(step.name)), follow)
    for step, prepare, follow in (
        (adapt_artist, prepare_adapt_artist, follow_adapt_artist),
        (reinforce, prepare_reinforce, follow_reinforce),
    )
}
"""Stages that can."""
ON_NODES = [step for steps in STAGES.values() for step in steps]
"""What a dynamic pipeline has to say it depends on."""


def nodes_of(settings: Mapping[str, Any]) -> dict[str, int]:
    """How many nodes each stage asks for, of those that ask for more than one.

    Args:
        settings: a checked configuration as plain data, or some of its sections.

    Raises:
        StackError: one of them is a stage that runs on a single node.
    """
    asked = {
        name: section["compute"].get("nodes", 1)
        for name, section in settings.items()
        if isinstance(section, Mapping) and isinstance(section.get("compute"), Mapping)
    }
    several = {name: nodes for name, nodes in asked.items() if nodes > 1}
    if wrong := sorted(set(several) - set(STAGES)):
        raise StackError(f"{wrong[0]}.compute.nodes: only {' and '.join(STAGES)} run on several nodes, set it to 1")
    return several


def spread(start: Callable[..., Any]) -> Callable[..., Any]:
    """A way of adding steps to a graph that adds three steps for a stage that asks for several nodes.

    Args:
        start: adds one step: called with the step, its inputs and options (`id`, `after`).
    """

    def started(step: BaseStep, *inputs: Any, **options: Any) -> Any:
        if step.name not in STAGES or inputs[-1]["compute"]["nodes"] == 1:
            return start(step, *inputs, **options)
        several = STAGES[step.name]
        job = start(several.prepare, *inputs, **options)
        start(several.train, after=[job])
        return start(several.follow, job, inputs[-1], id=step.name)

    return started
