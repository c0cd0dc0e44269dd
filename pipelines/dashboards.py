"""`make ui`: MLflow's pages and ZenML's dashboard side by side, on the loopback address, until one of them ends.

ZenML's server reads the same store as the pipelines do, under a configuration of its own, so that looking changes
nothing: the pipelines go on without a server.
"""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from pipelines.environment import State

HOST = "127.0.0.1"


def mlflow_command(state: State, port: int) -> list[str]:
    """What serves the runs and models."""
    command = [sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", state.tracking_uri]
    return [*command, "--host", HOST, "--port", str(port)]


def zenml_command(port: int) -> list[str]:
    """What serves the pipelines, their graphs and artifacts."""
    command = [sys.executable, "-m", "uvicorn", "zenml.zen_server.zen_server_api:app", "--log-level", "warning"]
    return [*command, "--host", HOST, "--port", str(port)]


def zenml_environment(state: State, store: Path) -> dict[str, str]:
    """The environment of a ZenML server for this machine alone: no login, as `zenml login --local` sets it up.

    Args:
        store: ZenML's SQLite file.
    """
    return {
        "ZENML_SERVER": "true",
        "ZENML_CONFIG_PATH": str(state.zenml / "server"),
        "ZENML_STORE_TYPE": "sql",
        "ZENML_STORE_URL": f"sqlite:///{store}",
        "DISABLE_DATABASE_MIGRATION": "true",
        "ZENML_SERVER_DEPLOYMENT_TYPE": "local",
        "ZENML_SERVER_AUTH_SCHEME": "NO_AUTH",
        "ZENML_SERVER_AUTO_ACTIVATE": "true",
        "ZENML_SERVER_ALLOW_LOCAL_FILE_ACCESS": "true",
    }


def serve(state: State, mlflow_port: int, zenml_port: int) -> int:
    """Serve both; ZenML's only where a pipeline has run. Returns the status of the one that ended first."""
    commands: list[tuple[str, Sequence[str], Mapping[str, str]]] = [
        (f"MLflow   http://{HOST}:{mlflow_port}", mlflow_command(state, mlflow_port), {})
    ]
    store = state.zenml / "local_stores" / "default_zen_store" / "zenml.db"
    if store.is_file():
        (state.zenml / "server").mkdir(exist_ok=True)
        zenml = zenml_command(zenml_port)
        commands.append((f"ZenML    http://{HOST}:{zenml_port}", zenml, zenml_environment(state, store)))
    else:
        print("ZenML's dashboard has nothing to show yet: run `make pipeline` first", flush=True)
    running: list[subprocess.Popen] = []
    try:
        for label, command, environment in commands:
            running.append(subprocess.Popen(command, env={**os.environ, **environment}))
            print(label, flush=True)
        while True:
            for process in running:
                try:
                    return process.wait(timeout=0.5)
                except subprocess.TimeoutExpired:
                    continue
    finally:
        for process in running:
            process.terminate()
        for process in running:
            process.wait()
