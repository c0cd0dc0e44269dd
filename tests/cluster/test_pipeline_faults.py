"""Faults while a pipeline runs in pods: each ends in a completed run or a clear failure, and the registry stays right.

Runs a small pipeline with the real gate at its end (tests/cluster/graph.py) after the training pipeline has completed
once. Every run enhances in a way no other does, so that each has to add exactly one version to the registry. Slow: see
tests/cluster/test_pipeline.py. What befalls servers needs the emulation; pods are killed on any cluster.
"""

import itertools
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from pipelines.schedule import CRON_JOB
from steps.registry import CHALLENGER, MODEL
from steps.registry_lock import LOCK_MODEL
from tests.cluster.proxy import Faults
from tests.cluster.services import S3_ACCESS_KEY, S3_SECRET_KEY, free_port
from tests.cluster.site import REAL, Site, Trained

pytestmark = pytest.mark.cluster

NUMBERS = 20
EMULATED = pytest.mark.skipif(bool(REAL), reason="the servers beside a real cluster are not ours to break")
OUTAGE = 30.0
"""Seconds for which MLflow is down."""
_ways = (1 - number / 1000 for number in itertools.count(1))


@pytest.fixture(autouse=True)
def _trained(trained: Trained) -> None:
    assert trained.code == 0, trained.output[-6000:]


def versions(site: Site) -> set[int]:
    return {int(version.version) for version in MlflowClient(site.mlflow).search_model_versions(f"name = '{MODEL}'")}


def survive(site: Site, name: str, during: Callable[[], None] | None = None, **settings: Any) -> list[str]:
    """Run to the end while ``during`` happens, check what has to be true of it, and say which pods did stage III."""
    before = versions(site)
    settings = {"count": NUMBERS, "pause": 0.5, "enhancer": {"strength": next(_ways)}, **settings}
    outcome = site.drive(during=during, name=name, **settings)
    assert outcome.code == 0, outcome.output[-6000:]
    summary = outcome.summary
    assert summary["status"] == "completed"
    assert set(summary["steps"].values()) == {"completed"}
    assert summary["model"]["sum"] == sum(range(settings["count"]))
    (new,) = versions(site) - before
    client = MlflowClient(site.mlflow)
    assert int(client.get_model_version_by_alias(MODEL, CHALLENGER).version) == new
    assert not client.search_registered_models(f"name = '{LOCK_MODEL}'")
    assert client.get_run(summary["mlflow_run"]).info.status == "FINISHED"
    return list(summary["model"]["hosts"])


def names(site: Site, stage: str) -> set[str]:
    return {pod.metadata.name for pod in site.pods(stage)}


def test_a_killed_pod_of_a_stage_is_replaced_and_goes_on_from_the_checkpoint(site: Site) -> None:
    before, killed = names(site, "reinforce"), []

    def kill() -> None:
        killed.append(site.new_pod("reinforce", before, "checkpoint 3\n"))
        site.kill(killed[0])

    first, second = survive(site, "killed", kill)
    assert first == killed[0]
    counted = [int(number) for number in re.findall(r"^checkpoint (\d+)$", site.log(second), re.MULTILINE)]
    assert counted[0] > 3, "not from zero"
    assert counted[-1] == NUMBERS


def test_a_drained_node_costs_no_retry(site: Site) -> None:
    before, evicted = names(site, "reinforce"), []

    def evict() -> None:
        evicted.append(site.new_pod("reinforce", before, "checkpoint 3\n"))
        site.evict(evicted[0])

    first, second = survive(site, "drained", evict)
    assert first == evicted[0] != second
    (job,) = {pod.metadata.labels["job-name"] for pod in site.pods("reinforce") if pod.metadata.name == second}
    assert not site.batch.read_namespaced_job(job, site.namespace).status.failed


def test_the_pod_that_starts_the_stages_may_be_killed(site: Site) -> None:
    before, starters = names(site, "reinforce"), names(site, "")

    def kill() -> None:
        site.new_pod("reinforce", before, "checkpoint 1\n")
        site.kill(site.new_pod("", starters))

    assert len(survive(site, "starter", kill)) == 1, "the stage under way was not started again"


@EMULATED
def test_errors_slow_answers_and_broken_connections_of_s3(site: Site) -> None:
    assert site.s3 is not None
    before = dict(site.s3.served)
    site.s3.faults = Faults(errors_every=7, drops_every=11, slow_every=5, delay=2.0)
    try:
        survive(site, "s3", pause=0.0)
    finally:
        site.s3.faults = Faults()
    assert all(site.s3.served[fate] > before[fate] for fate in ("error", "dropped", "slow"))


@EMULATED
def test_mlflow_down_for_half_a_minute(site: Site) -> None:
    before, services = names(site, "reinforce"), site.services
    assert services is not None

    def outage() -> None:
        site.new_pod("reinforce", before, "checkpoint 1\n")
        services.end("mlflow")
        time.sleep(OUTAGE)
        services.start_mlflow()

    assert len(survive(site, "mlflow", outage)) == 1, "the stage waited for it"


@EMULATED
def test_zenml_restarted_and_tokens_that_expired_meanwhile(site: Site) -> None:
    """The server's tokens live for a minute (tests/cluster/services.py), and the stage lasts longer."""
    before, services = names(site, "reinforce"), site.services
    assert services is not None
    logins = services.log("zenml").count("/api/v1/login")

    def restart() -> None:
        site.new_pod("reinforce", before, "checkpoint 1\n")
        services.end("zenml")
        services.start_zenml()

    survive(site, "zenml", restart, count=75, pause=1.0)
    assert services.log("zenml").count("/api/v1/login") > logins + 1, "whoever submitted logged in again"


@EMULATED
def test_a_revoked_key_is_a_clear_failure(site: Site) -> None:
    known, before = site.environment, versions(site)
    site.environment = known | {"SPC_ZENML_API_KEY": "ZENKEY_cmV2b2tlZA=="}
    try:
        outcome = site.run("run", "--config", "configs/small.yaml", "--stack", "kubernetes")
    finally:
        site.environment = known
    assert outcome.code == 2, outcome.output[-3000:]
    assert "SPC_ZENML_API_KEY" in outcome.output
    assert "Traceback" not in outcome.output
    assert versions(site) == before


def test_a_stage_that_fails_for_good_is_a_clear_failure(site: Site) -> None:
    before, client = versions(site), MlflowClient(site.mlflow)
    strict = ("--set", "validation.max_quarantined=0")
    outcome = site.run("run", "--config", "configs/small.yaml", "--stack", "kubernetes", *strict)
    assert outcome.code == 1, outcome.output[-6000:]
    assert re.search(r"RunFailedError: the run \S+ ended as failed in .*\bvalidate\b", outcome.output)
    assert "Traceback" not in outcome.output
    assert versions(site) == before
    experiment = client.get_experiment_by_name("smartphotocrafter").experiment_id
    parents = [run for run in client.search_runs([experiment]) if MLFLOW_PARENT_RUN_ID not in run.data.tags]
    assert max(parents, key=lambda run: run.info.start_time).info.status == "FAILED"


@EMULATED
def test_a_schedule_that_fires_twice_at_once_retrains_once(site: Site, tmp_path: Path) -> None:
    assert site.cluster is not None
    secret = {
        "SPC_ZENML_API_KEY": site.environment["SPC_ZENML_API_KEY"],
        "AWS_ACCESS_KEY_ID": S3_ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": S3_SECRET_KEY,
    }
    site.core.create_namespaced_secret(site.namespace, {"metadata": {"name": "spc-submit"}, "stringData": secret})
    before, starters = versions(site), names(site, "")
    with git_server(site.project) as repository:
        made = site.run(
            *("schedule", "--cron", "0 3 * * 1", "--stack", "kubernetes", "--config", "configs/small.yaml"),
            *("--repository", repository),
        )
        assert made.code == 0, made.output
        first = site.cluster.fire(CRON_JOB)
        assert first is not None
        assert site.cluster.fire(CRON_JOB) is None, "concurrencyPolicy: Forbid"
        template = site.batch.read_namespaced_cron_job(CRON_JOB, site.namespace).spec.job_template
        second = "by-hand"  # `kubectl create job --from=cronjob/...`, which no policy forbids
        site.batch.create_namespaced_job(site.namespace, {"metadata": {"name": second}, "spec": template.spec})
        outputs = [_output_of_job(site, name) for name in (first, second)]
    told = sorted(re.findall(r"Retraining complete|Nothing done: another pipeline is running", "".join(outputs)))
    assert told == ["Nothing done: another pipeline is running", "Retraining complete"], "\n".join(outputs)[-6000:]
    assert len(names(site, "") - starters) == 1, "one run"
    assert len(versions(site) - before) == 1, "one version"
    assert site.run("unschedule", "--stack", "kubernetes").output.strip().endswith("no longer scheduled.")


def _output_of_job(site: Site, job: str) -> str:
    """What the only pod of a job printed, once the job has succeeded."""

    def done() -> bool:
        status = site.batch.read_namespaced_job(job, site.namespace).status
        return bool(status.succeeded or status.failed)

    site.wait(done, seconds=1500)
    (pod,) = site.core.list_namespaced_pod(site.namespace, label_selector=f"job-name={job}").items
    return site.log(pod.metadata.name)


@contextmanager
def git_server(repository: Path) -> Iterator[str]:
    """Serve a repository on the loopback address; its URL."""
    port = free_port()
    command = ["git", "daemon", "--reuseaddr", "--export-all", f"--port={port}", "--listen=127.0.0.1"]
    with subprocess.Popen([*command, f"--base-path={repository.parent}"], start_new_session=True) as process:
        try:
            yield f"git://127.0.0.1:{port}/{repository.name}"
        finally:
            os.killpg(process.pid, signal.SIGTERM)  # `git` runs the daemon as a child
