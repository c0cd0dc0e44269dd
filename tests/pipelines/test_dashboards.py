"""`make ui`: the environment of ZenML's server is spelt as ZenML reads it, and one page that ends takes both down."""

import sys
from pathlib import Path

import pytest
from zenml import constants
from zenml.enums import AuthScheme, StoreType
from zenml.models import ServerDeploymentType

from pipelines import dashboards
from pipelines.environment import State


def test_the_environment_is_what_zenml_reads(tmp_path: Path) -> None:
    environment = dashboards.zenml_environment(State(tmp_path), tmp_path / "zenml.db")
    store = constants.ENV_ZENML_STORE_PREFIX
    assert set(environment) == {
        constants.ENV_ZENML_SERVER,
        constants.ENV_ZENML_CONFIG_PATH,
        constants.ENV_ZENML_DISABLE_DATABASE_MIGRATION,
        constants.ENV_ZENML_SERVER_DEPLOYMENT_TYPE,
        constants.ENV_ZENML_SERVER_AUTH_SCHEME,
        constants.ENV_ZENML_SERVER_AUTO_ACTIVATE,
        constants.ENV_ZENML_SERVER_ALLOW_LOCAL_FILE_ACCESS,
        f"{store}TYPE",
        f"{store}URL",
    }
    assert AuthScheme(environment[constants.ENV_ZENML_SERVER_AUTH_SCHEME]) is AuthScheme.NO_AUTH
    assert ServerDeploymentType(environment[constants.ENV_ZENML_SERVER_DEPLOYMENT_TYPE]) is ServerDeploymentType.LOCAL
    assert StoreType(environment[f"{store}TYPE"]) is StoreType.SQL
    assert Path(environment[constants.ENV_ZENML_CONFIG_PATH]) != State(tmp_path).zenml  # looking changes nothing


def test_both_end_when_one_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = State(tmp_path)
    (state.zenml / "local_stores" / "default_zen_store").mkdir(parents=True)
    (state.zenml / "local_stores" / "default_zen_store" / "zenml.db").touch()
    wait = [sys.executable, "-S", "-c", "import time; time.sleep(600)"]
    monkeypatch.setattr(dashboards, "mlflow_command", lambda *_: wait)
    monkeypatch.setattr(dashboards, "zenml_command", lambda *_: [sys.executable, "-S", "-c", "raise SystemExit(3)"])
    assert dashboards.serve(state, 1, 2) == 3
