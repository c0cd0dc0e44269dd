"""The graph of the retraining pipeline: the champion goes on, and only through the gate."""

import pytest

from components.settings import load_settings
from pipelines.environment import ROOT
from pipelines.retraining import retraining

pytestmark = pytest.mark.slow

UPSTREAM = {
    "ingest": set(),
    "validate": {"ingest"},
    "drift": {"validate"},
    "synthesize": {"validate"},
    "load_champion": set(),
    "adapt_artist": {"load_champion", "synthesize", "drift"},
    "reinforce": {"load_champion", "adapt_artist", "synthesize"},
    "evaluate": {"reinforce", "validate"},
    "promote": {"evaluate", "validate"},
}


def test_each_stage_follows_what_it_needs_and_stage_one_is_left_out() -> None:
    settings = load_settings(ROOT / "configs" / "local.yaml").model_dump(mode="json")
    retraining.prepare(settings=settings, data_revision="d.dir", working_copy="w", champion="3")
    found = {name: set(invocation.upstream_steps) for name, invocation in retraining.invocations.items()}
    assert found == UPSTREAM
    champion = retraining.invocations["load_champion"]
    assert {**champion.parameters, **champion.default_parameters}["version"] == "3"
