"""The emulated cluster by the real Kubernetes client: rights, selectors, jobs and cron jobs behave as promised."""

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from kubernetes import client, config
from kubernetes.client import ApiException

from tests.cluster.emulated import CONTEXT, EmulatedCluster
from tests.cluster.kubelet import MOUNT_POINTS

pytestmark = pytest.mark.slow

PODS = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("unshare") is None, reason="pods need root and unshare on this machine"
)


def api(cluster: EmulatedCluster, account: str = "") -> client.ApiClient:
    path = cluster.kubeconfig
    if account:
        user = f"system:serviceaccount:{cluster.namespace}:{account}"
        path = cluster.write_kubeconfig(cluster.folder / account, cluster.token(user))
    return config.new_client_from_config(str(path), context=CONTEXT)


@pytest.fixture
def mount_points() -> Any:
    made = [Path(path) for path in MOUNT_POINTS if not Path(path).exists()]
    for path in made:
        path.mkdir()
    yield
    for path in made:
        path.rmdir()


def wait(condition: Callable[[], Any], seconds: float = 30.0) -> Any:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := condition():
            return found
        time.sleep(0.05)
    raise TimeoutError("the condition did not come true")


def job(name: str, script: str, pod: dict[str, Any] | None = None, **spec: Any) -> dict[str, Any]:
    container = {"name": "main", "image": "any", "command": ["bash", "-c", script], **(pod or {}).pop("container", {})}
    template = {"spec": {"restartPolicy": "Never", "containers": [container], **(pod or {})}}
    return {"metadata": {"name": name}, "spec": {"backoffLimit": 0, **spec, "template": template}}


def eviction(name: str) -> dict[str, Any]:
    return {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name}}


def finished(batch: client.BatchV1Api, cluster: EmulatedCluster, name: str) -> client.V1Job:
    def done() -> client.V1Job | None:
        found = batch.read_namespaced_job(name, cluster.namespace)
        return found if found.status.conditions else None

    return wait(done)


def test_a_run_may_do_what_its_role_says_and_nothing_else(cluster: EmulatedCluster) -> None:
    core = client.CoreV1Api(api(cluster, "smartphotocrafter"))
    assert core.list_namespaced_pod(cluster.namespace).items == []
    for forbidden in (
        lambda: core.read_namespaced_secret("any", cluster.namespace),
        lambda: core.list_node(),
        lambda: core.create_namespaced_service_account(cluster.namespace, {"metadata": {"name": "mine"}}),
    ):
        with pytest.raises(ApiException) as refused:
            forbidden()
        assert refused.value.status == 403
    submitter = client.CoreV1Api(api(cluster, "smartphotocrafter-submitter"))
    submitter.create_namespaced_secret(cluster.namespace, {"metadata": {"name": "token"}, "stringData": {"a": "b"}})
    core.delete_namespaced_secret("token", cluster.namespace)


def test_a_wrong_token_is_refused(cluster: EmulatedCluster) -> None:
    path = cluster.write_kubeconfig(cluster.folder / "wrong", "nobody")
    with pytest.raises(ApiException) as refused:
        client.VersionApi(config.new_client_from_config(str(path))).get_code()
    assert refused.value.status == 401


def test_objects_are_selected_patched_and_not_made_twice(cluster: EmulatedCluster) -> None:
    core = client.CoreV1Api(api(cluster))
    for name, tier in (("one", "a"), ("two", "b")):
        core.create_namespaced_config_map(
            cluster.namespace, {"metadata": {"name": name, "labels": {"tier": tier}}, "data": {"key": name}}
        )
    for selector, names in (("tier=a", ["one"]), ("tier!=a", ["two"]), ("tier in (a,b)", ["one", "two"]), ("no", [])):
        found = core.list_namespaced_config_map(cluster.namespace, label_selector=selector).items
        assert sorted(item.metadata.name for item in found) == names, selector
    patched = core.patch_namespaced_config_map("one", cluster.namespace, {"data": {"key": None, "other": "x"}})
    assert patched.data == {"other": "x"}
    with pytest.raises(ApiException) as conflict:
        core.create_namespaced_config_map(cluster.namespace, {"metadata": {"name": "one"}})
    assert conflict.value.status == 409


@PODS
def test_a_pod_runs_by_itself_with_its_account_volumes_and_secrets(
    cluster: EmulatedCluster, mount_points: None
) -> None:
    kubernetes = api(cluster)
    core, batch = client.CoreV1Api(kubernetes), client.BatchV1Api(kubernetes)
    core.create_namespaced_secret(cluster.namespace, {"metadata": {"name": "keys"}, "stringData": {"KEY": "hidden"}})
    account = "/var/run/secrets/kubernetes.io/serviceaccount"
    script = (
        f'hostname; pwd; echo "$KEY $NODE $SPC_STATE"; cat {account}/namespace; test -z "$KUBECONFIG"; '
        "echo kept > /state/file; ls /app; exit 0"
    )
    pod = {
        "nodeSelector": {"smartphotocrafter/pool": "gpu"},
        "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists"}],
        "volumes": [{"name": "state", "persistentVolumeClaim": {"claimName": "spc-state"}}],
        "container": {
            "envFrom": [{"secretRef": {"name": "keys"}}],
            "env": [{"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}}],
            "volumeMounts": [{"name": "state", "mountPath": "/state"}],
            "resources": {"limits": {"nvidia.com/gpu": "1"}},
        },
    }
    batch.create_namespaced_job(cluster.namespace, job("alone", script, pod))
    assert finished(batch, cluster, "alone").status.succeeded == 1
    (found,) = core.list_namespaced_pod(cluster.namespace, label_selector="job-name=alone").items
    lines = core.read_namespaced_pod_log(found.metadata.name, cluster.namespace).split("\n")
    assert lines[:4] == [found.metadata.name, "/app", "hidden gpu-0 /state", cluster.namespace]
    assert (cluster.folder / "claims" / "spc-state" / "file").read_text() == "kept\n"


@PODS
def test_failures_count_and_disruptions_do_not(cluster: EmulatedCluster, mount_points: None) -> None:
    from pipelines.placement import POD_FAILURE_POLICY

    kubernetes = api(cluster)
    core, batch = client.CoreV1Api(kubernetes), client.BatchV1Api(kubernetes)
    batch.create_namespaced_job(
        cluster.namespace, job("fails", "exit 3", backoffLimit=1, podFailurePolicy=POD_FAILURE_POLICY)
    )
    failed = finished(batch, cluster, "fails")
    assert (failed.status.failed, failed.status.conditions[0].reason) == (2, "BackoffLimitExceeded")

    pod = {
        "volumes": [{"name": "state", "persistentVolumeClaim": {"claimName": "spc-state"}}],
        "container": {"volumeMounts": [{"name": "state", "mountPath": "/state"}]},
    }
    script = "test -e /state/second && exit 0; touch /state/second; exec sleep 60"
    batch.create_namespaced_job(
        cluster.namespace, job("drained", script, pod, backoffLimit=0, podFailurePolicy=POD_FAILURE_POLICY)
    )
    wait(lambda: (cluster.folder / "claims" / "spc-state" / "second").exists())
    (running,) = core.list_namespaced_pod(cluster.namespace, label_selector="job-name=drained").items
    core.create_namespaced_pod_eviction(running.metadata.name, cluster.namespace, eviction(running.metadata.name))
    done = finished(batch, cluster, "drained")
    assert (done.status.succeeded, done.status.failed or 0) == (1, 0)


@PODS
def test_pods_of_an_indexed_job_know_their_number_and_each_other_and_fail_together(
    cluster: EmulatedCluster, mount_points: None
) -> None:
    kubernetes = api(cluster)
    core, batch = client.CoreV1Api(kubernetes), client.BatchV1Api(kubernetes)
    name = f"pair-0.pair.{cluster.namespace}.svc"
    script = (
        f"until getent hosts {name}; do sleep 0.1; done >/dev/null; getent hosts $(hostname); "
        "echo $JOB_COMPLETION_INDEX; test $JOB_COMPLETION_INDEX = 0 || exit 3; exec sleep 60"
    )
    indexed = {"completionMode": "Indexed", "completions": 2, "parallelism": 2}
    batch.create_namespaced_job(cluster.namespace, job("pair", script, {"subdomain": "pair"}, **indexed))
    time.sleep(0.5)
    assert not batch.read_namespaced_job("pair", cluster.namespace).status.conditions, "no name without a service"
    service = {"metadata": {"name": "pair"}, "spec": {"clusterIP": "None", "selector": {"job-name": "pair"}}}
    core.create_namespaced_service(cluster.namespace, service)
    failed = finished(batch, cluster, "pair")
    assert (failed.status.failed, failed.status.conditions[0].reason) == (1, "BackoffLimitExceeded")
    pods = core.list_namespaced_pod(cluster.namespace, label_selector="job-name=pair").items
    assert [pod.status.phase for pod in pods] == ["Failed", "Failed"]
    said = {core.read_namespaced_pod_log(pod.metadata.name, cluster.namespace) for pod in pods}
    assert any(text.startswith("127.0.0.1") and "pair-1" in text and text.endswith("\n1\n") for text in said)


@PODS
def test_a_pod_that_fits_no_node_waits(cluster: EmulatedCluster, mount_points: None) -> None:
    kubernetes = api(cluster)
    batch, core = client.BatchV1Api(kubernetes), client.CoreV1Api(kubernetes)
    pod = {"container": {"resources": {"limits": {"nvidia.com/gpu": "1"}}}}
    batch.create_namespaced_job(cluster.namespace, job("waits", "exit 0", pod))

    def unschedulable() -> bool:
        found = core.list_namespaced_pod(cluster.namespace, label_selector="job-name=waits").items
        return bool(found and found[0].status.conditions and found[0].status.conditions[0].reason == "Unschedulable")

    assert wait(unschedulable)
    batch.delete_namespaced_job("waits", cluster.namespace, propagation_policy="Background")
    wait(lambda: not core.list_namespaced_pod(cluster.namespace, label_selector="job-name=waits").items)


@PODS
def test_a_cron_job_fired_twice_at_once_runs_once(cluster: EmulatedCluster, mount_points: None) -> None:
    batch = client.BatchV1Api(api(cluster))
    template = {"spec": job("unused", "sleep 2")["spec"]}
    body = {
        "metadata": {"name": "weekly"},
        "spec": {"schedule": "0 3 * * 1", "concurrencyPolicy": "Forbid", "jobTemplate": template},
    }
    batch.create_namespaced_cron_job(cluster.namespace, body)
    first, second = cluster.fire("weekly"), cluster.fire("weekly")
    assert first is not None
    assert second is None
    assert finished(batch, cluster, first).status.succeeded == 1
