"""Stage II on two nodes, in pods: where they run, that they go on from a checkpoint together, and what comes of it.

One of its pods is killed in the middle. Slow, and on a real cluster as well as on the emulated one: see
tests/cluster/test_pipeline.py. The emulated pods join by gloo on the loopback address.
"""

import re
from typing import Any, NamedTuple

import kubernetes_validate
import pytest
from kubernetes.client import V1Pod

from steps.pods import training_step
from tests.cluster.site import Outcome, Site, Trained, steps_of_open_run

NODES, STEPS = 2, 30
STAGE, TRAINING = "adapt_artist", training_step("adapt_artist")
INDEX = "batch.kubernetes.io/job-completion-index"


class Joined(NamedTuple):
    """How the run on two nodes ended, and the pod that was killed."""

    outcome: Outcome
    killed: str


def nodes(site: Site) -> list[V1Pod]:
    """Pods that trained, the newest last; the one that starts them has the same labels, but no number."""
    return [pod for pod in site.pods(TRAINING) if INDEX in pod.metadata.labels]


@pytest.fixture(scope="module")
def joined(site: Site, trained: Trained) -> Joined:
    """One run of the stage; the second node is killed once MLflow has heard of some steps."""
    assert trained.code == 0, trained.output[-6000:]
    killed: list[str] = []

    def kill() -> None:
        site.wait(lambda: steps_of_open_run(site.mlflow, STAGE) >= 3)
        killed.extend(pod.metadata.name for pod in nodes(site) if pod.metadata.labels[INDEX] == "1")
        site.kill(killed[0])

    return Joined(site.drive(during=kill, nodes=NODES, steps=STEPS), *killed[:1])


def test_the_weights_are_those_of_one_process(joined: Joined) -> None:
    assert joined.outcome.code == 0, joined.outcome.output[-6000:]
    summary = joined.outcome.summary
    assert summary["steps"] == dict.fromkeys((f"prepare_{STAGE}", TRAINING, STAGE), "completed")
    assert summary["moved"] > 1e-3
    assert summary["far"] < 1e-5


def test_when_one_node_dies_all_start_again_from_the_last_checkpoint(site: Site, joined: Joined) -> None:
    found = site.batch.list_namespaced_job(site.namespace, label_selector=f"step_name={TRAINING}").items
    first, second = sorted(
        (job for job in found if job.spec.completion_mode == "Indexed"), key=lambda job: job.metadata.creation_timestamp
    )
    assert [job.status.conditions[0].type for job in (first, second)] == ["Failed", "Complete"]
    pods = [pod for pod in nodes(site) if pod.metadata.labels["job-name"] == second.metadata.name]
    assert [pod.status.phase for pod in pods] == ["Succeeded"] * NODES
    assert joined.killed not in {pod.metadata.name for pod in pods}
    resumed = [re.findall(rf"resuming at step (\d+) of {STEPS}", site.log(pod.metadata.name)) for pod in pods]
    ((step,),) = {tuple(steps) for steps in resumed}
    assert int(step) >= 2, "not from zero"


def test_pods_are_on_gpu_nodes_and_whoever_waits_for_them_is_not(site: Site, joined: Joined) -> None:
    for pod in nodes(site):
        (container,) = pod.spec.containers
        assert container.resources.requests["nvidia.com/gpu"] == container.resources.limits["nvidia.com/gpu"] == "1"
        assert {"/state", "/dev/shm"} <= {mount.mount_path for mount in container.volume_mounts}
        assert site.core.read_node(pod.spec.node_name).metadata.labels["smartphotocrafter/pool"] == "gpu"
        assert pod.metadata.labels["app.kubernetes.io/component"] == "stage", "the network policies know it by that"
        assert pod.spec.service_account_name == "smartphotocrafter"
    others = [pod for pod in site.pods(TRAINING) if INDEX not in pod.metadata.labels]
    for pod in (*others, site.pods(f"prepare_{STAGE}")[-1], site.pods(STAGE)[-1]):
        assert pod.spec.node_selector == {"smartphotocrafter/pool": "cpu"}


def test_the_job_and_its_service_are_valid(site: Site, joined: Joined) -> None:
    name = nodes(site)[-1].metadata.labels["job-name"]
    job, service = (
        found(site, path, name)
        for path in (
            f"/apis/batch/v1/namespaces/{site.namespace}/jobs",
            f"/api/v1/namespaces/{site.namespace}/services",
        )
    )
    for manifest in (job, service):
        kubernetes_validate.validate({key: manifest[key] for key in manifest if key != "status"}, "1.35", strict=True)
    assert job["spec"]["completionMode"] == "Indexed"
    assert (job["spec"]["completions"], job["spec"]["parallelism"], job["spec"]["backoffLimit"]) == (NODES, NODES, 0)
    assert service["spec"]["clusterIP"] == "None"
    assert service["metadata"]["ownerReferences"][0]["uid"] == job["metadata"]["uid"], "it goes with the job"


def test_a_job_that_is_done_is_not_done_again_in_a_dynamic_pipeline_either(site: Site, joined: Joined) -> None:
    before = {pod.metadata.name for pod in nodes(site)}
    outcome = site.drive(nodes=NODES, steps=STEPS, dynamic=True)
    assert outcome.code == 0, outcome.output[-6000:]
    assert outcome.summary["steps"] == {f"prepare_{STAGE}": "completed", TRAINING: "completed", STAGE: "cached"}
    new = [pod.metadata.name for pod in nodes(site) if pod.metadata.name not in before]
    assert len(new) == NODES
    for pod in new:
        assert "done already" in site.log(pod)
        assert "starting" not in site.log(pod)


def test_an_error_that_stays_is_told_and_ends_the_run(site: Site, joined: Joined) -> None:
    before = {pod.metadata.name for pod in site.pods(STAGE)}
    reason, heard = "weights are trained in float32, and compute.dtype is bfloat16", []

    def listen() -> None:
        waiting = site.new_pod(STAGE, before)
        site.wait(lambda: reason in site.log(waiting))
        heard.append(site.log(waiting))

    more = {"trainable": "full", "compute": {"device": "cpu", "dtype": "bfloat16"}}
    outcome = site.drive(during=listen, nodes=NODES, steps=1, more=more)
    assert outcome.code != 0
    assert re.search(rf"failed: rank [01] failed: ValueError: {reason}.*Traceback", heard[0], re.DOTALL)
    site.wait(lambda: not [pod for pod in site.pods(STAGE) if pod.status.phase == "Running"], seconds=120)


def found(site: Site, path: str, name: str) -> dict[str, Any]:
    """An object as the API has it."""
    answer = site.kubernetes.call_api(f"{path}/{name}", "GET", response_type="object", auth_settings=["BearerToken"])
    return dict(answer[0])
