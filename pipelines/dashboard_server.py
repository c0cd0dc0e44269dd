"""One of the dashboards behind its guard: `python -m pipelines.dashboard_server mlflow|zenml PORT PASSWORD_FILE`.

Runs in a process of its own, since ZenML's server and MLflow's read their environment at import.
"""

import os
import sys
from pathlib import Path

import uvicorn
from starlette.types import ASGIApp

from pipelines.environment import state
from pipelines.guard import HOST, MLFLOW_WRITES, USER, ZENML_WRITES, Guard, addresses, origins, password_of

_SECONDS = 3  # for open connections, when it ends


class ForeignStoreError(RuntimeError):
    """ZenML's store has an artifact store that lies outside the state folder."""


def mlflow_app(port: int, password: str) -> ASGIApp:
    """MLflow's pages, without uploads; MLflow has no users here, so the guard asks for the password."""
    here = state()
    os.environ["MLFLOW_SERVER_ALLOWED_HOSTS"] = ",".join(addresses(port))
    os.environ["MLFLOW_SERVER_CORS_ALLOWED_ORIGINS"] = ",".join(origins(port))
    from mlflow.server.constants import ARTIFACT_ROOT_ENV_VAR, BACKEND_STORE_URI_ENV_VAR
    from mlflow.server.fastapi_app import app

    os.environ |= {BACKEND_STORE_URI_ENV_VAR: here.tracking_uri, ARTIFACT_ROOT_ENV_VAR: str(here.artifacts)}
    return Guard(app, port, MLFLOW_WRITES, password)


def zenml_app(port: int, password: str) -> ASGIApp:
    """ZenML's dashboard, which has a log-in of its own.

    Raises:
        ForeignStoreError: by an artifact store outside the state folder the server would read other files.
    """
    prepare_store(password, state().folder)
    from zenml.zen_server.zen_server_api import app

    return Guard(app, port, ZENML_WRITES)


def prepare_store(password: str, folder: Path) -> None:
    """Give the store's user the password, and answers to the questions that the dashboard asks a new user.

    Pipelines use the store without a server, and so without a password.
    """
    from zenml.config.global_config import GlobalConfiguration
    from zenml.enums import StackComponentType
    from zenml.models import ComponentFilter, ServerSettingsUpdate, UserUpdate

    store = GlobalConfiguration().zen_store
    every = ComponentFilter(type=StackComponentType.ARTIFACT_STORE, size=1000)
    for found in store.list_stack_components(every, hydrate=True).items:
        path = str(found.configuration.get("path") or "")
        if path and "://" not in path and not Path(path).resolve().is_relative_to(folder):
            raise ForeignStoreError(
                f"the artifact store {found.name!r} lies at {path}, outside {folder}: ZenML's dashboard would show any "
                f"file there. Delete it: SPC_STATE={folder} ZENML_CONFIG_PATH={state().zenml} zenml artifact-store "
                f"delete {found.name}"
            )
    user = store.get_user(USER)
    answers = {**(user.user_metadata or {}), "finished_onboarding_survey": True}
    store.update_user(user.id, UserUpdate(password=password, email_opted_in=False, user_metadata=answers))
    silent = ServerSettingsUpdate(enable_analytics=False, display_announcements=False, display_updates=False)
    store.update_server_settings(silent)


def main(arguments: list[str]) -> int:
    """Serve until ended; 2 where it could not start."""
    name, port, password_file = arguments
    password, _ = password_of(Path(password_file))
    try:
        app = {"mlflow": mlflow_app, "zenml": zenml_app}[name](int(port), password)
    except ForeignStoreError as error:
        print(error, file=sys.stderr)
        return 2
    uvicorn.run(app, host=HOST, port=int(port), log_level="warning", timeout_graceful_shutdown=_SECONDS)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
