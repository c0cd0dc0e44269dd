"""The command line: mistakes are reported before any work starts, and checking is not repeated needlessly."""

import os
from pathlib import Path
from typing import Any

import pytest
from zenml.pipelines.pipeline_definition import Pipeline

from components import settings as settings_module
from pipelines import run as run_module
from pipelines.__main__ import main
from pipelines.configuration import checked_settings
from pipelines.environment import ROOT, State, prepare
from pipelines.sharded_training import sharded_training
from pipelines.stack_file import StackError
from pipelines.training import training

pytestmark = pytest.mark.slow

LOCAL = ROOT / "configs" / "local.yaml"


def test_a_checked_configuration_is_not_checked_again(state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    first = checked_settings(LOCAL, ["reinforce.iterations=3"], state)
    assert first["reinforce"]["iterations"] == 3
    assert set(first) == set(settings_module.Settings.model_fields)
    monkeypatch.setattr(settings_module, "load_settings", lambda *_: pytest.fail("it was checked again"))
    assert checked_settings(LOCAL, ["reinforce.iterations=3"], state) == first


def test_other_text_and_other_overrides_are_checked(state: State, tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(LOCAL.read_text())
    first = checked_settings(config, [], state)
    config.write_text(LOCAL.read_text().replace("iterations: ", "iterations: 1"))
    second = checked_settings(config, [], state)
    assert second["reinforce"]["iterations"] > first["reinforce"]["iterations"]
    assert checked_settings(config, ["ingest.min_short_side=99"], state)["ingest"]["min_short_side"] == 99


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config", "nowhere.yaml"], "nowhere.yaml: there is no such configuration file"),
        (["--set", "reinforce.iteration=2"], "reinforce.iteration: unknown key; did you mean iterations?"),
        (["--set", "reinforce.iterations=two"], "reinforce.iterations: expected a valid integer, found 'two'"),
    ],
)
def test_mistakes_end_the_run_before_it_starts(
    arguments: list[str], message: str, state: State, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", *arguments]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(("shards", "graph"), [(1, training), (2, sharded_training)])
def test_the_number_of_shards_decides_which_graph_is_run(
    shards: int, graph: Pipeline, state: State, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[Pipeline] = []

    def refuse(pipeline: Pipeline, *_: Any, **__: Any) -> None:
        asked.append(pipeline)
        raise StackError("not now")

    monkeypatch.setattr(run_module, "run_pipeline", refuse)
    assert main(["run", "--set", f"scale_out.shards={shards}"]) == 2
    assert "not now" in capsys.readouterr().err
    assert asked == [graph]


def test_an_unknown_stack_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["stack", "--stack", "nowhere"]) == 2
    assert "no stack file" in capsys.readouterr().err


def test_the_environment_of_the_shell_is_kept_out(state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ZENML_STORE_URL", "ZENML_ACTIVE_STACK_ID", "MLFLOW_TRACKING_URI"):
        monkeypatch.setenv(name, "http://elsewhere")
    assert prepare() == state
    assert os.environ["ZENML_STORE_URL"] == f"sqlite:///{state.store}"
    assert "MLFLOW_TRACKING_URI" not in os.environ
    assert Path(os.environ["ZENML_CONFIG_PATH"]) == state.zenml


def test_preparing_too_late_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SPC_STATE", str(tmp_path))
    with pytest.raises(RuntimeError, match="before zenml is imported"):
        prepare()
