"""Annotation and synthesis over shards, in pods: each on the node it belongs to, tried again when it dies, none lost.

Slow, and on a real cluster as well as on the emulated one: see tests/cluster/test_pipeline.py.
"""

from typing import NamedTuple

import pytest
from kubernetes.client import V1Job

from tests.cluster.site import Outcome, Site

pytestmark = pytest.mark.cluster

SHARDS = 3
MAPPED = tuple(f"{stage}-{number}" for stage in ("annotate", "synthesize") for number in range(SHARDS))
STEPS = ("partition", *MAPPED, "annotate", "synthesize")
"""Beside `ingest` and `validate`, which come from the cache of a run that was there before."""
KILLED, EVICTED, STARTER = "synthesize-1", "annotate-2", ""


class Spread(NamedTuple):
    """How the run over shards ended."""

    outcome: Outcome
    ended: dict[str, str]
    """The pods that were ended, by step."""


@pytest.fixture(scope="module")
def spread(site: Site) -> Spread:
    """One run, in which a shard's node is drained, another's pod killed, and then the pod that starts the steps."""
    before = {pod.metadata.name for step in (EVICTED, KILLED, STARTER) for pod in site.pods(step)}
    ended: dict[str, str] = {}

    def disturb() -> None:
        ended[EVICTED] = site.new_pod(EVICTED, before)
        site.evict(ended[EVICTED])
        ended[KILLED] = site.new_pod(KILLED, before)
        site.kill(ended[KILLED])
        site.new_pod(KILLED, {*before, ended[KILLED]})
        ended[STARTER] = site.new_pod(STARTER, before)
        site.kill(ended[STARTER])

    return Spread(site.drive(during=disturb, shards=SHARDS), ended)


def jobs(site: Site, step: str) -> list[V1Job]:
    """The jobs that the run made for a step."""
    run = site.pods(step)[-1].metadata.labels["run_id"]
    return list(site.batch.list_namespaced_job(site.namespace, label_selector=f"step_name={step},run_id={run}").items)


def test_every_step_has_a_pod_of_its_own_where_the_stack_file_wants_it(site: Site, spread: Spread) -> None:
    assert spread.outcome.code == 0, spread.outcome.output[-6000:]
    summary = spread.outcome.summary
    assert summary["status"] == "completed"
    assert set(summary["steps"]) == {"ingest", "validate", *STEPS}
    assert {summary["steps"][step] for step in STEPS} == {"completed"}
    pods = {step: site.pods(step)[-1] for step in STEPS}
    assert len({pod.metadata.name for pod in pods.values()}) == len(STEPS)
    assert len({pod.metadata.labels["run_id"] for pod in pods.values()}) == 1
    assert {pod.spec.service_account_name for pod in pods.values()} == {"smartphotocrafter-stage"}
    assert site.pods(STARTER)[-1].spec.service_account_name == "smartphotocrafter"
    for step, pod in pods.items():
        assert pod.status.phase == "Succeeded", step
        assert site.core.read_node(pod.spec.node_name).metadata.labels["smartphotocrafter/pool"] == "cpu", step
        container = pod.spec.containers[0]
        assert container.resources.requests == {"cpu": "2", "memory": "8Gi"}, step
        assert "/state" in {mount.mount_path for mount in container.volume_mounts}, step


def test_each_pod_that_ended_is_replaced_and_only_the_killed_shard_uses_up_a_retry(site: Site, spread: Spread) -> None:
    for step in (KILLED, EVICTED, STARTER):
        assert site.pods(step)[-1].metadata.name != spread.ended[step]
    ended = {step: [(job.status.succeeded, job.status.failed) for job in jobs(site, step)] for step in MAPPED}
    first, second = sorted(ended.pop(KILLED), key=lambda job: job[0] or 0)
    assert (first[1], second[0]) == (1, 1)
    assert [len(outcomes) for outcomes in ended.values()] == [1] * len(ended)
    assert not any(failed for ((_, failed),) in ended.values())


def test_what_the_shards_made_is_what_one_step_makes(spread: Spread) -> None:
    assert spread.outcome.summary["in_shards"] == spread.outcome.summary["alone"]


def test_nothing_runs_again_and_no_step_takes_a_pod_when_nothing_changed(site: Site, spread: Spread) -> None:
    before = {step: [pod.metadata.name for pod in site.pods(step)] for step in STEPS}
    again = site.drive(shards=SHARDS)
    assert again.code == 0, again.output[-6000:]
    assert set(again.summary["steps"].values()) == {"cached"}
    assert again.summary["in_shards"] == spread.outcome.summary["in_shards"]
    assert before == {step: [pod.metadata.name for pod in site.pods(step)] for step in STEPS}
