"""What the graphs consist of: with and without shards, with stages on one node or several."""

import pytest
from zenml.pipelines.pipeline_definition import Pipeline

from components.settings import load_settings
from pipelines.ablation import ablation
from pipelines.environment import ROOT
from pipelines.nodes import ON_NODES
from pipelines.retraining import retraining
from pipelines.sharded_retraining import sharded_retraining
from pipelines.sharded_training import sharded_training
from pipelines.stack_file import StackError
from pipelines.training import training

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("whole", "in_shards", "more"),
    [
        (training, sharded_training, {"partition", "gather_annotations", "gather_pairs"}),
        (retraining, sharded_retraining, {"partition", "gather_pairs"}),
    ],
)
def test_graphs_with_and_without_shards_have_the_same_name_and_stages(
    whole: Pipeline, in_shards: Pipeline, more: set[str]
) -> None:
    settings = load_settings(ROOT / "configs" / "local.yaml").model_dump(mode="json")
    arguments = {"settings": settings, "data_revision": "d.dir", "working_copy": "w"}
    if whole is retraining:
        arguments["champion"] = "3"
    whole.prepare(**arguments)
    in_shards.prepare(**arguments)
    assert whole.name == in_shards.name
    assert set(in_shards.invocations) == set(whole.invocations) | more | {step.name for step in ON_NODES}


@pytest.mark.parametrize("graph", [training, retraining])
def test_stages_that_want_several_nodes_get_them(graph: Pipeline) -> None:
    settings = load_settings(ROOT / "configs" / "local.yaml").model_dump(mode="json")
    settings["reinforce"]["compute"]["nodes"] = 2
    arguments = {"settings": settings, "data_revision": "d.dir", "working_copy": "w"}
    if graph is retraining:
        arguments["champion"] = "3"
    graph.prepare(**arguments)
    stage = {"prepare_reinforce", "reinforce_on_nodes", "reinforce"}
    assert stage <= set(graph.invocations) and "adapt_artist_on_nodes" not in graph.invocations
    assert graph.invocations["reinforce"].step.name == "follow_reinforce"


def test_the_ablation_says_that_it_trains_on_one_node() -> None:
    settings = load_settings(ROOT / "configs" / "local.yaml").model_dump(mode="json")
    settings["reinforce"]["compute"]["nodes"] = 2
    with pytest.raises(StackError, match=r"reinforce\.compute\.nodes to 1"):
        ablation.prepare(settings=settings, data_revision="d.dir", working_copy="w")
