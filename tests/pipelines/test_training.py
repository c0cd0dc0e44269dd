"""The graph of the training pipeline and its agreement with the configuration schema."""

import pytest
from zenml.pipelines.pipeline_definition import Pipeline

from components.settings import Settings, load_settings
from pipelines.environment import ROOT
from pipelines.training import training

pytestmark = pytest.mark.slow

UPSTREAM = {
    "ingest": set(),
    "validate": {"ingest"},
    "drift": {"validate"},
    "annotate": {"validate"},
    "synthesize": {"validate"},
    "train_critic": {"annotate"},
    "train_artist": {"synthesize"},
    "adapt_artist": {"train_critic", "train_artist", "synthesize"},
    "reinforce": {"train_critic", "adapt_artist", "synthesize"},
    "evaluate": {"reinforce", "validate"},
    "promote": {"evaluate", "validate"},
}


@pytest.fixture(scope="module")
def graph() -> Pipeline:
    settings = load_settings(ROOT / "configs" / "local.yaml").model_dump(mode="json")
    training.prepare(settings=settings, data_revision="d.dir", working_copy="w")
    return training


def test_each_stage_follows_what_it_needs_and_nothing_else(graph: Pipeline) -> None:
    found = {name: set(invocation.upstream_steps) for name, invocation in graph.invocations.items()}
    assert found == UPSTREAM


def test_every_section_of_the_configuration_reaches_a_stage(graph: Pipeline) -> None:
    settings = load_settings(ROOT / "configs" / "local.yaml").model_dump(mode="json")
    passed = [
        value.value if hasattr(value, "value") else value
        for invocation in graph.invocations.values()
        for value in {**invocation.parameters, **invocation.default_parameters}.values()
    ]
    unused = [name for name in Settings.model_fields if settings[name] not in passed]
    assert unused == ["scale_out"], "which decides for this graph or for the one with shards"


def test_every_step_is_tracked_and_cached_by_its_code(graph: Pipeline) -> None:
    for name, invocation in graph.invocations.items():
        configuration = invocation.step.configuration
        assert configuration.experiment_tracker is True, name
        assert f"steps/{name}.py" in configuration.cache_policy.file_dependencies
