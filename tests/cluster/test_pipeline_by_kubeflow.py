"""The training pipeline started by Kubeflow Pipelines: submitted by its client, compiled, and run in pods by what was.

The pod of stage III is killed in the middle. Comes after tests/cluster/test_pipeline.py, which wants a cluster that
has run nothing. Slow, and of the emulated cluster only: see tests/cluster/kubeflow.py.
"""

import re
from typing import NamedTuple

import kubernetes_validate
import pytest
from kubernetes.client import ApiClient, V1Pod
from mlflow import MlflowClient

from steps.registry import MODEL
from tests.cluster.kubeflow import TASK_LABEL, KubeflowPipelines
from tests.cluster.site import ITERATIONS, Outcome, Site, steps_of_open_run
from tests.cluster.test_pipeline import STAGES

pytestmark = pytest.mark.cluster


class Run(NamedTuple):
    """How the run ended; the pod of stage III that was killed; and the versions there were before."""

    outcome: Outcome
    killed: str
    versions_before: int
    states: list[str]


def pods(site: Site, stage: str) -> list[V1Pod]:
    """Of a stage."""
    selector = f"{TASK_LABEL}={stage.replace('_', '-')}"
    return list(site.core.list_namespaced_pod(site.namespace, label_selector=selector).items)


def versions(site: Site) -> int:
    return len(MlflowClient(site.mlflow).search_model_versions(f"name = '{MODEL}'"))


@pytest.fixture(scope="module")
def submitted(site: Site) -> Run:
    if site.cluster is None:
        pytest.skip("a real cluster may have no Kubeflow Pipelines")
    kubeflow, killed, before = KubeflowPipelines(site.cluster), [], versions(site)
    here = site.of(site.project, SPC_KUBEFLOW_NAMESPACE=site.namespace, KUBECONFIG=str(site.cluster.kubeconfig))

    def kill() -> None:
        here.wait(lambda: pods(here, "reinforce"), seconds=1500)
        here.wait(lambda: steps_of_open_run(here.mlflow, "reinforce") >= 2, seconds=300)
        killed.append(pods(here, "reinforce")[0].metadata.name)
        here.kill(killed[0])

    profile = ("--config", "configs/small.yaml", "--stack", "kubeflow", "--no-cache")
    outcome = here.run("run", *profile, "--set", f"reinforce.iterations={ITERATIONS}", during=kill)
    return Run(outcome, "".join(killed), before, [run["state"] for run in kubeflow.runs.values()])


def test_the_run_completes_and_adds_a_version(site: Site, submitted: Run) -> None:
    assert submitted.outcome.code == 0, submitted.outcome.output[-6000:]
    assert f"({len(STAGES)} steps, 0 from the cache)" in submitted.outcome.output
    assert submitted.states == ["SUCCEEDED"]
    assert versions(site) == submitted.versions_before + 1


def test_every_stage_is_in_a_pod_of_its_own_that_asks_for_the_right_things(site: Site, submitted: Run) -> None:
    for stage in STAGES:
        (pod,) = pods(site, stage)  # the one that was killed is gone
        assert pod.metadata.name != submitted.killed
        assert pod.status.phase == "Succeeded", stage
        on_gpu = stage in STAGES[-6:]
        labels = site.core.read_node(pod.spec.node_name).metadata.labels
        assert labels["smartphotocrafter/pool"] == ("gpu" if on_gpu else "cpu"), stage
        plain = ApiClient().sanitize_for_serialization(pod)
        plain.pop("status")
        kubernetes_validate.validate({"apiVersion": "v1", "kind": "Pod", **plain}, "1.33", strict=True)
        (container,) = pod.spec.containers
        assert container.resources.limits.get("nvidia.com/gpu") == ("1" if on_gpu else None), stage
        assert {mount.mount_path for mount in container.volume_mounts} == {"/state", *(["/dev/shm"] * on_gpu)}


def test_stage_three_went_on_from_its_checkpoint(site: Site, submitted: Run) -> None:
    (pod,) = pods(site, "reinforce")
    (resumed,) = re.findall(rf"resuming at iteration (\d+) of {ITERATIONS}", site.log(pod.metadata.name))
    assert int(resumed) >= 1, "not from zero"
