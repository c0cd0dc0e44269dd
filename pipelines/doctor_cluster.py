"""The checks of `make doctor` that ask the Kubernetes API: rights, what the stack names, nodes, room in the quota."""

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from pipelines.doctor import Finding, Unhealthy, _run
from pipelines.stack_file import KUBEFLOW, PodsFile, StackFile

_RIGHTS = {
    "kubernetes": (
        ("batch", "jobs", "create"),
        ("batch", "jobs", "get"),
        ("batch", "jobs", "list"),
        ("", "pods", "list"),
        ("", "pods/log", "get"),
        ("", "secrets", "create"),
        ("", "secrets", "delete"),
    ),
    KUBEFLOW: (("", "services/proxy", "get"), ("", "services/proxy", "create")),
}
"""What submitting a run takes, by the flavor of the orchestrator: group, resource and verb. See `_ROLE`."""
_ROLE = {  # what gives it
    "kubernetes": "bind your user to the role smartphotocrafter-submit (deploy/base/access.yaml)",
    KUBEFLOW: "bind your user to a role with get and create on services/proxy in that namespace",
}
_KUBEFLOW_API = "ml-pipeline"
_APPLY = "`kubectl apply --kustomize deploy/overlays/production` makes it"
_BINARY = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40, "Pi": 2**50}
_DECIMAL = {"m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15}


def quantity(text: str) -> float:
    """A Kubernetes resource quantity ("500m", "96Gi", "4") as a number.

    Raises:
        ValueError: it is none.
    """
    text = str(text)
    for units in (_BINARY, _DECIMAL):
        for suffix, factor in units.items():
            if text.endswith(suffix):
                return float(text.removesuffix(suffix)) * factor
    return float(text)


def examine_cluster(stack: StackFile, settings: Mapping[str, Any]) -> Iterator[Finding]:
    """Every check that needs the API of the cluster; if it cannot be reached, that is the only finding.

    Args:
        settings: the checked configuration that is to run, as plain data.
    """
    from kubernetes import client

    context = str(stack.components["orchestrator"].configuration.get("kubernetes_context", ""))
    namespace = stack.namespace
    found: list[str] = []
    yield (reached := _run("kubernetes", lambda: _reach(context, found)))
    if not reached.ok:
        return
    core, storage = client.CoreV1Api(found[0]), client.SchedulingV1Api(found[0])
    authorization = client.AuthorizationV1Api(found[0])
    flavor = stack.components["orchestrator"].flavor
    yield _run("rights", lambda: _rights(authorization, namespace, flavor))
    yield _run("namespace", lambda: _exists(lambda: core.read_namespace(namespace), f"namespace {namespace}"))
    if flavor == KUBEFLOW:
        yield _run(
            "kubeflow",
            lambda: _exists(
                lambda: core.read_namespaced_service(_KUBEFLOW_API, namespace),
                f"service {_KUBEFLOW_API} in {namespace}",
                "install Kubeflow Pipelines 2, or set SPC_KUBEFLOW_NAMESPACE to where it is",
            ),
        )
    for what, account in (("service account", stack.service_account), ("stage account", stack.stage_account)):
        if account:
            yield _run(
                what,
                partial(
                    _exists,
                    partial(core.read_namespaced_service_account, account, namespace),
                    f"service account {account}",
                ),
            )
    claims = sorted({claim for pods in stack.pods.values() for claim in pods.claims})
    for claim in claims:
        yield _run(f"claim {claim}", partial(_claim, core, claim, namespace))
    for secret in sorted({secret for pods in stack.pods.values() for secret in pods.secrets}):
        yield _run(
            f"secret {secret}",
            partial(
                _exists,
                partial(core.read_namespaced_secret, secret, namespace),
                f"secret {secret}",
                f"`kubectl --namespace {namespace} create secret generic {secret} --from-literal=NAME=value`, see "
                f"docs/how-to/kubernetes.md for its keys",
            ),
        )
    for name in sorted({pods.priority_class for pods in stack.pods.values() if pods.priority_class}):
        yield _run(
            f"priority {name}",
            partial(_exists, partial(storage.read_priority_class, name), f"priority class {name}"),
        )
    for name, pods in stack.pods.items():
        computes = [settings.get(stage, {}).get("compute", {}) for stage in pods.stages]
        most = max((compute.get("nodes", 1) for compute in computes), default=1)
        yield _run(f"nodes for {name}", partial(_nodes, core, pods, most))
        yield _run(f"quota for {name}", partial(_quota, core, namespace, pods, most))


def _reach(context: str, into: list[Any]) -> str:
    from kubernetes import client, config
    from urllib3.exceptions import HTTPError

    try:
        api = config.new_client_from_config(context=context or None)
    except config.ConfigException as error:
        raise Unhealthy(
            f"no usable context {context!r} in the kubeconfig: {error}",
            "`kubectl config get-contexts` lists those there are; set SPC_KUBE_CONTEXT to one",
        ) from error
    try:
        version = client.VersionApi(api).get_code(_request_timeout=10).git_version
    except client.ApiException as error:
        raise Unhealthy(
            f"the cluster refuses the credentials of {context} ({error.status})", "log in to the cluster again"
        ) from error
    except HTTPError as error:
        raise Unhealthy(
            f"the cluster of {context} does not answer: {error}", "is it up, and the way to it open?"
        ) from error
    into.append(api)
    return f"Kubernetes {version} by the context {context}"


def _rights(authorization: Any, namespace: str, flavor: str) -> str:
    from kubernetes import client

    refused = []
    for group, resource, verb in _RIGHTS[flavor]:
        name, _, sub = resource.partition("/")
        attributes = client.V1ResourceAttributes(
            namespace=namespace, group=group, resource=name, subresource=sub or None, verb=verb
        )
        review = client.V1SelfSubjectAccessReview(
            spec=client.V1SelfSubjectAccessReviewSpec(resource_attributes=attributes)
        )
        if not authorization.create_self_subject_access_review(review).status.allowed:
            refused.append(f"{verb} {resource}")
    if refused:
        raise Unhealthy(
            f"not allowed in {namespace}: {', '.join(refused)}",
            _ROLE[flavor],
        )
    return f"all {len(_RIGHTS[flavor])} that submitting takes"


def _exists(read: Any, what: str, remedy: str = _APPLY) -> str:
    from kubernetes.client import ApiException

    try:
        read()
    except ApiException as error:
        if error.status == 404:
            raise Unhealthy(f"there is no {what}", remedy) from error
        if error.status == 403:
            return f"{what}: may not be looked at with these credentials, not checked"
        raise
    return f"{what} is there"


def _claim(core: Any, name: str, namespace: str) -> str:
    found: list[Any] = []
    outcome = _exists(
        lambda: found.append(core.read_namespaced_persistent_volume_claim(name, namespace)), f"volume claim {name}"
    )
    if found and found[0].status and found[0].status.phase == "Lost":
        raise Unhealthy(f"the volume of the claim {name} is lost", "restore the volume, or delete and apply the claim")
    return outcome


def _nodes(core: Any, pods: PodsFile, count: int) -> str:
    """Nodes that could take `count` such pods if they were empty."""
    from kubernetes.client import ApiException

    selector = ",".join(f"{key}={value}" for key, value in pods.node_selector.items())
    try:
        nodes = core.list_node(label_selector=selector).items
    except ApiException as error:
        if error.status == 403:
            return "nodes may not be looked at with these credentials, not checked"
        raise
    if not nodes:
        raise Unhealthy(
            f"no node has the labels {selector or '(any)'}",
            f"`kubectl label node NODE {selector.replace(',', ' ')}`, or change node_selector in the stack file",
        )
    wanted = {"cpu": pods.cpu, "memory": pods.memory} | ({pods.gpu_resource: str(pods.gpus)} if pods.gpus else {})
    asked = ", ".join(f"{key} {value}" for key, value in wanted.items())
    room, lacking = 0, dict[str, str]()
    for node in nodes:
        have = node.status.allocatable or {}
        lacks = [name for name, amount in wanted.items() if quantity(have.get(name, "0")) < quantity(amount)]
        taints = [taint for taint in node.spec.taints or [] if taint.effect == "NoSchedule"]
        if not lacks and all(_tolerated(taint, pods) for taint in taints):
            room += min(int(quantity(have[name]) / quantity(amount)) for name, amount in wanted.items())
            if room >= count:
                return f"{node.metadata.name} can take one ({asked})" if count == 1 else f"room for {count} ({asked})"
            continue
        untolerated = [f"taint {taint.key}" for taint in taints if not _tolerated(taint, pods)]
        short = [f"{name} {have.get(name, '0')} of {wanted[name]}" for name in lacks]
        lacking[node.metadata.name] = ", ".join([*short, *untolerated])
    if room:
        raise Unhealthy(
            f"room for {room} pods at once, and a stage trains on {count} ({asked} each)",
            f"add nodes, or set compute.nodes of the stage to {room}",
        )
    raise Unhealthy(
        "; ".join(f"{name}: {why}" for name, why in lacking.items()),
        "add a larger node (and the device plugin for GPUs), or ask for less in the stack file",
    )


def _tolerated(taint: Any, pods: PodsFile) -> bool:
    for toleration in pods.tolerations:
        if toleration.get("effect") not in (None, taint.effect):
            continue
        if toleration.get("operator", "Equal") == "Exists":
            if toleration.get("key") in (None, taint.key):
                return True
        elif toleration.get("key") == taint.key and toleration.get("value") == taint.value:
            return True
    return False


def _quota(core: Any, namespace: str, pods: PodsFile, count: int) -> str:
    wanted = {"requests.cpu": pods.cpu, "requests.memory": pods.memory, "limits.memory": pods.memory}
    if pods.gpus:
        wanted[f"requests.{pods.gpu_resource}"] = str(pods.gpus)
    quotas = core.list_namespaced_resource_quota(namespace).items
    for quota in quotas:
        hard, used = quota.status.hard or {}, quota.status.used or {}
        for name, amount in wanted.items():
            if name in hard and quantity(used.get(name, "0")) + count * quantity(amount) > quantity(hard[name]):
                times = f" {count} times" if count > 1 else ""
                raise Unhealthy(
                    f"{quota.metadata.name}: {name} {used.get(name, '0')} of {hard[name]} used, {amount} more "
                    f"wanted{times}",
                    "wait for other jobs, or raise the quota (deploy/base/limits.yaml)",
                )
    return "there is room" if quotas else "the namespace has no quota"
