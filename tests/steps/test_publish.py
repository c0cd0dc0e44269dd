"""The champion in service: it follows the registry, is whole at every moment, and stays while it is read."""

import logging
import multiprocessing
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import mlflow
import pytest

from benchmarks.registry_kills import run_trial
from benchmarks.trial_registry import make_registry, tracking_server
from components.champion import service
from components.champion.copies import ChampionCopies
from components.models.package import PackageError, read_package
from steps.champion import promote_version, rollback
from steps.publish import publish_champion
from steps.registry import CHAMPION, MODEL, set_alias
from tests.steps.conftest import copy_registry


@pytest.fixture
def state(packages: Path, tmp_path: Path) -> Iterator[Path]:
    """A state folder with a registry of its own, whose champion is the second version."""
    folder = tmp_path / "state"
    (folder / "artifacts").mkdir(parents=True)
    mlflow.set_tracking_uri(copy_registry(packages, folder / "artifacts"))
    promote_version("1", None)
    promote_version("2", "1")
    yield folder
    mlflow.set_tracking_uri("")


def served(state: Path) -> str:
    """The version that a start gets, its package verified."""
    with service.champion(state, publish_champion) as folder:
        read_package(folder)
        present = ChampionCopies(state).present()
        assert present is not None
        return present[0].version


def test_every_start_gets_the_champion_of_the_registry(state: Path) -> None:
    assert served(state) == "2"
    rollback()
    assert served(state) == "1"
    set_alias(CHAMPION, "4")  # in MLflow's pages
    assert served(state) == "4"
    (copies,) = [path for path in (state / "champions").iterdir() if path.is_dir()]
    assert copies.name.startswith("4-"), "what nobody reads any more is gone"


@pytest.mark.slow
def test_the_command_itself_follows_and_needs_no_mlflow_where_nothing_changed(state: Path) -> None:
    code = (
        "import sys, pathlib; from components.champion import service\n"
        "with service.champion(pathlib.Path(sys.argv[1])) as folder: print(folder.parent.name[:2])\n"
        "assert 'mlflow' not in sys.modules"
    )
    for _ in range(2):
        done = subprocess.run([sys.executable, "-c", code, str(state)], capture_output=True, text=True, check=True)
        assert done.stdout == "2-\n", done.stderr


def test_a_version_deleted_in_the_registry_stays_in_service_and_that_is_said(
    state: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert served(state) == "2"
    mlflow.MlflowClient().delete_model_version(MODEL, "2")
    with caplog.at_level(logging.WARNING):
        assert served(state) == "2"
    assert "the registry has no champion any more" in caplog.text and "version 2" in caplog.text


def test_a_champion_whose_files_are_gone_is_not_taken_into_service(state: Path, caplog) -> None:
    assert served(state) == "2"
    next((state / "artifacts").rglob("3/artifacts/package/critic/weights.safetensors")).unlink()
    set_alias(CHAMPION, "3")
    with caplog.at_level(logging.WARNING):
        assert served(state) == "2"
    assert "version 3" in caplog.text and "Going on with version 2" in caplog.text


def test_a_damaged_copy_is_refused_and_renewed(state: Path) -> None:
    publish_champion(state)
    (state / CHAMPION / "critic" / "weights.safetensors").write_text("damaged")
    with pytest.raises(PackageError, match="altered"):
        served(state)
    publish_champion(state)  # `make champion`
    assert served(state) == "2"


def test_what_is_read_is_kept_and_swept_later(state: Path) -> None:
    publish_champion(state)
    with service.champion(state, publish_champion) as folder:
        set_alias(CHAMPION, "3")
        publish_champion(state)
        assert read_package(folder)
        assert (state / CHAMPION).resolve() != folder
    (state / "champions" / ".half-made").mkdir()
    publish_champion(state)
    assert not folder.exists() and not (state / "champions" / ".half-made").exists()


@pytest.mark.slow
def test_a_server_that_does_not_answer_is_named_and_the_champion_stays(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    state = tmp_path / "state"
    with tracking_server(tmp_path) as uri:
        make_registry(uri, tmp_path, 3)
        mlflow.set_tracking_uri(uri)
        promote_version("1", None)
        assert publish_champion(state) is not None
        promote_version("2", "1")
        assert served(state) == "2"
        next((tmp_path / "kept").rglob("3/artifacts/package/critic/weights.safetensors")).unlink()
        with pytest.raises(PackageError, match=r"version 3 .*critic/weights.safetensors is missing.*make pipeline"):
            promote_version("3", "2")
    mlflow.set_tracking_uri("")
    with caplog.at_level(logging.WARNING):
        assert served(state) == "2"
    assert f"the registry {uri} does not answer" in caplog.text


@pytest.mark.slow
def test_processes_that_are_killed_at_work_leave_a_registry_and_a_champion_that_agree(
    packages: Path, tmp_path: Path
) -> None:
    uri, versions = copy_registry(packages, tmp_path), ["1", "2", "3", "4"]
    (tmp_path / "state").mkdir()
    try:
        found = run_trial(uri, tmp_path / "state", versions, processes=5, kills=4)
    finally:
        mlflow.set_tracking_uri("")
    assert found.kills == 4 and found.readings > 0 and found.interrupted > 0
    assert (found.disagreeing, found.failed, found.twice) == (0, 0, 0)
    assert not multiprocessing.active_children()
