"""The steps around the pods of a stage on several nodes, and what the pods do with what those have laid down."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import mlflow
import pytest
from zenml.client import Client
from zenml.models import PipelineRunResponse

from components.data.versioning import data_revision
from components.settings import load_settings
from components.training.job import JOB_FILE, RESULT_FILE, Job, read_job
from pipelines.environment import ROOT, State
from pipelines.run import run_pipeline
from steps import node
from steps.directories import content_hash
from steps.pods import RUN_VARIABLE, STATE_VARIABLE, STEP_RUN_VARIABLE, command, run_folder
from tests.pipelines.prepared import prepared

pytestmark = pytest.mark.slow

STAGE = "adapt_artist"


def run(state: State, follow: bool = False, use_cache: bool = True, **compute: Any) -> PipelineRunResponse:
    """Prepare the job; the finished run."""
    settings = load_settings(ROOT / "configs" / "local.yaml").model_dump(mode="json")[STAGE]
    settings["compute"] |= {"wait_for_nodes": 0.2, **compute}
    parameters = {"settings": {STAGE: settings}, "data_revision": data_revision(ROOT), "follow": follow}
    return run_pipeline(prepared, parameters, stack="local", state=state, use_cache=use_cache).run


def job_of(finished: PipelineRunResponse) -> Path:
    return Path(finished.steps["prepare_adapt_artist"].output.load())


def environment(finished: PipelineRunResponse, state: State) -> dict[str, str]:
    """What the pod of a node has that is the only one."""
    return {
        STATE_VARIABLE: str(state.folder),
        RUN_VARIABLE: str(finished.id),
        STEP_RUN_VARIABLE: str(finished.steps["prepare_adapt_artist"].id),
        "ZENML_KUBERNETES_MAIN_ADDRESS": "job-0.job.ns.svc",
        "ZENML_KUBERNETES_MAIN_PORT": "29500",
        "ZENML_KUBERNETES_POD_COUNT": "1",
        "JOB_COMPLETION_INDEX": "0",
    }


@pytest.fixture(scope="module")
def first(state: State) -> PipelineRunResponse:
    return run(state)


def test_the_job_names_everything_on_the_shared_volume(state: State, first: PipelineRunResponse) -> None:
    folder = job_of(first)
    arguments = read_job(folder / JOB_FILE).arguments
    given = {name: path for name, path in arguments.items() if name not in ("base", "checkpoints")}
    assert {name: (path / "name.txt").read_text() for name, path in given.items()} == {
        "critic_adapter": "critic",
        "artist_adapter": "artist",
        "pairs_dir": "pairs",
    }
    assert content_hash(arguments["base"]) == content_hash(ROOT / "data" / "base")
    assert arguments["checkpoints"].parent == folder
    assert all(path.is_relative_to(state.folder) for path in arguments.values())
    mine = run_folder(state.folder, str(first.id))
    assert (mine / STAGE).read_text() == str(folder)
    assert (mine / "code" / "steps" / "node.py").read_bytes() == Path(node.__file__).read_bytes()


def test_a_repeated_run_finds_the_job_and_its_result(state: State, first: PipelineRunResponse) -> None:
    folder = job_of(first)
    result = folder / "attempts" / "done"
    Job(settings={}, arguments={}).write(result)
    (result / "out").mkdir()
    (result / "out" / "adapter.txt").write_text("weights")
    (result / RESULT_FILE).write_text(json.dumps({"loss": 0.5}))
    (folder / JOB_FILE).unlink()
    again = run(state, follow=True)
    assert job_of(again) == folder and not (folder / JOB_FILE).exists(), "nothing is fetched for it"
    adapter = again.steps["follow_adapt_artist"].output.load()
    assert (adapter / "adapter.txt").read_text() == "weights"
    assert run(state, follow=True).steps["follow_adapt_artist"].status.value == "cached"
    client = mlflow.MlflowClient(state.tracking_uri)
    experiment = client.get_experiment_by_name("smartphotocrafter").experiment_id
    tagged = client.search_runs([experiment], f"tags.`zenml.step_run` = '{again.steps['follow_adapt_artist'].id}'")
    assert [child.info.status for child in tagged] == ["FINISHED"]
    other = run(state, processes=2)
    assert job_of(other) != folder
    anew = run(state, use_cache=False)
    assert job_of(anew) == folder and not result.exists() and (folder / JOB_FILE).exists()


def test_the_command_finds_the_code_and_the_job_of_its_run(state: State, first: PipelineRunResponse) -> None:
    finished = run(state)
    folder = job_of(finished)
    (attempt := folder / "attempts" / "done").mkdir(parents=True, exist_ok=True)
    Job(settings={}, arguments={}).write(attempt)
    (attempt / RESULT_FILE).write_text("{}")
    pod = subprocess.run(
        command(STAGE),
        env=os.environ | environment(finished, state) | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert pod.returncode == 0, pod.stderr
    assert "adapt_artist: done already, by the attempt done" in pod.stderr
    (attempt / RESULT_FILE).unlink()


def test_zenml_is_told_why_a_node_failed(state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    finished = run(state)
    file = job_of(finished) / JOB_FILE
    job = read_job(file)
    job.settings["compute"]["nodes"] = 2  # which the pipeline refuses on a stack without a cluster
    job.write(file.parent)
    for name, value in (environment(finished, state) | {"ZENML_KUBERNETES_POD_COUNT": "2"}).items():
        monkeypatch.setenv(name, value)
    handler = signal.getsignal(signal.SIGTERM)
    try:
        assert node.main(STAGE) == 1
    finally:
        signal.signal(signal.SIGTERM, handler)
    told = Client().get_run_step(finished.steps["prepare_adapt_artist"].id).exception_info
    assert told is not None and told.message.startswith("node 0 of 2 has waited 0.2 s for 1")
    assert "Traceback" in told.traceback
