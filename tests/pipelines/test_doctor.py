"""The preflight: a sound stack passes, and each fault is found and comes with what to do about it."""

import base64
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import boto3
import pytest
import yaml
from moto.server import ThreadedMotoServer

from pipelines.doctor import Finding, Unhealthy, _memory, examine, in_lines
from pipelines.doctor_cluster import examine_cluster, quantity
from pipelines.environment import ROOT, State
from pipelines.stack_file import StackFile, read_stack_file
from tests.cluster.emulated import CONTEXT, EmulatedCluster
from tests.cluster.objects import Key
from tests.pipelines.clusters import cluster_environment
from tests.pipelines.loopback import Asked, serving

pytestmark = pytest.mark.slow

KEY = "ZENKEY_test"
SETTINGS = {
    "annotate": {"annotator": "openai", "client": {"base_url": "http://annotator:8000/v1"}},
    "reinforce": {"rollouts": {"judge": {"kind": "mllm", "base_url": "http://judge:8000/v1"}}},
}


class Site:
    """Everything that the stack names, as it should be, on the loopback address."""

    def __init__(self, cluster: EmulatedCluster, bucket: str, endpoint: str, zenml: str, mlflow: str) -> None:
        self.cluster, self.bucket = cluster, bucket
        self.environment = {
            "SPC_ZENML_URL": zenml,
            "SPC_ZENML_API_KEY": KEY,
            "SPC_KUBE_CONTEXT": CONTEXT,
            "SPC_ARTIFACTS": f"s3://{bucket}/runs",
            "SPC_S3_ENDPOINT": endpoint,
            "SPC_S3_ACCESS_KEY_ID": "test",
            "SPC_S3_SECRET_ACCESS_KEY": "test",
            "SPC_MLFLOW_URL": mlflow,
            "SPC_MLFLOW_USERNAME": "enhancer",
            "SPC_MLFLOW_PASSWORD": "right",
            "SPC_REGISTRY": "registry.example.org/team",
            "KUBECONFIG": str(cluster.kubeconfig),
        }


def zenml_answers(request: Asked) -> tuple[int, Any]:
    if request.path == "/api/v1/info":
        return 200, {"version": "0.98.0"}
    if request.path == "/api/v1/login":
        return (200, {"access_token": "t"}) if KEY.encode() in request.body else (401, {})
    return (200, {"items": []}) if request.headers.get("Authorization") == "Bearer t" else (401, {})


def mlflow_answers(request: Asked) -> tuple[int, Any]:
    login = f"Basic {base64.b64encode(b'enhancer:right').decode()}"
    return (200, {"experiments": []}) if request.headers.get("Authorization") == login else (401, {})


@pytest.fixture(scope="module")
def store() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def site(tmp_path: Path, store: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    cluster = EmulatedCluster(tmp_path / "cluster")
    for name in ("access", "limits", "storage"):
        cluster.apply(*yaml.safe_load_all((ROOT / "deploy" / "base" / f"{name}.yaml").read_text()))
    cluster.apply({"kind": "Secret", "metadata": {"name": "spc-data"}})
    bucket = f"bucket-{tmp_path.name}".lower().replace("_", "-")[:60]
    client = boto3.client(
        "s3", endpoint_url=store, aws_access_key_id="test", aws_secret_access_key="test", region_name="us-east-1"
    )
    client.create_bucket(Bucket=bucket)
    with serving(zenml_answers) as zenml, serving(mlflow_answers) as mlflow:
        found = Site(cluster, bucket, store, zenml.url, mlflow.url)
        for name, value in found.environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(cluster.kubeconfig))
        yield found
    cluster.stop()


def findings(state: State, name: str = "kubernetes") -> dict[str, Finding]:
    stack: StackFile = read_stack_file(name, state)
    return {finding.check: finding for finding in examine(without_plan(stack), state, SETTINGS)}


def without_plan(stack: StackFile) -> StackFile:
    """The stack without a GPU model, for which tracing the models would take most of the time of a test."""
    pods = {name: pods.model_copy(update={"gpu_model": ""}) for name, pods in stack.pods.items()}
    return stack.model_copy(update={"pods": pods})


def test_a_sound_stack_has_no_faults(site: Site, state: State) -> None:
    found = findings(state)
    faults = [in_lines(finding) for finding in found.values() if not finding.ok]
    assert not faults
    assert {"zenml server", "secret spc-s3", "artifact store", "mlflow", "kubernetes", "rights"} <= set(found)
    assert {"namespace", "service account", "claim spc-state", "secret spc-data", "nodes for gpu"} <= set(found)
    assert "annotator:8000" in found["annotation server"].detail
    assert "judge:8000" in found["judge"].detail
    assert [verb for user, verb, path, _ in site.cluster.api.requests if verb == "POST" and "review" not in path] == []


def test_faults_of_the_servers_are_told_apart(site: Site, state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPC_ZENML_API_KEY", "ZENKEY_old")
    monkeypatch.setenv("SPC_MLFLOW_PASSWORD", "wrong")
    monkeypatch.setenv("SPC_ARTIFACTS", "s3://no-such-bucket/runs")
    monkeypatch.delenv("SPC_S3_SECRET_ACCESS_KEY")
    found = findings(state)
    assert "refuses the API key" in found["zenml server"].detail
    assert "rotate" in found["zenml server"].remedy
    assert "refuses the log-in" in found["mlflow"].detail
    assert "SPC_S3_SECRET_ACCESS_KEY" in found["secret spc-s3"].detail
    assert not found["artifact store"].ok
    monkeypatch.setenv("SPC_S3_SECRET_ACCESS_KEY", "test")
    assert "create the bucket no-such-bucket" in findings(state)["artifact store"].remedy
    monkeypatch.setenv("SPC_ZENML_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("SPC_MLFLOW_URL", "http://127.0.0.1:9")
    found = findings(state)
    assert "does not answer" in found["zenml server"].detail
    assert "does not answer" in found["mlflow"].detail


def test_faults_of_the_cluster_are_told_apart(site: Site, state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster, store = site.cluster, site.cluster.store
    store.remove(Key("serviceaccounts", cluster.namespace, "smartphotocrafter"))
    store.remove(Key("persistentvolumeclaims", cluster.namespace, "spc-state"))
    store.remove(Key("priorityclasses", None, "smartphotocrafter-training"))
    store.remove(Key("secrets", cluster.namespace, "spc-data"))
    store.get(Key("nodes", None, "gpu-0"))["status"]["allocatable"]["nvidia.com/gpu"] = "0"
    del store.get(Key("nodes", None, "cpu-0"))["metadata"]["labels"]
    quota = store.get(Key("resourcequotas", cluster.namespace, "smartphotocrafter"))
    quota["status"]["used"]["requests.nvidia.com/gpu"] = "4"
    found = findings(state)
    expected = {
        "service account": "kubectl apply",
        "claim spc-state": "kubectl apply",
        "priority smartphotocrafter-training": "kubectl apply",
        "secret spc-data": "create secret generic spc-data",
        "nodes for gpu": "device plugin",
        "nodes for light": "kubectl label node",
        "quota for gpu": "raise the quota",
    }
    assert {check: finding.remedy for check, finding in found.items() if not finding.ok}.keys() == expected.keys()
    for check, words in expected.items():
        assert words in found[check].remedy, check
    assert "nvidia.com/gpu 0 of 1" in found["nodes for gpu"].detail


def test_a_user_without_rights_is_told_which(site: Site, state: State) -> None:
    token = site.cluster.token("system:serviceaccount:elsewhere:nobody")
    site.cluster.write_kubeconfig(site.cluster.kubeconfig, token)
    found = findings(state)
    assert "create jobs" in found["rights"].detail
    assert "smartphotocrafter-submit" in found["rights"].remedy
    assert "not checked" in found["namespace"].detail


def test_kubeflow_is_asked_for_its_api_and_for_the_right_to_use_it(
    site: Site, state: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPC_KUBEFLOW_NAMESPACE", site.cluster.namespace)
    found = findings(state, "kubeflow")
    assert "no service ml-pipeline" in found["kubeflow"].detail
    assert "SPC_KUBEFLOW_NAMESPACE" in found["kubeflow"].remedy
    site.cluster.apply({"kind": "Service", "metadata": {"name": "ml-pipeline"}})
    found = findings(state, "kubeflow")
    assert not [in_lines(finding) for finding in found.values() if not finding.ok]
    token = site.cluster.token("system:serviceaccount:elsewhere:nobody")
    site.cluster.write_kubeconfig(site.cluster.kubeconfig, token)
    rights = findings(state, "kubeflow")["rights"]
    assert "get services/proxy, create services/proxy" in rights.detail
    assert "services/proxy" in rights.remedy


def test_an_unknown_context_and_a_dead_cluster(site: Site, state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPC_KUBE_CONTEXT", "nowhere")
    found = findings(state)
    assert "no usable context 'nowhere'" in found["kubernetes"].detail
    assert "rights" not in found


def test_the_laptop_needs_data_and_disk(state: State) -> None:
    found = findings(state, "local")
    assert set(found) == {"data", "disk", "place"}
    assert found["disk"].ok and found["place"].ok


@pytest.mark.parametrize(
    ("text", "value"),
    [("500m", 0.5), ("4", 4), ("96Gi", 96 * 2**30), ("1k", 1000), ("2M", 2e6), ("1.5Ti", 1.5 * 2**40)],
)
def test_quantities(text: str, value: float) -> None:
    assert quantity(text) == pytest.approx(value)


def test_the_memory_plan_is_asked_for_the_gpus_of_the_stack(
    state: State, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from components.planning.plan import Option, Plan, StagePlan
    from components.settings import load_settings

    cluster_environment(monkeypatch)
    gpu = read_stack_file("kubernetes", state).pods["gpu"]
    asked = []
    sizes = {
        "memory_per_gpu": 80 * 2**30,
        "mfu": 0.4,
        "mfu_low": 0.2,
        "mbu": 0.6,
        "reserve": 0.1,
        "working_size": (8, 8),
    }

    def plan(settings: Any, configurations: Any, wanted: Any, names: Sequence[str]) -> Plan:
        asked.append((wanted.gpu, wanted.count, wanted.shardings))
        if "reinforce" not in names:
            return Plan(gpu=wanted.gpu, count=wanted.count, models=(), stages=(), fits=True, **sizes)
        option = {"sharding": "ddp", "parts": {}, "phases": (), "peak_phase": "a", "capacity": 70 * 2**30}
        rest = {
            "largest_rows": 0,
            "flops_per_step": 1,
            "seconds_per_step": 1.0,
            "hours": 1.0,
            "hours_most": 2.0,
            "validation_seconds": 1.0,
        }
        options = tuple(
            Option(**option, **rest, checkpointing=saves, peak=peak * 2**30, fits=peak < 70)
            for saves, peak in ((True, 60), (False, 90))
        )
        about = {"steps": 1, "samples_per_step": 1, "validations": 1, "trainable_parameters": 1}
        stage = StagePlan(name="reinforce", **about, options=options)
        return Plan(gpu=wanted.gpu, count=wanted.count, models=(), stages=(stage,), fits=True, **sizes)

    monkeypatch.setattr("components.planning.plan.make_plan", plan)
    settings = load_settings(ROOT / "configs" / "local.yaml").model_dump(mode="json")
    with pytest.raises(Unhealthy, match=r"reinforce 90\.0 of 70\.0 GiB on each of 1 H100-80G"):
        _memory(gpu, settings)
    settings["reinforce"]["compute"]["gradient_checkpointing"] = True
    assert _memory(gpu, settings) == "1 H100-80G: reinforce 60.0 of 70.0 GiB"
    assert asked[0] == ("H100-80G", 1, ("ddp",))
    settings["reinforce"]["compute"]["processes"] = 2
    with pytest.raises(Unhealthy, match="2 processes, one for each GPU, and a pod has 1"):
        _memory(gpu, settings)
    settings["reinforce"]["compute"] |= {"processes": 1, "nodes": 2}
    assert _memory(gpu, settings) == "1 H100-80G: reinforce 60.0 of 70.0 GiB"
    assert asked[-1] == ("H100-80G", 2, ("ddp", "fsdp"))


def test_a_stage_on_nodes_needs_room_for_all_its_pods_at_once(site: Site, state: State) -> None:
    stack = without_plan(read_stack_file("kubernetes", state))

    def cluster_findings(nodes: int) -> dict[str, Finding]:
        asking = {"reinforce": {"compute": {"nodes": nodes}}}
        return {finding.check: finding for finding in examine_cluster(stack, asking)}

    assert cluster_findings(2)["nodes for gpu"].detail.startswith("room for 2 (cpu 8, memory 96Gi, nvidia.com/gpu 1")
    found = cluster_findings(5)
    assert found["nodes for gpu"].detail.startswith("room for 2 pods at once, and a stage trains on 5")
    assert found["quota for gpu"].detail.endswith("requests.nvidia.com/gpu 0 of 4 used, 1 more wanted 5 times")
    assert found["nodes for light"].ok and found["quota for light"].ok
