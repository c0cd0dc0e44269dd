"""`make ui`: MLflow's pages and ZenML's dashboard side by side, on the loopback address, until one of them ends.

Both ask for a password, which is made at the first call and kept in the state folder, and answer to their own pages
only (pipelines/guard.py). ZenML's server reads the same store as the pipelines do, under a configuration of its own, so
that looking changes nothing: the pipelines go on without a server.
"""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

from pipelines.environment import State
from pipelines.guard import HOST, USER, origins, password_of


def zenml_environment(state: State, store: Path, port: int) -> dict[str, str]:
    """The environment of a ZenML server for this machine alone, with a log-in.

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
        "ZENML_SERVER_AUTH_SCHEME": "OAUTH2_PASSWORD_BEARER",
        "ZENML_SERVER_CORS_ALLOW_ORIGINS": ",".join(origins(port)),
        "ZENML_SERVER_AUTO_ACTIVATE": "true",
        "ZENML_SERVER_ALLOW_LOCAL_FILE_ACCESS": "true",  # of artifact stores, which lie in the state folder
    }


def serve(state: State, mlflow_port: int, zenml_port: int) -> int:
    """Serve both; ZenML's only where a pipeline has run. Returns the status of the one that ended first."""
    ports = {"MLflow": mlflow_port, "ZenML": zenml_port}
    store = state.store
    if not store.is_file():
        print("ZenML's dashboard has nothing to show yet: run `make pipeline` first", flush=True)
        del ports["ZenML"]
    if taken := [f"{name}'s port {port}" for name, port in ports.items() if not _free(port)]:
        print(
            f"{' and '.join(taken)} is taken by another program: end it, or name others: make ui PORT=5001 (for "
            f"ZenML's: .venv/bin/smartphotocrafter ui --port 5001 --zenml-port 8238)",
            file=sys.stderr,
        )
        return 2
    secret = state.folder / "ui-password"
    password, new = password_of(secret)
    print(
        f"log in as {USER}, " + (f"password {password} (kept in {secret})" if new else f"the password is in {secret}")
    )
    (state.zenml / "server").mkdir(parents=True, exist_ok=True)
    running: list[subprocess.Popen[bytes]] = []
    previous = {number: signal.signal(number, _interrupt) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        for name, port in ports.items():
            more = zenml_environment(state, store, port) if name == "ZenML" else {}
            command = [sys.executable, "-m", "pipelines.dashboard_server", name.lower(), str(port), str(secret)]
            running.append(subprocess.Popen(command, env={**os.environ, **more}))
            print(f"{name:8} http://{HOST}:{port}", flush=True)
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
        for number, handler in previous.items():
            signal.signal(number, handler)


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _free(port: int) -> bool:
    """Whether nobody listens on the port."""
    with socket.socket() as attempt:
        attempt.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            attempt.bind((HOST, port))
        except OSError:
            return False
    return True
