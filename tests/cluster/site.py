"""Where the pipelines of `make test-cluster` run: a cluster, the servers beside it, and a small copy of the project.

On a real cluster (CONTEXT=) the servers are those that the variables of configs/stacks/kubernetes.yaml name; otherwise
everything is started here and stopped at the end, whatever happened in between.
"""

import contextlib
import inspect
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import httpx
import yaml
from kubernetes import client, config
from mlflow import MlflowClient

from pipelines.environment import ROOT
from tests.cluster.emulated import CONTEXT, EmulatedCluster
from tests.cluster.kubelet import MOUNT_POINTS
from tests.cluster.proxy import FaultyProxy
from tests.cluster.services import S3_ACCESS_KEY, S3_SECRET_KEY, Services
from tests.pipelines.project import Project

Result = TypeVar("Result")
REAL = os.environ.get("SPC_TEST_CONTEXT", "")
"""Context of a real cluster; empty: the emulated one."""
MORE_CODE = (
    "tests/cluster/drive.py",
    "tests/cluster/graph.py",
    "tests/cluster/nodes.py",
    "tests/cluster/shards.py",
    "tests/pipelines/small.py",
)
ITERATIONS = 16
"""Of stage III in the training run: enough to be caught in the middle."""
_IGNORED = "/data/\n/.spc/\n/.dvc/cache/\n/.dvc/tmp/\n/reports/\n__pycache__/\n"
_LENIENT = {
    "tolerances": dict.fromkeys(("psnr", "ciede2000", "lpips", "ssim"), 100.0),
    "limits": {},
    "confidence": 0.51,
    "resamples": 200,
}


class Outcome(NamedTuple):
    """How a submission ended."""

    code: int
    output: str

    @property
    def summary(self) -> dict[str, Any]:
        """What tests/cluster/drive.py printed."""
        return json.loads(self.output.strip().splitlines()[-1])


class Ended(Exception):  # noqa: N818
    """What was waited for can no longer happen; why is told by the outcome of the command."""


class Trained(NamedTuple):
    """How the training pipeline ended."""

    code: int
    output: str
    evicted: str = ""
    """The first pod of stage III, whose node was drained in the middle of it."""


class Site:
    """A cluster with its servers and the project that is submitted to it.

    Args:
        environment: of the commands that submit.
        namespace: of the pods.
        kubernetes: an administrator's client.
        mlflow: address of the MLflow server.
        project: folder of what is submitted.
        cluster, services, s3: only where they are emulated; faults of servers need them.
    """

    def __init__(
        self,
        environment: dict[str, str],
        namespace: str,
        kubernetes: client.ApiClient,
        mlflow: str,
        project: Path,
        cluster: EmulatedCluster | None = None,
        services: Services | None = None,
        s3: FaultyProxy | None = None,
    ) -> None:
        self.environment, self.namespace, self.kubernetes, self.mlflow = environment, namespace, kubernetes, mlflow
        self.project, self.cluster, self.services, self.s3 = project, cluster, services, s3
        self._submitter: subprocess.Popen[bytes] | None = None
        self.core, self.batch = client.CoreV1Api(kubernetes), client.BatchV1Api(kubernetes)

    def of(self, project: Path, **variables: str) -> "Site":
        """The same cluster and servers for another project, or with other variables."""
        environment = self.environment | {"PYTHONPATH": str(project)} | variables
        known = self.namespace, self.kubernetes, self.mlflow
        return Site(environment, *known, project, self.cluster, self.services, self.s3)

    def run(self, *arguments: str, during: Callable[[], None] | None = None) -> Outcome:
        """`smartphotocrafter` with these arguments; ``during`` is called once it was started."""
        return self._submit(["pipelines", *arguments], during)

    def drive(self, during: Callable[[], None] | None = None, **settings: Any) -> Outcome:
        """Submit a small pipeline, as tests/cluster/drive.py says."""
        return self._submit(["tests.cluster.drive", json.dumps(settings)], during)

    def pods(self, stage: str) -> list[client.V1Pod]:
        """Pods of a stage, the newest last; ZenML's label holds the name of the step. "": those that start stages."""
        return sorted(
            (
                pod
                for pod in self.core.list_namespaced_pod(self.namespace).items
                if (pod.metadata.labels or {}).get("step_name", "") == stage and "run_id" in (pod.metadata.labels or {})
            ),
            key=lambda pod: pod.metadata.creation_timestamp,
        )

    def log(self, pod: str) -> str:
        """What a pod has printed; nothing while it has not started."""
        try:
            return str(self.core.read_namespaced_pod_log(pod, self.namespace))
        except client.ApiException:
            return ""

    def wait(self, condition: Callable[[], Result], seconds: float = 900) -> Result:
        """Ask until the answer is true; that answer.

        Raises:
            Ended: the command that was to bring it about is over.
            TimeoutError: it was not in time.
        """
        end = time.monotonic() + seconds
        while not (answer := condition()):
            if self._submitter is not None and self._submitter.poll() is not None:
                raise Ended
            if time.monotonic() > end:
                raise TimeoutError(f"not so within {seconds:.0f} s: {inspect.getsource(condition).strip()}")
            time.sleep(0.2)
        return answer

    def new_pod(self, stage: str, before: set[str], printed: str = "", seconds: float = 900) -> str:
        """Wait until a pod of ``stage`` that is not among ``before`` runs and has printed something; its name."""

        def found() -> str:
            for pod in self.pods(stage):
                new = pod.metadata.name not in before and pod.status.phase == "Running"
                if new and printed in self.log(pod.metadata.name):
                    return str(pod.metadata.name)
            return ""

        return self.wait(found, seconds)

    def evict(self, pod: str) -> None:
        """End a pod as the drain of its node does."""
        body = {"metadata": {"name": pod}, "apiVersion": "policy/v1", "kind": "Eviction"}
        self.core.create_namespaced_pod_eviction(pod, self.namespace, body)

    def kill(self, pod: str) -> None:
        """End a pod at once, without a time of grace."""
        self.core.delete_namespaced_pod(pod, self.namespace, grace_period_seconds=0)

    def _submit(self, module: list[str], during: Callable[[], None] | None) -> Outcome:
        with tempfile.TemporaryFile("w+") as output:
            self._submitter = subprocess.Popen(
                [sys.executable, "-m", *module],
                cwd=self.project,
                env=self.environment,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
            try:
                if during is not None:
                    with contextlib.suppress(Ended):
                        during()
                self._submitter.wait(timeout=1800)
            finally:
                self._submitter.kill()
                code, self._submitter = self._submitter.wait(), None
            output.seek(0)
            return Outcome(code, output.read())


def train(site: Site) -> Trained:
    """Run the training pipeline, and drain the node of stage III once it has a checkpoint."""
    evicted: list[str] = []

    def drain() -> None:
        """Once MLflow has heard of the second iteration, there is a checkpoint of the first."""
        evicted.append(site.new_pod("reinforce", set(), seconds=1500))
        site.wait(lambda: steps_of_open_run(site.mlflow, "reinforce") >= 2, seconds=300)
        site.evict(evicted[0])

    profile = ("--config", "configs/small.yaml", "--stack", "kubernetes")
    outcome = site.run("run", *profile, "--set", f"reinforce.iterations={ITERATIONS}", during=drain)
    return Trained(outcome.code, outcome.output, *evicted[:1])


def steps_of_open_run(mlflow: str, stage: str) -> int:
    """How many steps (iterations, in stage III) of a stage that runs at the moment have reached MLflow."""
    experiment = MlflowClient(mlflow).get_experiment_by_name("smartphotocrafter")
    query = f"attributes.status = 'RUNNING' and tags.mlflow.runName = '{stage}'"
    found = httpx.post(  # MLflow's own client does not tell the step of a run's last metrics
        f"{mlflow}/api/2.0/mlflow/runs/search",
        json={"experiment_ids": [experiment.experiment_id], "filter": query},
        timeout=60,
    ).json()
    return max(
        (int(item["step"]) for run in found.get("runs", []) for item in run["data"].get("metrics", [])), default=0
    )


@contextlib.contextmanager
def open_site(folder: Path) -> Iterator[Site]:
    """Start what has to be started, below ``folder``, and stop it again."""
    project = _small_project(folder / "project")
    if REAL:
        environment = dict(os.environ) | {"SPC_KUBE_CONTEXT": REAL, "SPC_STATE": str(folder / "state")}
        environment["PYTHONPATH"] = str(project)
        namespace = os.environ.get("SPC_NAMESPACE", "smartphotocrafter")
        api = config.new_client_from_config(context=REAL)
        yield Site(environment, namespace, api, os.environ.get("SPC_MLFLOW_URL", ""), project)
        return
    with contextlib.ExitStack() as ending:
        for path in map(Path, MOUNT_POINTS):
            if not path.exists():
                path.mkdir()
                ending.callback(path.rmdir)
        cluster = EmulatedCluster(folder / "cluster")
        ending.callback(cluster.stop)
        services = ending.enter_context(Services(folder / "services"))
        s3 = FaultyProxy(services.s3_url)
        ending.callback(s3.stop)
        for name in ("access", "limits", "storage"):
            cluster.apply(*yaml.safe_load_all((ROOT / "deploy" / "base" / f"{name}.yaml").read_text()))
        cluster.apply({"kind": "Secret", "metadata": {"name": "spc-data"}, "stringData": {"OPENAI_API_KEY": "none"}})
        user = cluster.token(f"system:serviceaccount:{cluster.namespace}:smartphotocrafter-submitter")
        environment = _environment(folder, project, services, s3)
        environment["KUBECONFIG"] = str(cluster.write_kubeconfig(folder / "submitter", user))
        administrator = config.new_client_from_config(str(cluster.kubeconfig), context=CONTEXT)
        yield Site(environment, cluster.namespace, administrator, services.mlflow_url, project, cluster, services, s3)


def _environment(folder: Path, project: Path, services: Services, s3: FaultyProxy) -> dict[str, str]:
    """Of whoever submits: the variables of configs/stacks/kubernetes.yaml, and nothing of this machine's user."""
    kept = {key: os.environ[key] for key in ("PATH", "LANG", "OMP_NUM_THREADS") if key in os.environ}
    return kept | {
        "HOME": str(folder),
        "PYTHONPATH": str(project),
        "SPC_STATE": str(folder / "state"),
        "SPC_KUBE_CONTEXT": CONTEXT,
        "SPC_ZENML_URL": services.zenml_url,
        "SPC_ZENML_API_KEY": services.api_key,
        "SPC_ARTIFACTS": "s3://artifacts/runs",
        "SPC_S3_ENDPOINT": s3.url,
        "SPC_S3_ACCESS_KEY_ID": S3_ACCESS_KEY,
        "SPC_S3_SECRET_ACCESS_KEY": S3_SECRET_KEY,
        "SPC_MLFLOW_URL": services.mlflow_url,
        "SPC_MLFLOW_USERNAME": "enhancer",
        "SPC_MLFLOW_PASSWORD": "unused",
        "SPC_REGISTRY": "registry.example.org/team",
        "SPC_IMAGE": "registry.example.org/team/smartphotocrafter:cpu",
    }


def _small_project(folder: Path) -> Path:
    folder.mkdir(parents=True)
    Project(folder, MORE_CODE)
    profile = folder / "configs" / "small.yaml"
    profile.write_text(yaml.safe_dump(yaml.safe_load(profile.read_text()) | {"gate": _LENIENT}))
    (folder / ".gitignore").write_text(_IGNORED)
    _commit(folder)
    return folder


def whole_project(folder: Path) -> Path:
    """A copy of this repository as it is, with changes that are not committed; its data is still to be fetched."""
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, cwd=ROOT, check=True, capture_output=True, text=True).stdout.split("\0")
    for name in filter(None, names):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    _commit(folder)
    return folder


def _commit(folder: Path) -> None:
    """Make it a repository, since the code that travels to the pods is what git does not ignore."""
    git = ["git", "-c", "user.name=Test", "-c", "user.email=test@example.org"]
    for arguments in ("init --quiet --initial-branch main", "add .", "commit --quiet --message first"):
        subprocess.run([*git, *arguments.split()], cwd=folder, check=True, capture_output=True)
