"""The servers beside the cluster, all real: ZenML's REST server, MLflow's server on PostgreSQL, and moto's S3.

PostgreSQL is Debian's package; where its programs are missing, MLflow keeps its runs in SQLite, and the suite says so.
"""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import boto3
import httpx
from moto.server import ThreadedMotoServer

_POSTGRES = Path("/usr/lib/postgresql")
_BOOT_SECONDS = 300.0
S3_ACCESS_KEY = S3_SECRET_KEY = "emulated"


def _postgres_programs() -> list[Path]:
    """Folders with PostgreSQL's programs, the newest last; none where it cannot be started."""
    if shutil.which("runuser") is None or os.geteuid() != 0:
        return []
    return sorted(_POSTGRES.glob("*/bin"))


def free_port() -> int:
    """A port of the loopback address that nobody listens on at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Services:
    """Every server, between entering and leaving the context.

    Args:
        folder: for their files and logs.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.api_key = self.database = ""
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._folders: list[Path] = []
        self._s3_port, self._zenml_port, self._mlflow_port = free_port(), free_port(), free_port()
        self._s3 = ThreadedMotoServer(ip_address="127.0.0.1", port=self._s3_port, verbose=False)
        self.s3_url, self.zenml_url, self.mlflow_url = (
            f"http://127.0.0.1:{port}" for port in (self._s3_port, self._zenml_port, self._mlflow_port)
        )

    def __enter__(self) -> "Services":
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            self._s3.start()
            for bucket in ("artifacts", "mlflow"):
                self.s3().create_bucket(Bucket=bucket)
            self.database = self._start_database()
            self.start_zenml(wait=False)
            self.start_mlflow(wait=False)
            self._wait("mlflow", f"{self.mlflow_url}/health")
            self._wait("zenml", f"{self.zenml_url}/health")
            self.api_key = self._make_api_key()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for name in reversed(list(self._processes)):  # PostgreSQL last: it waits for those that use it
            self.end(name)
        for folder in self._folders:
            shutil.rmtree(folder, ignore_errors=True)
        self._s3.stop()

    def s3(self) -> Any:
        """A client of the store."""
        return boto3.client(
            "s3",
            endpoint_url=self.s3_url,
            aws_access_key_id=S3_ACCESS_KEY,
            aws_secret_access_key=S3_SECRET_KEY,
            region_name="us-east-1",
        )

    def start_zenml(self, wait: bool = True) -> None:
        """Start ZenML's REST server, with the store it had before."""
        environment = {
            "ZENML_SERVER": "true",
            "ZENML_CONFIG_PATH": str(self.folder / "zenml"),
            "ZENML_LOCAL_STORES_PATH": str(self.folder / "zenml" / "stores"),
            "ZENML_SERVER_DEPLOYMENT_TYPE": "other",
            "ZENML_SERVER_AUTO_ACTIVATE": "true",
            "ZENML_SERVER_JWT_SECRET_KEY": "0123456789abcdef" * 4,
            "ZENML_SERVER_JWT_TOKEN_EXPIRE_MINUTES": "1",  # every run outlives the token it was submitted with
            "ZENML_DEFAULT_USER_NAME": "default",
            "ZENML_DEFAULT_USER_PASSWORD": "emulated",
            "ZENML_ANALYTICS_OPT_IN": "false",
        }
        arguments = ["-m", "uvicorn", "zenml.zen_server.zen_server_api:app", "--host", "127.0.0.1"]
        self._start("zenml", [sys.executable, *arguments, "--port", str(self._zenml_port)], environment)
        if wait:
            self._wait("zenml", f"{self.zenml_url}/health")

    def start_mlflow(self, wait: bool = True) -> None:
        """Start MLflow's server, with the runs and models it had before."""
        environment = {
            "MLFLOW_BACKEND_STORE_URI": self.database,
            "MLFLOW_S3_ENDPOINT_URL": self.s3_url,
            "AWS_ACCESS_KEY_ID": S3_ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": S3_SECRET_KEY,
            "AWS_DEFAULT_REGION": "us-east-1",
            "MLFLOW_DISABLE_TELEMETRY": "true",
        }
        listen = ["--host", "127.0.0.1", "--port", str(self._mlflow_port), "--workers", "1"]
        storage = ["--serve-artifacts", "--artifacts-destination", "s3://mlflow"]
        self._start("mlflow", [sys.executable, "-m", "mlflow", "server", *listen, *storage], environment)
        if wait:
            self._wait("mlflow", f"{self.mlflow_url}/health")

    def log(self, name: str) -> str:
        """What a server has printed."""
        return (self.folder / f"{name}.log").read_text(errors="replace")

    def end(self, name: str) -> None:
        """End one server, `zenml` or `mlflow`, and everything it started."""
        process = self._processes.pop(name)
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=20)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    @property
    def has_postgres(self) -> bool:
        """Whether PostgreSQL is installed here."""
        return bool(_postgres_programs())

    def _start_database(self) -> str:
        """Address of a new PostgreSQL cluster, or of a SQLite file where PostgreSQL is not installed."""
        programs = _postgres_programs()
        if not programs:
            return f"sqlite:///{self.folder / 'mlflow.db'}"
        # The server refuses root, and folders of pytest are closed to others by every run of it that starts.
        folder, port = Path(tempfile.mkdtemp(prefix="spc-postgres-")), free_port()
        self._folders.append(folder)
        shutil.chown(folder, "postgres", "postgres")
        data = folder / "data"
        as_postgres = ["runuser", "-u", "postgres", "--"]
        initialise = [str(programs[-1] / "initdb"), "--auth=trust", "--username=mlflow", "--no-sync", "-D", str(data)]
        subprocess.run([*as_postgres, *initialise], check=True, capture_output=True, timeout=120)
        serve = [str(programs[-1] / "postgres"), "-D", str(data), "-p", str(port), "-k", str(folder), "-c", "fsync=off"]
        self._start("postgres", [*as_postgres, *serve, "-c", "listen_addresses=127.0.0.1"], {})
        ready = [str(programs[-1] / "pg_isready"), "-h", "127.0.0.1", "-p", str(port)]
        end = time.monotonic() + 60
        while subprocess.run(ready, capture_output=True, check=False).returncode != 0:
            if time.monotonic() > end:
                raise TimeoutError(f"PostgreSQL did not start: {self.folder / 'postgres.log'}")
            time.sleep(0.2)
        return f"postgresql+psycopg2://mlflow@127.0.0.1:{port}/postgres"

    def _make_api_key(self) -> str:
        """An API key of a new service account, made as an administrator would."""
        login = {"username": "default", "password": "emulated"}
        api = f"{self.zenml_url}/api/v1"
        token = httpx.post(f"{api}/login", data=login, timeout=60).raise_for_status().json()["access_token"]
        headers = {"Authorization": f"Bearer {token}"}
        account = httpx.post(
            f"{api}/service_accounts", json={"name": "runs", "active": True}, headers=headers, timeout=60
        )
        identifier = account.raise_for_status().json()["id"]
        made = httpx.post(
            f"{api}/service_accounts/{identifier}/api_keys", json={"name": "runs"}, headers=headers, timeout=60
        )
        return str(made.raise_for_status().json()["body"]["key"])

    def _start(self, name: str, command: list[str], environment: dict[str, str]) -> None:
        inherited = {key: os.environ[key] for key in ("PATH", "LANG", "OMP_NUM_THREADS") if key in os.environ}
        with (self.folder / f"{name}.log").open("ab") as log:
            self._processes[name] = subprocess.Popen(
                command,
                env=inherited | {"HOME": str(self.folder)} | environment,
                cwd=self.folder,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def _wait(self, name: str, url: str) -> None:
        end = time.monotonic() + _BOOT_SECONDS
        while True:
            try:
                if httpx.get(url, timeout=5).status_code == 200:
                    return
            except httpx.HTTPError:
                pass
            if self._processes[name].poll() is not None or time.monotonic() > end:
                raise TimeoutError(f"{name} did not start: {self.log(name)[-3000:]}")
            time.sleep(0.3)
