"""Stages II and III on two nodes, in pods: where they run, that they go on from a checkpoint, and what comes of it.

In the middle one of the pods is killed, in stage II, or the node of one is drained, in stage III. Slow, and on a real
cluster as well as on the emulated one: see tests/cluster/test_pipeline.py. The emulated pods join by gloo on the
loopback address.
"""

import re
from collections.abc import Callable
from typing import Any, NamedTuple

import kubernetes_validate
import pytest
from kubernetes.client import V1Pod

from steps.pods import training_step
from tests.cluster.site import Outcome, Site, Trained, steps_of_open_run

pytestmark = pytest.mark.cluster

NODES = 2
INDEX = "batch.kubernetes.io/job-completion-index"


class Case(NamedTuple):
    """A stage on two nodes and what is done to one of its pods."""

    stage: str
    steps: int
    """How many there are, or iterations in stage III."""
    settings: dict[str, Any]
    disturb: Callable[[Site, str], None]


CASES = (
    Case(
        "adapt_artist", 30, {"optimiser.steps": 30, "optimiser.learning_rate": 1e-4, "checkpoint_every": 1}, Site.kill
    ),
    Case(
        "reinforce",
        12,
        {"iterations": 12, "critic_learning_rate": 1e-4, "artist_learning_rate": 1e-4, "rollouts.verdicts": 4},
        Site.evict,
    ),
)


class Joined(NamedTuple):
    """How the run on two nodes ended, and the pod that was disturbed."""

    case: Case
    outcome: Outcome
    disturbed: str

    @property
    def training(self) -> str:
        """Name of the step whose pods train."""
        return training_step(self.case.stage)


def nodes(site: Site, step: str) -> list[V1Pod]:
    """Pods that trained, the newest last; the one that starts them has the same labels, but no number."""
    return [pod for pod in site.pods(step) if INDEX in pod.metadata.labels]


@pytest.fixture(scope="module", params=CASES, ids=lambda case: case.stage)
def joined(site: Site, trained: Trained, request: pytest.FixtureRequest) -> Joined:
    """One run of the stage; the second node is disturbed once MLflow has heard of some steps."""
    assert trained.code == 0, trained.output[-6000:]
    case: Case = request.param
    disturbed: list[str] = []

    def disturb() -> None:
        site.wait(lambda: steps_of_open_run(site.mlflow, case.stage) >= 3)
        pods = nodes(site, training_step(case.stage))
        disturbed.extend(pod.metadata.name for pod in pods if pod.metadata.labels[INDEX] == "1")
        case.disturb(site, disturbed[0])

    outcome = site.drive(during=disturb, stage=case.stage, nodes=NODES, settings=case.settings)
    return Joined(case, outcome, *disturbed[:1])


def test_the_weights_are_those_of_one_process(joined: Joined) -> None:
    assert joined.outcome.code == 0, joined.outcome.output[-6000:]
    summary, stage = joined.outcome.summary, joined.case.stage
    assert summary["steps"] == dict.fromkeys((f"prepare_{stage}", joined.training, stage), "completed")
    assert len(summary["far"]) == (2 if stage == "reinforce" else 1)
    assert min(summary["moved"].values()) > 5e-4
    assert max(summary["far"].values()) < 1e-5


def test_when_one_node_is_lost_all_start_again_from_the_last_checkpoint(site: Site, joined: Joined) -> None:
    found = site.batch.list_namespaced_job(site.namespace, label_selector=f"step_name={joined.training}").items
    first, second = sorted(
        (job for job in found if job.spec.completion_mode == "Indexed"), key=lambda job: job.metadata.creation_timestamp
    )
    assert [job.status.conditions[0].type for job in (first, second)] == ["Failed", "Complete"]
    pods = [pod for pod in nodes(site, joined.training) if pod.metadata.labels["job-name"] == second.metadata.name]
    assert [pod.status.phase for pod in pods] == ["Succeeded"] * NODES
    assert joined.disturbed not in {pod.metadata.name for pod in pods}
    resumed = [
        re.findall(rf"resuming at (?:step|iteration) (\d+) of {joined.case.steps}", site.log(pod.metadata.name))
        for pod in pods
    ]
    ((step,),) = {tuple(steps) for steps in resumed}
    assert int(step) >= 2, "not from zero"


def test_pods_are_on_gpu_nodes_and_whoever_waits_for_them_is_not(site: Site, joined: Joined) -> None:
    for pod in nodes(site, joined.training):
        (container,) = pod.spec.containers
        assert container.resources.requests["nvidia.com/gpu"] == container.resources.limits["nvidia.com/gpu"] == "1"
        assert {"/state", "/dev/shm"} <= {mount.mount_path for mount in container.volume_mounts}
        assert site.core.read_node(pod.spec.node_name).metadata.labels["smartphotocrafter/pool"] == "gpu"
        assert pod.metadata.labels["app.kubernetes.io/component"] == "stage", "the network policies know it by that"
        assert pod.spec.service_account_name == "smartphotocrafter-stage"
    others = [pod for pod in site.pods(joined.training) if INDEX not in pod.metadata.labels]
    assert {pod.spec.service_account_name for pod in others} <= {"smartphotocrafter"}, "it starts the others"
    for pod in (*others, site.pods(f"prepare_{joined.case.stage}")[-1], site.pods(joined.case.stage)[-1]):
        assert pod.spec.node_selector == {"smartphotocrafter/pool": "cpu"}


def test_the_job_and_its_service_are_valid(site: Site, joined: Joined) -> None:
    name = nodes(site, joined.training)[-1].metadata.labels["job-name"]
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
    stage, training = joined.case.stage, joined.training
    before = {pod.metadata.name for pod in nodes(site, training)}
    outcome = site.drive(stage=stage, nodes=NODES, settings=joined.case.settings, dynamic=True)
    assert outcome.code == 0, outcome.output[-6000:]
    assert outcome.summary["steps"] == {f"prepare_{stage}": "completed", training: "completed", stage: "cached"}
    new = [pod.metadata.name for pod in nodes(site, training) if pod.metadata.name not in before]
    assert len(new) == NODES
    for pod in new:
        assert "done already" in site.log(pod)
        assert "starting" not in site.log(pod)


def test_an_error_that_stays_is_told_and_ends_the_run(site: Site, trained: Trained) -> None:
    stage = "adapt_artist"
    before = {pod.metadata.name for pod in site.pods(stage)}
    reason, heard = "weights are trained in float32, and compute.dtype is bfloat16", []

    def listen() -> None:
        waiting = site.new_pod(stage, before)
        site.wait(lambda: reason in site.log(waiting))
        heard.append(site.log(waiting))

    settings = {"trainable": "full", "compute.dtype": "bfloat16", "optimiser.steps": 1}
    outcome = site.drive(during=listen, stage=stage, nodes=NODES, settings=settings)
    assert outcome.code != 0
    assert re.search(rf"failed: rank [01] failed: ValueError: {reason}.*Traceback", heard[0], re.DOTALL)
    site.wait(lambda: not [pod for pod in site.pods(stage) if pod.status.phase == "Running"], seconds=120)


def found(site: Site, path: str, name: str) -> dict[str, Any]:
    """An object as the API has it."""
    answer = site.kubernetes.call_api(f"{path}/{name}", "GET", response_type="object", auth_settings=["BearerToken"])
    return dict(answer[0])
