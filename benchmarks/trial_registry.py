"""A registry to try things on: small packages in SQLite or on a tracking server of its own."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import mlflow

from components.champion.address import MODEL
from components.models.package import Provenance, write_package

_PATIENCE = 600.0


def make_registry(uri: str, folder: Path, count: int, weight_bytes: int = 20_000) -> list[str]:
    """Register ``count`` versions with small packages of their own in the registry at ``uri``, which is new."""
    client = mlflow.MlflowClient(uri)
    location = None if uri.startswith("http") else f"file:{folder / 'artifacts'}"
    run = client.create_run(client.create_experiment("trial", location))
    client.create_registered_model(MODEL)
    for number in range(1, count + 1):
        sources = folder / "sources" / str(number)
        for part in ("base/critic", "base/artist", "critic", "artist"):
            (sources / part).mkdir(parents=True)
            (sources / part / "weights.safetensors").write_bytes(f"{part} {number} ".encode() * (weight_bytes // 16))
        provenance = Provenance(data_revision="d", code_revision="c", pipeline_run="r")
        out = sources / "artifacts" / "package"
        write_package(out, sources / "base", sources / "critic", sources / "artist", provenance, "# Card")
        client.log_artifacts(run.info.run_id, str(out.parent), f"{number}/artifacts")
        shutil.rmtree(sources)
        client.create_model_version(MODEL, source=f"{run.info.artifact_uri}/{number}", run_id=run.info.run_id)
    return [str(number) for number in range(1, count + 1)]


@contextlib.contextmanager
def tracking_server(folder: Path) -> Iterator[str]:
    """MLflow's server on a free port of this machine, which keeps everything in ``folder``; its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    storage = [
        "--backend-store-uri",
        f"sqlite:///{folder / 'server.db'}",
        "--artifacts-destination",
        str(folder / "kept"),
    ]
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    with (folder / "server.log").open("w") as log:
        process = subprocess.Popen([*command, *storage], stdout=log, stderr=log, start_new_session=True)
    try:
        deadline = time.monotonic() + _PATIENCE
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                break
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"MLflow's server does not start: see {folder / 'server.log'}")
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=20)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
