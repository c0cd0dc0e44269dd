"""The tracker that the stages report to, on a real MLflow store; batching on a recorder of its calls."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
import torch
from PIL import Image

from components.training.events import EventReader, EventWriter
from pipelines.environment import State
from steps import tracking
from steps.tracking import MlflowTracker, flatten

pytestmark = pytest.mark.slow


class Recorder:
    """Stands in for MLflow's client and keeps the sizes of the batches it is given."""

    def __init__(self) -> None:
        self.batches: list[int] = []

    def log_batch(self, run_id: str, metrics: Any = (), params: Any = (), tags: Any = ()) -> None:
        self.batches.append(len(metrics))


@pytest.fixture(scope="module")
def client(state: State) -> mlflow.MlflowClient:
    state.artifacts.mkdir(parents=True, exist_ok=True)
    return mlflow.MlflowClient(state.tracking_uri)


@pytest.fixture(scope="module")
def experiment(client: mlflow.MlflowClient, tmp_path_factory: pytest.TempPathFactory) -> str:
    return client.create_experiment("tracking", f"file:{tmp_path_factory.mktemp('artifacts')}")


@pytest.fixture
def run_id(client: mlflow.MlflowClient, experiment: str) -> Iterator[str]:
    run = client.create_run(experiment)
    yield run.info.run_id
    client.set_terminated(run.info.run_id)


def test_rates_on_a_gpu_that_the_planner_knows_come_with_mfu(
    client: mlflow.MlflowClient, run_id: str, tmp_path: Path
) -> None:
    """Also where the stage ran in processes of its own and its reports come through a file."""
    rate = {"reinforce/throughput/teraflops_per_second": 989.0}
    writer, tracker = EventWriter(tmp_path), MlflowTracker(client, run_id)
    writer.metrics(rate, 1)
    writer.hardware("NVIDIA H200", "bfloat16", 4)
    writer.metrics(rate, 2)
    writer.hardware("cpu", "float32", 4)
    writer.metrics(rate, 3)
    EventReader(tmp_path, tracker).forward()
    tracker.flush()
    history = client.get_metric_history(run_id, "reinforce/throughput/mfu")
    assert [(metric.step, metric.value) for metric in history] == [(2, 0.25)]
    tags = client.get_run(run_id).data.tags
    assert (tags["device"], tags["device_dtype"], tags["device_count"]) == ("cpu", "float32", "4")


def test_scalars_are_written_in_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    recorder, clock = Recorder(), [0.0]
    monkeypatch.setattr(tracking.time, "monotonic", lambda: clock[0])
    tracker = MlflowTracker(recorder, "run")
    for step in range(100):
        tracker.metrics({"loss": 1.0, "rate": 0.1}, step)
    assert recorder.batches == []
    clock[0] += 6
    tracker.metrics({"loss": 1.0}, 100)
    assert recorder.batches == [201]
    for step in range(1200):
        tracker.metrics({"loss": 1.0}, step)
    tracker.flush()
    assert recorder.batches == [201, 500, 500, 200]
    tracker.flush()
    assert sum(recorder.batches) == 201 + 1200


def test_names_and_values_arrive(client: mlflow.MlflowClient, run_id: str) -> None:
    tracker = MlflowTracker(client, run_id)
    tracker.metrics({"dropped/overlooked: exposure, contrast": 2.0, "loss": float("nan")}, 7)
    tracker.flush()
    metrics = client.get_run(run_id).data.metrics
    assert metrics["dropped/overlooked_ exposure_ contrast"] == 2.0
    assert np.isnan(metrics["loss"])


def test_a_note_is_the_description_of_the_run(client: mlflow.MlflowClient, run_id: str) -> None:
    tracker = MlflowTracker(client, run_id)
    tracker.note("look at the pictures")
    tracker.note("look again")
    assert client.get_run(run_id).data.tags["mlflow.note.content"] == "look again"


def test_nested_settings_become_dotted_names(client: mlflow.MlflowClient, run_id: str) -> None:
    settings = {"optimiser": {"steps": 3, "learning_rate": 1e-4}, "kinds": ("a", "b"), "name": "x", "on": True}
    tracker = MlflowTracker(client, run_id)
    tracker.params(settings)
    tracker.params(settings | {"kinds": ["a", "b"]})  # as read from JSON: the same values, so no contradiction
    assert client.get_run(run_id).data.params == {
        "optimiser.steps": "3",
        "optimiser.learning_rate": "0.0001",
        "kinds": '["a", "b"]',
        "name": "x",
        "on": "true",
    }


def test_more_settings_than_fit_into_one_request(client: mlflow.MlflowClient, run_id: str) -> None:
    MlflowTracker(client, run_id).params({f"p{n}": "x" * 10_000 for n in range(250)})
    params = client.get_run(run_id).data.params
    assert len(params) == 250
    assert {len(value) for value in params.values()} == {6000}


def test_a_picture_arrives_pixel_for_pixel(client: mlflow.MlflowClient, run_id: str, tmp_path: Path) -> None:
    picture = torch.arange(3 * 8 * 10).reshape(3, 8, 10) / 255
    MlflowTracker(client, run_id).picture("artist/before | after", picture, step=5)
    local = Path(client.download_artifacts(run_id, "images", str(tmp_path)))
    (path,) = [path for path in local.glob("*.png") if "step" in path.name]
    expected = (picture * 255).round().byte().permute(1, 2, 0).numpy()
    assert np.array_equal(np.asarray(Image.open(path)), expected)


def test_files_and_folders_arrive(client: mlflow.MlflowClient, run_id: str, tmp_path: Path) -> None:
    folder = tmp_path / "adapter"
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "weights").write_text("w")
    tracker = MlflowTracker(client, run_id)
    tracker.artifact(folder, "adapter")
    tracker.artifact(folder / "deep" / "weights", "single")
    local = Path(client.download_artifacts(run_id, "", str(tmp_path / "back")))
    assert (local / "adapter" / "deep" / "weights").read_text() == "w"
    assert (local / "single" / "weights").read_text() == "w"


def test_flatten() -> None:
    assert flatten({"a": {"b": {"c": None}}, "d": {}}) == {"a.b.c": "null"}


def test_outside_a_tracked_step_the_error_says_what_is_missing() -> None:
    with pytest.raises(RuntimeError, match="nested: true"), tracking.tracked():
        pass
