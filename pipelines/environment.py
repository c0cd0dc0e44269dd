"""Where everything a run leaves behind lives, and the environment that keeps ZenML and MLflow inside that folder.

Nothing outside the repository is read or written: neither the user's ZenML configuration nor a ZenML or MLflow server
that the shell happens to name. A server is used where the file of a stack names one, and then only that.
:func:`prepare` must run before the first import of ``zenml``, which reads its environment once, at import;
:mod:`pipelines.commands.common` does so.
"""

import os
import sys
from pathlib import Path
from typing import NamedTuple

from components.checkout import NoCheckoutError, checkout

try:
    ROOT = checkout()
except NoCheckoutError as error:
    print(error, file=sys.stderr)
    raise SystemExit(2) from error
"""The repository: the source root of the pipelines and the home of configs/, data/ and reports/."""

DYNAMIC_PIPELINES = {"ZENML_PARAMETER_SIZE_THRESHOLD": "-1"}
"""Has ZenML hand parameters to the steps of dynamic pipelines as it does in static ones. Otherwise each is uploaded as
an artifact of every run, and a step that has taken such an artifact is never found in the cache."""
_FOREIGN = ("ZENML_STORE_", "ZENML_SECRETS_STORE_", "ZENML_ACTIVE_", "ZENML_REPOSITORY_PATH", "MLFLOW_")


class State(NamedTuple):
    """The folders of one installation; all of them can be deleted, at the price of runs and models."""

    folder: Path
    server: str = ""
    """Name of the stack whose ZenML server is used; empty: the store in the state folder."""

    @property
    def zenml(self) -> Path:
        """ZenML's configuration, one for each server, and, without a server, its SQLite store."""
        return self.folder / (f"zenml-{self.server}" if self.server else "zenml")

    @property
    def store(self) -> Path:
        """ZenML's SQLite store, where no server is used."""
        return self.zenml / "local_stores" / "default_zen_store" / "zenml.db"

    @property
    def artifacts(self) -> Path:
        """ZenML's artifact store, with MLflow's database and artifacts beside it."""
        return self.folder / "artifacts"

    @property
    def tracking_uri(self) -> str:
        """Where ZenML's MLflow tracker keeps runs and models on a stack with a local artifact store."""
        return f"sqlite:///{self.artifacts / 'mlflow.db'}"

    @property
    def lock(self) -> Path:
        """Held while a pipeline runs, so that two runs never share the folders."""
        return self.folder / "pipeline.lock"

    @property
    def log(self) -> Path:
        """Everything the runs had to say, in full."""
        return self.folder / "pipeline.log"


def state() -> State:
    """The state folder: ``$SPC_STATE``, or ``.spc`` in the repository."""
    return State(Path(os.environ.get("SPC_STATE") or ROOT / ".spc").resolve())


def databases_of(state: State) -> list[Path]:
    """The databases that are there, of MLflow, ZenML and the facts of photos."""
    known = (state.artifacts / "mlflow.db", state.store, state.folder / "facts.sqlite")
    return [path for path in known if path.is_file()]


class Server(NamedTuple):
    """A ZenML server and how to log in to it."""

    name: str
    """The stack whose file names the server."""
    url: str
    api_key: str


def prepare(server: Server | None = None) -> State:
    """Set the environment of ZenML and MLflow for this process and its children, and return the state folder.

    Args:
        server: the ZenML server to talk to; None: the SQLite store in the state folder.

    Raises:
        RuntimeError: ``zenml`` has been imported already, so that it would go on using another configuration.
    """
    here = state()._replace(server=server.name if server else "")
    if "zenml" in sys.modules and os.environ.get("ZENML_CONFIG_PATH") != str(here.zenml):
        raise RuntimeError("pipelines.environment.prepare() must be called before zenml is imported")
    for name in [name for name in os.environ if name.startswith(_FOREIGN)]:
        del os.environ[name]
    if server:
        os.environ |= {"ZENML_STORE_TYPE": "rest", "ZENML_STORE_URL": server.url, "ZENML_STORE_API_KEY": server.api_key}
    else:  # or ZenML takes the store that its configuration names, which in a copied folder is the original's
        os.environ |= {"ZENML_STORE_TYPE": "sql", "ZENML_STORE_URL": f"sqlite:///{here.store}"}
        here.store.parent.mkdir(parents=True, exist_ok=True)
    here.zenml.mkdir(parents=True, exist_ok=True)
    os.environ |= {
        "SPC_STATE": str(here.folder),
        "ZENML_CONFIG_PATH": str(here.zenml),
        "ZENML_LOCAL_STORES_PATH": str(here.zenml / "local_stores"),
        "ZENML_CUSTOM_SOURCE_ROOT": str(ROOT),
        "ZENML_REPOSITORY_PATH": str(ROOT),  # never a .zen folder of a parent directory
        "ZENML_ANALYTICS_OPT_IN": "false",
        "ZENML_ENABLE_REPO_INIT_WARNINGS": "false",
        "ZENML_ENABLE_RICH_TRACEBACK": "false",
        "ZENML_DISABLE_STEP_NAMES_IN_LOGS": "true",
        **DYNAMIC_PIPELINES,
        "AUTO_OPEN_DASHBOARD": "false",
        "ZENML_AUTO_OPEN_DASHBOARD": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
        "MLFLOW_LOGGING_LEVEL": "WARNING",
        "DO_NOT_TRACK": "true",
        "GX_ANALYTICS_ENABLED": "false",
        "DVC_NO_ANALYTICS": "true",
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
    return here
