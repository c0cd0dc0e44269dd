"""The graph of the ablation pipeline: variants from one stage II, the full one as the training pipeline makes it."""

import pytest
from zenml.pipelines.pipeline_definition import Pipeline

from components.settings import load_settings
from pipelines.__main__ import main
from pipelines.ablation import ablation
from pipelines.environment import ROOT
from pipelines.training import training
from steps.ablate import REINFORCE_WITHOUT_PHOTOMETRIC

pytestmark = pytest.mark.slow

UPSTREAM = {
    "ingest": set(),
    "validate": {"ingest"},
    "annotate": {"validate"},
    "synthesize": {"validate"},
    "train_critic": {"annotate"},
    "train_artist": {"synthesize"},
    "adapt_artist": {"train_critic", "train_artist", "synthesize"},
    "reinforce": {"train_critic", "adapt_artist", "synthesize"},
    "reinforce_without_photometric": {"train_critic", "adapt_artist", "synthesize"},
    "ablate": {"train_critic", "adapt_artist", "reinforce", "reinforce_without_photometric", "validate"},
}


@pytest.fixture(scope="module")
def graphs() -> tuple[Pipeline, Pipeline]:
    settings = load_settings(ROOT / "configs" / "local.yaml").model_dump(mode="json")
    for pipeline in (ablation, training):
        pipeline.prepare(settings=settings, data_revision="d.dir", working_copy="w")
    return ablation, training


def parameters(pipeline: Pipeline, name: str) -> dict:
    invocation = pipeline.invocations[name]
    return {
        key: getattr(value, "value", value)
        for key, value in {**invocation.parameters, **invocation.default_parameters}.items()
    }


def test_each_stage_follows_what_it_needs_and_nothing_else(graphs: tuple[Pipeline, Pipeline]) -> None:
    found = {name: set(invocation.upstream_steps) for name, invocation in graphs[0].invocations.items()}
    assert found == UPSTREAM


def test_up_to_the_full_variant_every_step_is_the_training_pipelines(graphs: tuple[Pipeline, Pipeline]) -> None:
    shared = [name for name in UPSTREAM if name not in ("ablate", REINFORCE_WITHOUT_PHOTOMETRIC)]
    for name in shared:
        ours, theirs = (graph.invocations[name] for graph in graphs)
        assert ours.step.configuration == theirs.step.configuration
        assert parameters(graphs[0], name) == parameters(graphs[1], name)


def test_the_other_variant_differs_in_the_reward_alone(graphs: tuple[Pipeline, Pipeline]) -> None:
    full, other = (parameters(graphs[0], name) for name in ("reinforce", REINFORCE_WITHOUT_PHOTOMETRIC))
    weights = other["settings"]["rollouts"]["artist"]
    assert weights["photometric"] == 0
    weights |= {name: full["settings"]["rollouts"]["artist"][name] for name in ("photometric", "perceptual")}
    assert other == full


def test_the_command_reports_mistakes_before_it_trains(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ablation", "--set", "reinforce.iteration=2"]) == 2
    assert "reinforce.iteration: unknown key; did you mean iterations?" in capsys.readouterr().err
