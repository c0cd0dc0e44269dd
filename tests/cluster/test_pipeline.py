"""Pipelines in pods, from submission to MLflow: on the emulated cluster, or, with CONTEXT=, on a real one.

Slow, so `make test` leaves it out and `make test-cluster` runs it. Of the cluster it uses the Kubernetes API only. On a
real one, the variables of configs/stacks/kubernetes.yaml have to be set, as for any run, and deploy/ applied.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import kubernetes_validate
import pytest
import yaml
from kubernetes import client, config

from pipelines.environment import ROOT
from tests.cluster.emulated import CONTEXT, EmulatedCluster
from tests.cluster.kubelet import MOUNT_POINTS
from tests.cluster.services import S3_ACCESS_KEY, S3_SECRET_KEY, Services

REAL = os.environ.get("SPC_TEST_CONTEXT", "")
pytestmark = [
    pytest.mark.skipif("SPC_TEST_CONTEXT" not in os.environ, reason="slow: `make test-cluster` runs it"),
    pytest.mark.skipif(
        not REAL and (os.geteuid() != 0 or shutil.which("unshare") is None),
        reason="the emulated cluster needs root and unshare; CONTEXT= names a real one",
    ),
]


class Site(NamedTuple):
    """Where the pipelines run."""

    environment: dict[str, str]
    namespace: str
    kubernetes: client.ApiClient
    mlflow: str


class Outcome(NamedTuple):
    """How a submission ended."""

    code: int
    output: str

    @property
    def summary(self) -> dict[str, Any]:
        """What the driver printed."""
        return json.loads(self.output.strip().splitlines()[-1])


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    if REAL:
        api = config.new_client_from_config(context=REAL)
        environment = dict(os.environ) | {"SPC_KUBE_CONTEXT": REAL, "SPC_STATE": str(folder / "state")}
        namespace = os.environ.get("SPC_NAMESPACE", "smartphotocrafter")
        yield Site(environment, namespace, api, os.environ.get("SPC_MLFLOW_URL", ""))
        return
    made = [Path(path) for path in MOUNT_POINTS if not Path(path).exists()]
    for path in made:
        path.mkdir()
    cluster, services = EmulatedCluster(folder / "cluster"), Services(folder / "services")
    for name in ("access", "limits", "storage"):
        cluster.apply(*yaml.safe_load_all((ROOT / "deploy" / "base" / f"{name}.yaml").read_text()))
    cluster.apply({"kind": "Secret", "metadata": {"name": "spc-data"}, "stringData": {"OPENAI_API_KEY": "none"}})
    user = cluster.token(f"system:serviceaccount:{cluster.namespace}:smartphotocrafter-submitter")
    submitter = cluster.write_kubeconfig(folder / "submitter", user)
    environment = {key: os.environ[key] for key in ("PATH", "LANG", "OMP_NUM_THREADS") if key in os.environ}
    environment |= {
        "HOME": str(folder),
        "PYTHONPATH": str(ROOT),
        "KUBECONFIG": str(submitter),
        "SPC_STATE": str(folder / "state"),
        "SPC_KUBE_CONTEXT": CONTEXT,
        "SPC_ZENML_URL": services.zenml_url,
        "SPC_ZENML_API_KEY": services.api_key,
        "SPC_ARTIFACTS": "s3://artifacts/runs",
        "SPC_S3_ENDPOINT": services.s3_url,
        "SPC_S3_ACCESS_KEY_ID": S3_ACCESS_KEY,
        "SPC_S3_SECRET_ACCESS_KEY": S3_SECRET_KEY,
        "SPC_MLFLOW_URL": services.mlflow_url,
        "SPC_MLFLOW_USERNAME": "crafter",
        "SPC_MLFLOW_PASSWORD": "unused",
        "SPC_REGISTRY": "registry.example.org/team",
        "SPC_IMAGE": "registry.example.org/team/smartphotocrafter:cpu",
    }
    administrator = config.new_client_from_config(str(cluster.kubeconfig), context=CONTEXT)
    yield Site(environment, cluster.namespace, administrator, services.mlflow_url)
    cluster.stop()
    services.stop()
    for path in made:
        path.rmdir()


def submit(site: Site, during: Callable[[], None] | None = None, **settings: Any) -> Outcome:
    """Submit the pipeline; ``during`` is called once it was."""
    command = [sys.executable, "-m", "tests.cluster.drive", json.dumps(settings)]
    with subprocess.Popen(
        command, cwd=ROOT, env=site.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        try:
            if during is not None:
                during()
            output, _ = process.communicate(timeout=1500)
        finally:
            process.kill()
    return Outcome(process.returncode, output)


def pods_of(site: Site, stage: str) -> list[client.V1Pod]:
    """Pods of a stage, the newest last; ZenML's label holds the name of the step."""
    found = client.CoreV1Api(site.kubernetes).list_namespaced_pod(site.namespace).items
    named = [pod for pod in found if (pod.metadata.labels or {}).get("step_name") == stage]
    return sorted(named, key=lambda pod: pod.metadata.creation_timestamp)


def log_of(site: Site, pod: str) -> str:
    """What a pod has printed; nothing while it has not started."""
    try:
        return str(client.CoreV1Api(site.kubernetes).read_namespaced_pod_log(pod, site.namespace))
    except client.ApiException:
        return ""


@pytest.fixture(scope="module")
def completed(site: Site) -> Outcome:
    return submit(site)


def test_every_stage_runs_in_a_pod_of_its_own(site: Site, completed: Outcome) -> None:
    assert completed.code == 0, completed.output[-6000:]
    assert completed.summary["status"] == "completed"
    assert set(completed.summary["steps"].values()) == {"completed"}
    assert completed.summary["model"]["sum"] == sum(range(6))
    for stage, pool in (("synthesize", "cpu"), ("reinforce", "gpu"), ("evaluate", "gpu")):
        (pod,) = pods_of(site, stage)
        assert pod.status.phase == "Succeeded"
        node = client.CoreV1Api(site.kubernetes).read_node(pod.spec.node_name)
        assert node.metadata.labels["smartphotocrafter/pool"] == pool


def test_the_manifests_are_valid_and_ask_for_gpus_where_models_run(site: Site, completed: Outcome) -> None:
    jobs = site.kubernetes.call_api(
        f"/apis/batch/v1/namespaces/{site.namespace}/jobs", "GET", response_type="object", auth_settings=["BearerToken"]
    )[0]["items"]
    gpus = {}
    for job in jobs:
        job.pop("status", None)
        kubernetes_validate.validate(job, "1.35", strict=True)
        template = job["spec"]["template"]
        stage = template["metadata"]["labels"].get("step_name", "orchestrator")
        gpus[stage] = template["spec"]["containers"][0]["resources"].get("limits", {}).get("nvidia.com/gpu")
    assert gpus == {"orchestrator": None, "synthesize": None, "reinforce": "1", "evaluate": "1"}


def test_runs_and_artifacts_are_on_the_servers(site: Site, completed: Outcome) -> None:
    run = httpx.get(
        f"{site.mlflow}/api/2.0/mlflow/runs/get", params={"run_id": completed.summary["mlflow_run"]}, timeout=60
    ).json()["run"]
    assert run["info"]["status"] == "FINISHED"
    assert run["info"]["run_name"] == completed.summary["run"]


def test_an_evicted_pod_is_replaced_and_goes_on_from_its_checkpoint(site: Site, completed: Outcome) -> None:
    before = {pod.metadata.name for pod in pods_of(site, "reinforce")}
    core = client.CoreV1Api(site.kubernetes)
    evicted: list[str] = []

    def evict() -> None:
        end = time.monotonic() + 900
        while time.monotonic() < end and not evicted:
            new = [pod for pod in pods_of(site, "reinforce") if pod.metadata.name not in before]
            if new and "checkpoint 3" in log_of(site, new[0].metadata.name):
                eviction = {"metadata": {"name": new[0].metadata.name}, "apiVersion": "policy/v1", "kind": "Eviction"}
                core.create_namespaced_pod_eviction(new[0].metadata.name, site.namespace, eviction)
                evicted.append(new[0].metadata.name)
            time.sleep(0.2)

    outcome = submit(site, during=evict, count=60, pause=0.5)
    assert outcome.code == 0, outcome.output[-6000:]
    assert outcome.summary["model"]["sum"] == sum(range(60))
    first, second = outcome.summary["model"]["hosts"]
    assert first == evicted[0]
    assert second != first, "the second pod went on from the checkpoint of the first"
