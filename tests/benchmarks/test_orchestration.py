"""The benchmark of the orchestration: it measures stages of the training pipeline, and reckons a step's share right."""

import pytest

from benchmarks.orchestration import STEPS, rows_of, stages
from components.settings import load_settings
from pipelines.environment import ROOT, State
from pipelines.training import training


def test_it_measures_stages_of_the_training_pipeline_as_they_are(state: State) -> None:
    settings = load_settings(ROOT / "configs" / "local.yaml").model_dump(mode="json")
    measured, whole = stages(), training
    for pipeline in (measured, whole):
        pipeline.prepare(settings=settings, data_revision="d.dir", working_copy="w")
    assert tuple(measured.invocations) == STEPS
    for name, invocation in measured.invocations.items():
        original = whole.invocations[name]
        assert invocation.upstream_steps == original.upstream_steps
        assert invocation.parameters == original.parameters
        assert invocation.step.source_object == original.step.source_object


def test_a_step_adds_what_the_pipeline_takes_beyond_the_bare_work() -> None:
    times = {"direct": [10.0, 12.0, 11.0], "pipeline": [14.0, 28.0, 17.0], "cached": [2.0, 8.0, 4.0]}
    whole, added, cached = rows_of(times)
    assert (whole.value, whole.peer, whole.ratio) == (17.0, 11.0, pytest.approx(17 / 11))
    assert (added.value, added.ok) == (1.5, True)  # of (14 - 10) / 4, (28 - 12) / 4 and (17 - 11) / 4
    assert (cached.value, cached.ok) == (1.0, True)
    assert not rows_of(times | {"pipeline": [24.0, 28.0, 27.0]})[1].ok
