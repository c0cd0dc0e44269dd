"""The orchestration, on a small real pipeline: caching, resuming after a kill, and what MLflow is told."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import mlflow
import pytest
from filelock import FileLock
from mlflow.entities import Run
from zenml.client import Client

from pipelines.environment import ROOT, State
from pipelines.lock import BusyError
from pipelines.run import RunFailedError, completed, run_pipeline
from tests.pipelines.small import small

pytestmark = pytest.mark.slow

DEFAULTS = {"count": 6, "comment": "", "weight": 1}
SUM = sum(range(6))


class Outcome(NamedTuple):
    """A finished run of the small pipeline."""

    name: str
    steps: dict[str, str]
    outputs: dict[str, Path]
    parent: Run
    children: dict[str, Run]


def run_small(state: State, **settings: Any) -> Outcome:
    finished = run_pipeline(small, {"settings": DEFAULTS | settings}, stack="local", state=state)
    run = Client().get_pipeline_run(finished.run.id)
    client = mlflow.MlflowClient(state.tracking_uri)
    parent = client.get_run(finished.mlflow_run)
    found = client.search_runs([parent.info.experiment_id], f"tags.mlflow.parentRunId = '{parent.info.run_id}'")
    return Outcome(
        name=run.name,
        steps={name: step.status.value for name, step in run.steps.items()},
        outputs={name: step.output.load() for name, step in run.steps.items()},
        parent=parent,
        children={child.info.run_name: child for child in found},
    )


def run_in_another_process(state: State, environment: Mapping[str, str], **settings: Any) -> int:
    command = [sys.executable, "-m", "tests.pipelines.drive", json.dumps(settings)]
    environment = os.environ | {"SPC_STATE": str(state.folder), "PYTHONPATH": str(ROOT)} | environment
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, timeout=300, check=False).returncode


@pytest.fixture(scope="module")
def killed(state: State) -> int:
    """The exit code of a first run that was killed in the middle of training."""
    return run_in_another_process(state, {"SPC_TEST_KILL_AT": "3"})


@pytest.fixture(scope="module")
def resumed(state: State, killed: int) -> Outcome:
    """The run after the killed one, with nothing changed."""
    return run_small(state)


@pytest.fixture(scope="module")
def repeated(state: State, resumed: Outcome) -> Outcome:
    """The run after a complete one, with nothing changed."""
    return run_small(state)


def test_a_killed_run_keeps_its_finished_steps_and_resumes_the_killed_one(killed: int, resumed: Outcome) -> None:
    assert killed == -signal.SIGKILL
    assert resumed.steps == {"make": "cached", "train": "completed", "report": "completed"}
    model = json.loads((resumed.outputs["train"] / "model.json").read_text())
    assert (model["sum"], model["step"]) == (SUM, 6)
    assert len(model["processes"]) == 2, "the second process went on from the checkpoint of the first"


def test_runs_that_a_kill_left_open_are_marked(state: State, resumed: Outcome) -> None:
    client = mlflow.MlflowClient(state.tracking_uri)
    runs = client.search_runs([resumed.parent.info.experiment_id])
    other = [run for run in runs if run.info.run_name.startswith("small-") and run.info.run_name != resumed.name]
    assert [run.info.status for run in other] == ["KILLED"]
    assert not client.search_runs([resumed.parent.info.experiment_id], "attributes.status = 'RUNNING'")
    assert Client().get_pipeline_run(other[0].info.run_name).status.value == "failed"


def test_nothing_runs_again_when_nothing_changed(repeated: Outcome, resumed: Outcome) -> None:
    assert set(repeated.steps.values()) == {"cached"}
    assert repeated.outputs == resumed.outputs


def test_one_mlflow_run_with_a_nested_run_for_each_step(resumed: Outcome) -> None:
    assert resumed.parent.info.run_name == resumed.name
    assert resumed.parent.info.status == "FINISHED"
    assert set(resumed.children) == {"make", "train", "report"}
    assert {"git.revision", "git.dirty", "dvc.revision", "zenml.pipeline_run"} <= set(resumed.parent.data.tags)
    train = resumed.children["train"]
    assert train.data.params == {"weight": "1"}
    assert train.data.metrics["sum"] == SUM
    assert train.data.tags["cached"] == "no"
    assert {"git.revision", "dvc.revision", "zenml.step_run", "zenml.cache_key"} <= set(train.data.tags)


def test_every_scalar_arrives_once_with_its_step(state: State, resumed: Outcome) -> None:
    history = mlflow.MlflowClient(state.tracking_uri).get_metric_history(resumed.children["train"].info.run_id, "sum")
    assert [(metric.step, metric.value) for metric in history] == [(4, 6.0), (5, 10.0), (6, 15.0)]


def test_a_cached_step_has_a_nested_run_that_points_to_the_original(resumed: Outcome, repeated: Outcome) -> None:
    assert set(repeated.children) == {"make", "train", "report"}
    assert repeated.parent.info.status == "FINISHED"
    copy, original = repeated.children["train"], resumed.children["train"]
    assert copy.data.tags["cached"] == "yes"
    assert copy.data.tags["cached_from"] == original.info.run_id
    assert copy.data.metrics == original.data.metrics
    assert copy.data.params == original.data.params
    assert copy.info.status == "FINISHED"


def test_work_and_checkpoints_are_gone_after_success(state: State, repeated: Outcome) -> None:
    assert not (state.folder / "work").exists()
    assert not (state.folder / "checkpoints").exists()


def test_a_step_repeated_with_the_same_result_makes_nothing_after_it_run(state: State, repeated: Outcome) -> None:
    changed = run_small(state, comment="made anew")
    assert changed.steps == {"make": "completed", "train": "cached", "report": "cached"}


def test_a_failed_step_keeps_its_losses_and_the_steps_before_it(
    state: State, repeated: Outcome, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPC_TEST_RAISE_AT", "2")
    with pytest.raises(RuntimeError, match="the disk is full"):
        run_small(state, weight=2)
    client = mlflow.MlflowClient(state.tracking_uri)
    (failed,) = client.search_runs(
        [repeated.parent.info.experiment_id], "attributes.status = 'FAILED' and tags.mlflow.runName = 'train'"
    )
    assert failed.data.metrics["sum"] == 2 * (0 + 1)
    assert client.get_run(failed.data.tags["mlflow.parentRunId"]).info.status == "FAILED"
    (run,) = Client().list_pipeline_runs(status="failed", sort_by="desc:created", size=1).items
    with pytest.raises(RunFailedError, match=f"the run {run.name} ended as failed in train$"):
        completed(run.id)
    monkeypatch.delenv("SPC_TEST_RAISE_AT")
    after = run_small(state, weight=2)
    assert after.steps == {"make": "cached", "train": "completed", "report": "completed"}
    model = json.loads((after.outputs["train"] / "model.json").read_text())
    assert (model["sum"], len(model["processes"])) == (2 * SUM, 2)


def test_two_runs_at_once_are_refused(state: State) -> None:
    with FileLock(state.lock), pytest.raises(BusyError, match="another pipeline is running"):
        run_small(state)


def test_nothing_is_written_outside_the_state_folder(state: State, repeated: Outcome) -> None:
    assert Path(os.environ["ZENML_CONFIG_PATH"]).is_relative_to(state.folder)
    assert (state.artifacts / "mlflow.db").is_file()
    assert all(path.is_relative_to(state.artifacts) for path in repeated.outputs.values())
    assert not (ROOT / "mlruns").exists()
    assert not (ROOT / ".zen").exists()
