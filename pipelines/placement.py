"""Where the stages of a pipeline run on a cluster: pod settings, retries and image of a stack file as ZenML wants them.

ZenML's own `ResourceSettings` do not reach the pods of the Kubernetes orchestrator, so GPUs are asked for as container
resources. Disruptions (a drained node, a preempted pod) cost no retry; ZenML's default counts them.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from pipelines.environment import DYNAMIC_PIPELINES, ROOT
from pipelines.stack_file import KUBEFLOW, PodsFile, StackError, StackFile
from steps.pods import FROM_LABELS, STATE_VARIABLE, training_step

POD_FAILURE_POLICY: dict[str, Any] = {
    "rules": [{"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}]
}
"""A disrupted pod is replaced and costs no retry; any other failure counts, which is what Kubernetes does by itself."""
_POD_SECURITY = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
LABELS = {"app.kubernetes.io/part-of": "smartphotocrafter", "app.kubernetes.io/component": "stage"}
"""By which the network policies in deploy/ know the pods."""
_CLUSTERS = ("kubernetes", KUBEFLOW)


def pipeline_options(
    stack: StackFile, dynamic: Sequence[str] = (), nodes: Mapping[str, int] | None = None
) -> dict[str, Any]:
    """Keyword arguments of ``Pipeline.with_options`` that put every stage where ``stack`` wants it.

    Empty for a stack that runs in this process.

    Args:
        dynamic: names of the steps of a dynamic pipeline, which would otherwise share the pod that starts them.
        nodes: how many nodes a stage trains on, of those that want several (pipelines/nodes.py).

    Raises:
        StackError: the stack cannot run a stage on several nodes, or asks Kubeflow for what it cannot do.
    """
    flavor = stack.components["orchestrator"].flavor
    if nodes and flavor != "kubernetes":
        raise StackError(
            f"{next(iter(nodes))}.compute.nodes: the stack {stack.name!r} cannot train on several nodes, which takes "
            "the orchestrator and the step operator `kubernetes`: set it to 1"
        )
    if flavor not in _CLUSTERS:
        return {}
    if flavor == KUBEFLOW:
        _check_for_kubeflow(stack)
    everywhere = next(pods for pods in stack.pods.values() if not pods.stages)
    steps: dict[str, dict[str, Any]] = {
        stage: {"settings": {f"orchestrator.{flavor}": _settings(stack, pods)}, "retry": _retry(pods)}
        for pods in stack.pods.values()
        for stage in pods.stages
    }
    for stage, count in (nodes or {}).items():
        pods = next((pods for pods in stack.pods.values() if stage in pods.stages), everywhere)
        steps.pop(stage, None)  # the step of that name waits for the others, which takes no GPU
        starter = _settings(stack, everywhere) | _accounts(stack.service_account, stack.service_account)
        steps[training_step(stage)] = {
            "step_operator": True,
            "settings": {
                "step_operator.kubernetes": _nodes_settings(stack, pods, count),
                "orchestrator.kubernetes": starter,  # of the pod that starts those of the nodes
            },
            "retry": _retry(pods),
        }
    for stage in dynamic:
        step = steps.setdefault(stage, {"settings": {f"orchestrator.{flavor}": _settings(stack, everywhere)}})
        step["runtime"] = "isolated"
        if not step.get("step_operator"):  # the pod of an isolated step has the account that starts pods elsewhere
            step["settings"][f"orchestrator.{flavor}"] |= _accounts(stack.stage_account, stack.stage_account)
    return {
        "settings": {f"orchestrator.{flavor}": _settings(stack, everywhere), "docker": docker_settings(stack)},
        "retry": _retry(everywhere),
        "steps": steps,
    }


def pod_settings(pods: PodsFile) -> dict[str, Any]:
    """Fields of ZenML's ``KubernetesPodSettings`` for a class of pods."""
    requests = {"cpu": pods.cpu, "memory": pods.memory}
    limits = {"memory": pods.memory}
    if pods.gpus:
        requests[pods.gpu_resource] = limits[pods.gpu_resource] = str(pods.gpus)
    volumes: list[dict[str, Any]] = [
        {"name": claim, "persistentVolumeClaim": {"claimName": claim}} for claim in pods.claims
    ]
    mounts = [{"name": claim, "mountPath": path} for claim, path in pods.claims.items()]
    if pods.shared_memory:
        volumes.append({"name": "shared-memory", "emptyDir": {"medium": "Memory", "sizeLimit": pods.shared_memory}})
        mounts.append({"name": "shared-memory", "mountPath": "/dev/shm"})
    more: dict[str, Any] = {"security_context": _POD_SECURITY}
    if pods.priority_class:
        more["priority_class_name"] = pods.priority_class
    return {
        "labels": LABELS,
        "node_selectors": dict(pods.node_selector),
        "tolerations": [dict(toleration) for toleration in pods.tolerations],
        "resources": {"requests": requests, "limits": limits},
        "volumes": volumes,
        "volume_mounts": mounts,
        "env": [
            *({"name": name, "value": value} for name, value in sorted(pods.environment.items())),
            *(
                {"name": key, "valueFrom": {"secretKeyRef": {"name": secret, "key": key, "optional": True}}}
                for secret, keys in pods.secrets.items()
                for key in keys
            ),
        ],
        "env_from": [{"secretRef": {"name": secret}} for secret, keys in pods.secrets.items() if not keys],
        "additional_pod_spec_args": more,
    }


def docker_settings(stack: StackFile) -> dict[str, Any]:
    """Fields of ZenML's ``DockerSettings``: the image that exists, or a build of the Dockerfile.

    The code of a run travels through the artifact store, so that one image serves every state of the code until the
    lock file changes.
    """
    image = stack.image
    if image is None:
        return {}
    common = {
        "allow_including_files_in_images": False,
        "allow_download_from_artifact_store": True,
        "install_stack_requirements": False,
        "install_deployment_requirements": False,
    }
    if image.reference:
        return {"skip_build": True, "parent_image": image.reference, **common}
    return {
        "dockerfile": str(ROOT / "Dockerfile"),
        "build_context_root": str(ROOT),
        "parent_image_build_config": {"build_options": {"build_args": {"VARIANT": image.variant}}},
        **common,
    }


def _nodes_settings(stack: StackFile, pods: PodsFile, count: int) -> dict[str, Any]:
    """Fields of the step operator's settings for a stage on several nodes, a pod of the class each.

    Raises:
        StackError: its pods and those of the steps around it share no state folder.
    """
    everywhere = next(pods for pods in stack.pods.values() if not pods.stages)
    shared = {(claim, path) for claim, path in pods.claims.items() if path == pods.environment.get(STATE_VARIABLE)}
    if not shared & set(everywhere.claims.items()):
        raise StackError(
            f"a stage on several nodes needs a volume claim that all classes of pods mount at the same path, with "
            f"{STATE_VARIABLE} set to it"
        )
    settings = pod_settings(pods)
    labels = {name: {"fieldRef": {"fieldPath": f"metadata.labels['{label}']"}} for name, label in FROM_LABELS.items()}
    settings["env"] = [*settings["env"], *({"name": name, "valueFrom": source} for name, source in labels.items())]
    account = {"service_account_name": stack.stage_account} if stack.stage_account else {}
    return {"pod_settings": settings, "pod_count": count, **account}


def _check_for_kubeflow(stack: StackFile) -> None:
    """Kubeflow Pipelines has no words for some things; what would be lost is refused.

    Raises:
        StackError: a class of pods has a priority class, or a secret without the names of its keys.
    """
    for name, pods in stack.pods.items():
        if pods.priority_class:
            raise StackError(f"{stack.name}: pods.{name}.priority_class: Kubeflow Pipelines knows none, take it out")
        if whole := [secret for secret, keys in pods.secrets.items() if not keys]:
            raise StackError(
                f"{stack.name}: pods.{name}.secrets.{whole[0]}: Kubeflow Pipelines passes on single keys, name them"
            )


def _retry(pods: PodsFile) -> dict[str, int]:
    """How often a failed stage starts again; the cluster does that, and decides how long it waits."""
    return {"max_retries": pods.retries}


def _settings(stack: StackFile, pods: PodsFile) -> dict[str, Any]:
    """Fields of the orchestrator's settings for one class of pods."""
    if stack.components["orchestrator"].flavor == KUBEFLOW:
        return {"pods": pods.model_dump(mode="json")}
    settings: dict[str, Any] = {"pod_settings": pod_settings(pods), "pod_failure_policy": POD_FAILURE_POLICY}
    settings["orchestrator_pod_settings"] = pod_settings(
        next(pods for pods in stack.pods.values() if not pods.stages)
    ) | {
        "resources": {"requests": {"cpu": "250m", "memory": "1536Mi"}, "limits": {"memory": "3Gi"}},
        "volumes": [],
        "volume_mounts": [],
        "env": [{"name": name, "value": value} for name, value in DYNAMIC_PIPELINES.items()],
        "env_from": [],
    }
    return settings | _accounts(stack.service_account, stack.stage_account)


def _accounts(starter: str, steps: str) -> dict[str, str]:
    """The settings that name the account of the pod that starts others, and that of the steps' pods; none for none."""
    if not starter:
        return {}
    return {"service_account_name": starter, "step_pod_service_account_name": steps}
