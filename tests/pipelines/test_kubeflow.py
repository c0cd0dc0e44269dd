"""Kubeflow Pipelines: what the stack file asks of pods is in what the compiler writes; how the end of a run is seen."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from kfp import Client as KubeflowClient
from kfp import dsl
from kfp.compiler import Compiler
from kfp_server_api import ApiException
from urllib3.exceptions import HTTPError
from zenml.client import Client

from pipelines import kubeflow
from pipelines.environment import State
from pipelines.kubeflow import KubeflowRunError, PlacedKubeflowFlavor, PlacedSettings, place
from pipelines.placement import LABELS, pipeline_options
from pipelines.stack import _register_component
from pipelines.stack_file import KUBEFLOW, StackError, StackFile, read_stack_file
from tests.pipelines.clusters import cluster_environment
from tests.pipelines.loopback import Asked, serving

pytestmark = pytest.mark.slow


@pytest.fixture
def stack(state: State, monkeypatch: pytest.MonkeyPatch) -> StackFile:
    cluster_environment(monkeypatch)
    return read_stack_file("kubeflow", state)


@pytest.fixture
def compiled(stack: StackFile, tmp_path: Path) -> dict[str, tuple[dict[str, Any], dict[str, Any]]]:
    """For each class of pods the container and what the platform adds, as Kubeflow reads them."""

    @dsl.container_component
    def step() -> dsl.ContainerSpec:
        return dsl.ContainerSpec(image="registry.example.org/team/smartphotocrafter:cuda", command=["python"])

    def graph_of(name: str) -> Any:
        @dsl.pipeline(name=name)
        def graph() -> None:
            place(step(), stack.pods[name])

        return graph

    found = {}
    for name in stack.pods:
        Compiler().compile(graph_of(name), str(tmp_path / f"{name}.yaml"))
        spec, platform = yaml.safe_load_all((tmp_path / f"{name}.yaml").read_text())
        (executor,) = spec["deploymentSpec"]["executors"].values()
        (more,) = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"].values()
        (task,) = spec["root"]["dag"]["tasks"].values()
        found[name] = executor["container"] | {"retries": task["retryPolicy"]["maxRetryCount"]}, more
    return found


def test_stages_on_gpu_nodes_get_what_the_stack_file_says(compiled: dict[str, Any]) -> None:
    container, more = compiled["gpu"]
    resources = container["resources"]
    assert (resources["resourceCpuRequest"], resources["resourceMemoryRequest"]) == ("8", "96Gi")
    assert resources["resourceMemoryLimit"] == "96Gi"
    assert resources["accelerator"] == {
        "type": "nvidia.com/gpu",
        "resourceType": "nvidia.com/gpu",
        "count": "1",
        "resourceCount": "1",
    }
    assert container["retries"] == 3
    assert {"name": "SPC_STATE", "value": "/state"} in container["env"]
    assert more["nodeSelector"]["labels"] == {"smartphotocrafter/pool": "gpu"}
    (toleration,) = more["tolerations"]
    assert (toleration["key"], toleration["operator"], toleration["effect"]) == (
        "nvidia.com/gpu",
        "Exists",
        "NoSchedule",
    )
    (claim,) = more["pvcMount"]
    assert (claim["constant"], claim["mountPath"]) == ("spc-state", "/state")
    (memory,) = more["emptyDirMounts"]
    assert (memory["mountPath"], memory["medium"], memory["sizeLimit"]) == ("/dev/shm", "Memory", "16Gi")


def test_other_stages_get_no_gpu(compiled: dict[str, Any]) -> None:
    container, more = compiled["light"]
    assert "accelerator" not in container["resources"]
    assert container["retries"] == 1
    assert more["nodeSelector"]["labels"] == {"smartphotocrafter/pool": "cpu"}
    assert not {"tolerations", "emptyDirMounts"} & set(more)


def test_all_of_them_have_labels_keys_and_no_root(compiled: dict[str, Any]) -> None:
    for _, more in compiled.values():
        assert more["podMetadata"]["labels"] == LABELS
        (secret,) = more["secretAsEnv"]
        assert secret["secretName"] == "spc-data"
        assert {item["envVar"] for item in secret["keyToEnv"]} == {
            "OPENAI_API_KEY",
            "AWS_ACCESS_KEY_ID",
            "AWS_SECRET_ACCESS_KEY",
        }
        assert secret["optional"] is True, "as with the whole of a secret, a key may be missing"
        assert more["securityContext"]["runAsNonRoot"] is True


def test_each_step_is_told_its_class_of_pods(stack: StackFile) -> None:
    options = pipeline_options(stack)
    assert set(options["steps"]) == set(stack.pods["gpu"].stages)
    assert options["retry"]["max_retries"] == 1
    for name, step in options["steps"].items():
        settings = PlacedSettings.model_validate(step["settings"][f"orchestrator.{KUBEFLOW}"])
        assert settings.pods == stack.pods["gpu"], name
        assert step["retry"]["max_retries"] == 3
    everywhere = PlacedSettings.model_validate(options["settings"][f"orchestrator.{KUBEFLOW}"])
    assert everywhere.pods == stack.pods["light"]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"priority_class": "training"}, r"pods\.gpu\.priority_class"),
        ({"secrets": {"spc-data": ()}}, r"pods\.gpu\.secrets\.spc-data"),
    ],
)
def test_what_kubeflow_has_no_words_for_is_refused(stack: StackFile, change: dict[str, Any], told: str) -> None:
    pods = stack.pods | {"gpu": stack.pods["gpu"].model_copy(update=change)}
    with pytest.raises(StackError, match=told):
        pipeline_options(stack.model_copy(update={"pods": pods}))


def test_the_flavor_is_registered_once(stack: StackFile) -> None:
    client, wanted = Client(), stack.components["orchestrator"]
    first, second = (_register_component(client, "orchestrator", wanted) for _ in range(2))
    assert first.id == second.id
    (flavor,) = client.list_flavors(name=KUBEFLOW).items
    assert flavor.source == wanted.source
    assert PlacedKubeflowFlavor().config_schema == client.get_flavor(KUBEFLOW).config_schema


def _wait_through(answers: list[tuple[int, str]], monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait for a run of which the API says one thing after the other."""
    monkeypatch.setattr(kubeflow, "_LOOK_EVERY", 0.01)

    def answer(request: Asked) -> tuple[int, Any]:
        if request.path.endswith("/healthz"):
            return 200, {"multi_user": False}
        status, state = answers.pop(0)
        return status, {"run_id": "1", "state": state}

    with serving(answer) as api:
        kubeflow._wait(KubeflowClient(api.url), "1")


def test_an_api_that_does_not_answer_for_a_while_does_not_end_the_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = [(200, "RUNNING"), (503, ""), (502, ""), (200, "RUNNING"), (200, "SUCCEEDED")]
    _wait_through(answers, monkeypatch)
    assert answers == []


@pytest.mark.parametrize("state", ["FAILED", "CANCELED"])
def test_a_run_without_success_is_an_error(state: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(KubeflowRunError, match=state):
        _wait_through([(200, "PENDING"), (200, state)], monkeypatch)


def test_a_run_that_is_gone_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ApiException, match="404"):
        _wait_through([(200, "RUNNING"), (404, "")], monkeypatch)


def test_an_api_that_is_gone_for_good_ends_the_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kubeflow, "_LOOK_EVERY", 0.01)
    monkeypatch.setattr(kubeflow, "_PATIENCE", 0.1)
    with serving(lambda request: (200, {"multi_user": False})) as api:
        client = KubeflowClient(api.url)
    with pytest.raises(HTTPError):
        kubeflow._wait(client, "1")
