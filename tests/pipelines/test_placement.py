"""Where stages run: what the stack file asks for arrives in manifests that the upstream schemas accept."""

import json
from collections.abc import Iterator
from typing import Any

import kubernetes_validate
import pytest
from kubernetes.client import ApiClient
from zenml.integrations.kubernetes.manifest_utils import (
    build_job_manifest,
    build_pod_manifest,
    pod_template_manifest_from_pod,
)
from zenml.integrations.kubernetes.pod_settings import KubernetesPodSettings

from pipelines.environment import State
from pipelines.placement import POD_FAILURE_POLICY, docker_settings, pipeline_options, pod_settings
from pipelines.stack_file import ImageFile, StackFile, read_stack_file
from steps.ablate import REINFORCE_WITHOUT_PHOTOMETRIC, ablate
from steps.judge import judge
from tests.pipelines.clusters import cluster_environment

pytestmark = pytest.mark.slow

TRAINING_STAGES = {"train_critic", "train_artist", "adapt_artist", "reinforce", "evaluate", "promote"}
GPU_STAGES = TRAINING_STAGES | {REINFORCE_WITHOUT_PHOTOMETRIC, ablate.name, judge.name}


@pytest.fixture
def kubernetes(state: State, monkeypatch: pytest.MonkeyPatch) -> StackFile:
    cluster_environment(monkeypatch)
    return read_stack_file("kubernetes", state)


def jobs(stack: StackFile) -> Iterator[tuple[str, dict[str, Any]]]:
    """The job of each class of pods, made by ZenML from the settings."""
    for name, pods in stack.pods.items():
        pod = build_pod_manifest(
            pod_name=None,
            image_name="registry.example.org/team/smartphotocrafter:cuda",
            command=["python"],
            args=["-m", "step"],
            privileged=False,
            pod_settings=KubernetesPodSettings.model_validate(pod_settings(pods)),
            service_account_name=stack.stage_account,
        )
        template = pod_template_manifest_from_pod(pod)
        job = build_job_manifest(
            job_name=name, pod_template=template, backoff_limit=3, pod_failure_policy=POD_FAILURE_POLICY
        )
        plain = json.loads(json.dumps(ApiClient().sanitize_for_serialization(job)))
        yield name, {"apiVersion": "batch/v1", "kind": "Job", **plain}  # which the address says when it is submitted


def test_only_the_stages_that_run_models_get_gpus(kubernetes: StackFile) -> None:
    options = pipeline_options(kubernetes)
    everywhere = options["settings"]["orchestrator.kubernetes"]["pod_settings"]
    assert "nvidia.com/gpu" not in everywhere["resources"]["requests"]
    assert everywhere["node_selectors"] == {"smartphotocrafter/pool": "cpu"}
    assert options["retry"]["max_retries"] == 1
    assert set(options["steps"]) == GPU_STAGES
    for step in options["steps"].values():
        pod = step["settings"]["orchestrator.kubernetes"]["pod_settings"]
        assert pod["resources"]["requests"]["nvidia.com/gpu"] == pod["resources"]["limits"]["nvidia.com/gpu"] == "1"
        assert step["retry"]["max_retries"] == 3


def test_the_manifests_are_valid_and_ask_for_the_right_things(kubernetes: StackFile) -> None:
    made = dict(jobs(kubernetes))
    for job in made.values():
        kubernetes_validate.validate(job, "1.33", strict=True)
    spec = made["gpu"]["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    assert container["resources"] == {
        "requests": {"cpu": "8", "memory": "96Gi", "nvidia.com/gpu": "1"},
        "limits": {"memory": "96Gi", "nvidia.com/gpu": "1"},
    }
    assert spec["nodeSelector"] == {"smartphotocrafter/pool": "gpu"}
    assert spec["tolerations"] == [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
    assert spec["priorityClassName"] == "smartphotocrafter-training"
    assert spec["serviceAccountName"] == "smartphotocrafter-stage"
    assert spec["securityContext"]["runAsNonRoot"] is True
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert mounts == {"spc-state": "/state", "shared-memory": "/dev/shm"}
    volumes = {volume["name"]: volume for volume in spec["volumes"]}
    assert volumes["shared-memory"]["emptyDir"] == {"medium": "Memory", "sizeLimit": "16Gi"}
    assert volumes["spc-state"]["persistentVolumeClaim"] == {"claimName": "spc-state"}
    assert {"secretRef": {"name": "spc-data"}} in container["envFrom"]
    light = made["light"]["spec"]["template"]["spec"]
    assert "tolerations" not in light
    assert "priorityClassName" not in light


def test_a_secret_may_be_passed_on_key_by_key(kubernetes: StackFile) -> None:
    made = pod_settings(kubernetes.pods["light"].model_copy(update={"secrets": {"spc-data": ("OPENAI_API_KEY",)}}))
    source = {"name": "spc-data", "key": "OPENAI_API_KEY", "optional": True}
    assert {"name": "OPENAI_API_KEY", "valueFrom": {"secretKeyRef": source}} in made["env"]
    assert made["env_from"] == []


def test_a_disruption_costs_no_retry(kubernetes: StackFile) -> None:
    (rule,) = POD_FAILURE_POLICY["rules"]
    assert rule == {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}
    settings = pipeline_options(kubernetes)["steps"]["reinforce"]["settings"]["orchestrator.kubernetes"]
    assert settings["pod_failure_policy"] == POD_FAILURE_POLICY


def test_the_pod_that_starts_the_others_is_small_and_known_to_the_network_policies(kubernetes: StackFile) -> None:
    starter = pipeline_options(kubernetes)["settings"]["orchestrator.kubernetes"]["orchestrator_pod_settings"]
    assert starter["labels"]["app.kubernetes.io/component"] == "stage"
    assert starter["node_selectors"] == {"smartphotocrafter/pool": "cpu"}
    assert starter["resources"]["requests"]["memory"] == "1536Mi"
    assert not starter["env_from"]


def test_steps_of_a_dynamic_pipeline_get_pods_of_their_own_beside_their_settings(kubernetes: StackFile) -> None:
    static, dynamic = pipeline_options(kubernetes), pipeline_options(kubernetes, ["annotate", "reinforce"])
    annotate = dynamic["steps"].pop("annotate")
    for step in (annotate, dynamic["steps"]["reinforce"]):
        assert step.pop("runtime") == "isolated"
        settings = step["settings"]["orchestrator.kubernetes"]
        assert settings["service_account_name"] == "smartphotocrafter-stage", "ZenML starts isolated steps with this"
        settings["service_account_name"] = "smartphotocrafter"
    assert annotate == {"settings": {"orchestrator.kubernetes": static["settings"]["orchestrator.kubernetes"]}}
    assert dynamic == static
    starter = dynamic["settings"]["orchestrator.kubernetes"]["orchestrator_pod_settings"]
    assert starter["env"] == [{"name": "ZENML_PARAMETER_SIZE_THRESHOLD", "value": "-1"}]


def test_only_pods_that_start_others_have_the_account_with_rights(kubernetes: StackFile) -> None:
    names = ["service_account_name", "step_pod_service_account_name"]
    starter, stage = "smartphotocrafter", "smartphotocrafter-stage"
    options = pipeline_options(kubernetes, nodes={"reinforce": 2})
    of_run = options["settings"]["orchestrator.kubernetes"]
    assert [of_run[name] for name in names] == [starter, stage]
    for name, step in options["steps"].items():
        wanted = starter if name == "reinforce_on_nodes" else stage  # a static graph starts the nodes' pods from a pod
        assert step["settings"]["orchestrator.kubernetes"]["step_pod_service_account_name"] == wanted, name
    on_nodes = options["steps"]["reinforce_on_nodes"]["settings"]["step_operator.kubernetes"]
    assert on_nodes["service_account_name"] == stage
    spread = pipeline_options(kubernetes, ["annotate", "reinforce_on_nodes"], {"reinforce": 2})["steps"]
    assert spread["annotate"]["settings"]["orchestrator.kubernetes"]["service_account_name"] == stage
    assert spread["reinforce_on_nodes"]["settings"]["orchestrator.kubernetes"]["service_account_name"] == starter


@pytest.mark.parametrize("account", ["", "smartphotocrafter"])
def test_a_stack_whose_stages_would_have_the_rights_is_refused(kubernetes: StackFile, account: str) -> None:
    with pytest.raises(ValueError, match="stage_account: expected an account other than 'smartphotocrafter'"):
        StackFile.model_validate({**kubernetes.model_dump(), "stage_account": account})


def test_a_laptop_has_no_placement(state: State) -> None:
    assert pipeline_options(read_stack_file("local", state)) == {}


def test_an_image_that_exists_is_used_and_another_is_built_from_the_dockerfile(kubernetes: StackFile) -> None:
    used = docker_settings(kubernetes.model_copy(update={"image": ImageFile(reference="r/spc:1")}))
    assert (used["skip_build"], used["parent_image"]) == (True, "r/spc:1")
    assert used["allow_download_from_artifact_store"]
    built = docker_settings(kubernetes.model_copy(update={"image": ImageFile(variant="cpu")}))
    assert built["dockerfile"].endswith("/Dockerfile")
    assert built["parent_image_build_config"]["build_options"]["build_args"] == {"VARIANT": "cpu"}
