"""Graphs and placement of stages on several nodes: three steps for one, pods that ask for what the stack file says."""

import json
from typing import Any

import kubernetes_validate
import pytest
from kubernetes.client import ApiClient, V1Job
from zenml.integrations.kubernetes.flavors import KubernetesStepOperatorSettings
from zenml.integrations.kubernetes.manifest_utils import (
    build_job_manifest,
    build_pod_manifest,
    pod_template_manifest_from_pod,
)

from components.settings import load_settings
from pipelines.environment import ROOT, State
from pipelines.nodes import STAGES, nodes_of
from pipelines.placement import pipeline_options
from pipelines.stack_file import PodsFile, StackError, StackFile, read_stack_file
from tests.pipelines.clusters import cluster_environment
from tests.pipelines.on_nodes import refining

pytestmark = pytest.mark.slow

BOTH = {"adapt_artist": 2, "reinforce": 3}


@pytest.fixture
def settings() -> dict[str, Any]:
    return load_settings(ROOT / "configs" / "local.yaml").model_dump(mode="json")


@pytest.fixture
def kubernetes(state: State, monkeypatch: pytest.MonkeyPatch) -> StackFile:
    cluster_environment(monkeypatch)
    return read_stack_file("kubernetes", state)


def upstream(settings: dict[str, Any]) -> dict[str, set[str]]:
    refining.prepare(settings=settings)
    return {name: set(invocation.upstream_steps) for name, invocation in refining.invocations.items()}


def test_one_node_is_the_step_that_it_was(settings: dict[str, Any]) -> None:
    assert upstream(settings) == {"make": set(), "adapt_artist": {"make"}, "reinforce": {"make", "adapt_artist"}}


def test_several_nodes_are_three_steps_for_one_whose_last_has_its_name(settings: dict[str, Any]) -> None:
    settings["adapt_artist"]["compute"]["nodes"] = 2
    assert upstream(settings) == {
        "make": set(),
        "prepare_adapt_artist": {"make"},
        "adapt_artist_on_nodes": {"prepare_adapt_artist"},
        "adapt_artist": {"prepare_adapt_artist"},
        "reinforce": {"make", "adapt_artist"},
    }
    settings["reinforce"]["compute"]["nodes"] = 3
    found = upstream(settings)
    assert found["prepare_reinforce"] == {"make", "adapt_artist"}
    assert found["reinforce_on_nodes"] == found["reinforce"] == {"prepare_reinforce"}


@pytest.mark.parametrize("stage", STAGES)
def test_the_last_step_returns_what_the_step_of_one_node_does(stage: str) -> None:
    from pipelines import nodes

    alone = getattr(nodes, stage).entrypoint_definition.outputs
    assert STAGES[stage].follow.entrypoint_definition.outputs.keys() == alone.keys()
    assert STAGES[stage].prepare.configuration.enable_cache is False
    assert STAGES[stage].follow.configuration.enable_cache is None


def test_only_stages_that_can_may_ask_for_nodes(settings: dict[str, Any]) -> None:
    assert nodes_of(settings) == {}
    settings["reinforce"]["compute"]["nodes"] = 3
    assert nodes_of(settings) == {"reinforce": 3}
    settings["train_critic"]["compute"]["nodes"] = 2
    with pytest.raises(StackError, match=r"train_critic\.compute\.nodes: only adapt_artist and reinforce"):
        nodes_of(settings)


def job_of(options: dict[str, Any]) -> V1Job:
    """The job that ZenML's step operator makes of the settings."""
    settings = KubernetesStepOperatorSettings.model_validate(options["settings"]["step_operator.kubernetes"])
    pod = build_pod_manifest(
        pod_name=None,
        image_name="registry.example.org/team/smartphotocrafter:cuda",
        command=["sh"],
        args=["-c", "true"],
        privileged=False,
        pod_settings=settings.pod_settings,
        service_account_name=settings.service_account_name,
        labels={"run_id": "r", "step_run_id": "s"},
    )
    template = pod_template_manifest_from_pod(pod)
    return build_job_manifest(job_name="job", pod_template=template, backoff_limit=0, pod_count=settings.pod_count)


def test_the_pods_of_a_stage_on_nodes_are_those_of_its_class(kubernetes: StackFile) -> None:
    steps = pipeline_options(kubernetes, nodes=BOTH)["steps"]
    assert {"adapt_artist", "reinforce"}.isdisjoint(steps), "what waits for the pods takes no GPU"
    for stage, count in BOTH.items():
        options = steps[f"{stage}_on_nodes"]
        assert options["step_operator"] is True
        assert options["retry"] == {"max_retries": 3}
        job = json.loads(json.dumps(ApiClient().sanitize_for_serialization(job_of(options))))
        kubernetes_validate.validate({"apiVersion": "batch/v1", "kind": "Job", **job}, "1.33", strict=True)
        assert (job["spec"]["completions"], job["spec"]["completionMode"]) == (count, "Indexed")
        pod = job["spec"]["template"]
        (container,) = pod["spec"]["containers"]
        assert container["resources"]["limits"]["nvidia.com/gpu"] == "1"
        assert pod["spec"]["nodeSelector"] == {"smartphotocrafter/pool": "gpu"}
        assert pod["spec"]["priorityClassName"] == "smartphotocrafter-training"
        assert pod["spec"]["serviceAccountName"] == "smartphotocrafter-stage"
        assert {mount["mountPath"] for mount in container["volumeMounts"]} == {"/state", "/dev/shm"}
        assert pod["metadata"]["labels"]["app.kubernetes.io/component"] == "stage"
        variables = {variable["name"]: variable for variable in container["env"]}
        assert variables["SPC_STATE"]["value"] == "/state"
        assert variables["SPC_RUN"]["valueFrom"]["fieldRef"]["fieldPath"] == "metadata.labels['run_id']"


def test_stacks_that_cannot_say_so(kubernetes: StackFile, state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("local", "kubeflow"):
        with pytest.raises(StackError, match=r"adapt_artist\.compute\.nodes: the stack .* set it to 1"):
            pipeline_options(read_stack_file(name, state), nodes=BOTH)
    apart: dict[str, PodsFile] = {
        name: pods.model_copy(update={"claims": {f"state-{name}": "/state"}}) for name, pods in kubernetes.pods.items()
    }
    with pytest.raises(StackError, match="needs a volume claim that all classes of pods mount at the same path"):
        pipeline_options(kubernetes.model_copy(update={"pods": apart}), nodes=BOTH)
