"""The whole job on a copy of the project with a handful of photos: killed, kept from writing, handed broken files.

Every run is the real command in a process of its own, on the real tiny models; only the counts are small.
"""

import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID
from PIL import Image

from steps.registry import MODEL
from tests.pipelines.project import BROKEN, REMOTE, UNUSUAL, WANTED, Project

pytestmark = pytest.mark.slow

FILE_LIMIT = 3_000_000
"""Bytes that no file may exceed in the run whose disk is "full": less than the package's model files have."""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return Project(tmp_path_factory.mktemp("project"))


@pytest.fixture(scope="module")
def killed(project: Project) -> int:
    """Stage III reached in a first run, which is then killed with all its processes; the number of its checkpoint."""
    process = project.start()
    deadline = time.monotonic() + 600
    while not (found := sorted(project.state.glob("checkpoints/reinforce-*/step-*"))):
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline, "stage III was not reached"
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    return int(found[-1].name.removeprefix("step-"))


@pytest.fixture(scope="module")
def full(project: Project, killed: int) -> tuple[int, str]:
    """A second run, in which no file may become large."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (FILE_LIMIT, FILE_LIMIT))

    return project.run(before=limit)


@pytest.fixture(scope="module")
def finished(project: Project, full: tuple[int, str]) -> tuple[int, str]:
    """A third run, with nothing in its way."""
    return project.run()


def client(project: Project) -> MlflowClient:
    return MlflowClient(f"sqlite:///{project.state / 'artifacts' / 'mlflow.db'}")


def runs(project: Project) -> list[Run]:
    """The nested MLflow runs of the last pipeline run."""
    experiment = client(project).get_experiment_by_name("smartphotocrafter")
    found = client(project).search_runs([experiment.experiment_id], order_by=["attributes.start_time DESC"])
    parent = next(run for run in found if MLFLOW_PARENT_RUN_ID not in run.data.tags)
    return [run for run in found if run.data.tags.get(MLFLOW_PARENT_RUN_ID) == parent.info.run_id]


def test_a_file_that_cannot_be_written_is_a_clear_error(full: tuple[int, str]) -> None:
    status, output = full
    assert status == 1
    assert "The pipeline stopped: OSError" in output
    assert "Finished steps are kept" in output


def test_the_killed_stage_goes_on_from_its_checkpoint(project: Project, killed: int, full: tuple[int, str]) -> None:
    log = (project.state / "pipeline.log").read_text()
    assert f"stage III: resuming at iteration {killed} of 3" in log


def test_finished_work_is_kept_until_the_job_is_done(project: Project, finished: tuple[int, str]) -> None:
    status, output = finished
    assert status == 0, output
    (cached,) = re.findall(r"\(11 steps, (\d+) from the cache\)", output)
    assert int(cached) >= 8  # everything before stage III, which goes on from a checkpoint
    assert (project.folder / "reports" / "latest" / "report.html").stat().st_size > 10_000


def test_unusable_files_are_quarantined_and_counted(project: Project, finished: tuple[int, str]) -> None:
    (ingested,) = (run for run in runs(project) if run.info.run_name == "ingest")
    original = ingested.data.tags.get("cached.run", ingested.info.run_id)
    metrics = client(project).get_run(original).data.metrics
    assert metrics["quarantined"] == len(BROKEN)
    assert metrics["photos"] == sum(WANTED.values()) + len(UNUSUAL)


def test_the_model_is_registered_and_enhances_a_photo(
    project: Project, finished: tuple[int, str], tmp_path: Path
) -> None:
    assert int(client(project).get_model_version_by_alias(MODEL, "challenger").version) == 1
    (package,) = project.state.glob("artifacts/evaluate/package/*/*/folder")
    source, out = project.folder / "data" / "photos" / "rotated.jpg", tmp_path / "out.jpg"
    command = [
        sys.executable,
        "-m",
        "pipelines",
        "enhance",
        str(source),
        str(out),
        "--model",
        str(package),
    ]
    done = subprocess.run(command, cwd=project.folder, env=project.environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Quality" in done.stdout
    with Image.open(source) as before, Image.open(out) as after:
        assert after.size == before.size[::-1]  # upright
        assert after.getexif()[0x0112] == 1


def test_a_missing_object_stops_the_job_and_putting_it_back_lets_it_go_on(
    project: Project, finished: tuple[int, str]
) -> None:
    photo = next(
        path for path in sorted((project.folder / "data" / "photos").glob("*.jpg")) if path.stat().st_size > 9000
    )
    content = photo.read_bytes()
    lost = [path for root in (REMOTE, ".dvc/cache") for path in (project.folder / root).rglob("*") if path.is_file()]
    lost = [path for path in lost if path.read_bytes() == content]
    assert len(lost) == 2
    kept = project.folder / "kept"
    shutil.move(lost[0], kept)
    lost[1].unlink()
    photo.unlink()
    status, output = project.run()
    assert status != 0
    assert "missing" in output
    assert "dvc push" in output
    shutil.move(kept, lost[0])
    status, output = project.run()
    assert status == 0, output
    assert photo.read_bytes() == content
    assert re.search(r"\(11 steps, (10|11) from the cache\)", output)  # ingest looks again: a file is new
