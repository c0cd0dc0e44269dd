"""The schedule: the right moments, one process on this machine, one CronJob on a cluster."""

import os
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import kubernetes_validate
import psutil
import pytest
from kubernetes import client, config

from pipelines import schedule
from pipelines.environment import State
from pipelines.stack_file import StackError, StackFile, read_stack_file
from tests.cluster.emulated import CONTEXT, EmulatedCluster
from tests.pipelines.clusters import cluster_environment

pytestmark = pytest.mark.slow

MONDAYS = "0 3 * * 1"


def test_times_are_those_a_walk_through_the_calendar_finds() -> None:
    began = datetime(2026, 2, 27, 12, 34, tzinfo=UTC)
    minute = began.replace(second=0) + timedelta(minutes=1)
    while (minute.isoweekday(), minute.hour, minute.minute) != (1, 3, 0):
        minute += timedelta(minutes=1)
    assert schedule.next_time(MONDAYS, began) == minute


@pytest.mark.parametrize("cron", ["", "0 3 * *", "0 3 * * 1 2026", "61 3 * * 1", "@weekly", "soon"])
def test_what_is_no_schedule_is_refused(cron: str) -> None:
    with pytest.raises(ValueError, match="expected five fields"):
        schedule.check_cron(cron)


def test_it_fires_at_each_time_and_leaves_out_those_that_pass_while_it_works() -> None:
    clock = [datetime(2026, 3, 2, 2, 59, tzinfo=UTC)]
    fired: list[datetime] = []

    def fire() -> None:
        fired.append(clock[0])
        if len(fired) == 3:
            raise KeyboardInterrupt
        clock[0] += timedelta(minutes=25)

    def sleep(seconds: float) -> None:
        assert seconds <= 30
        clock[0] += timedelta(seconds=seconds)

    with pytest.raises(KeyboardInterrupt):
        schedule.serve("*/10 * * * *", fire, now=lambda: clock[0], sleep=sleep)
    assert [f"{moment:%H:%M}" for moment in fired] == ["03:00", "03:30", "04:00"]


def test_one_scheduler_a_machine_that_can_be_stopped(tmp_path: Path) -> None:
    state = State(tmp_path / "state")
    assert schedule.find(state) is None
    assert schedule.stop(state) is None
    first = schedule.start(MONDAYS, ["--stack", "local"], state)
    second = schedule.start("30 4 * * 2", ["--stack", "local"], state)
    try:
        assert schedule.find(state) == second
        assert "smartphotocrafter retrain --stack local" in schedule.in_words(second)
        wait_for_end(first.pid)
        assert not first.alive
    finally:
        assert schedule.stop(state) == second
    wait_for_end(second.pid)
    assert schedule.find(state) is None


def wait_for_end(pid: int) -> None:
    """Until the child is gone; it is reaped here, as init would do it for a process that outlives its parent."""
    for _ in range(200):
        if not psutil.pid_exists(pid) or os.waitpid(pid, os.WNOHANG)[0]:
            return
        time.sleep(0.05)
    raise TimeoutError(f"process {pid} still runs")


def test_a_later_process_with_the_same_number_is_not_taken_for_the_scheduler(tmp_path: Path) -> None:
    state = State(tmp_path)
    stranger = schedule.Scheduled(cron=MONDAYS, arguments=(), pid=os.getpid(), started=1.0)
    (tmp_path / "schedule.json").write_text(stranger.model_dump_json())
    assert schedule.find(state) is None
    assert schedule.stop(state) is None, "and so it is not ended"


@pytest.fixture
def stack(state: State, monkeypatch: pytest.MonkeyPatch) -> StackFile:
    cluster_environment(monkeypatch)
    monkeypatch.setenv("SPC_IMAGE", "registry.example.org/team/smartphotocrafter:cuda")
    monkeypatch.setenv("SPC_ZENML_API_KEY", "ZENKEY_secret")
    return read_stack_file("kubernetes", state)


def test_the_cron_job_is_valid_and_holds_no_secret(stack: StackFile) -> None:
    manifest = schedule.cron_job(stack, MONDAYS, ["--stack", "kubernetes"], "https://example.org/spc.git", "main")
    kubernetes_validate.validate(manifest, "1.33", strict=True)
    assert "ZENKEY_secret" not in str(manifest)
    assert manifest["spec"]["concurrencyPolicy"] == "Forbid"
    assert manifest["spec"]["timeZone"] == "Etc/UTC"
    (container,) = manifest["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    assert container["command"][-4:] == ["main", "https://example.org/spc.git", "--stack", "kubernetes"]
    variables = {item["name"]: item["value"] for item in container["env"]}
    assert variables["SPC_STATE"] == "/state/retraining"
    assert variables["SPC_ARTIFACTS"] == "s3://artifacts/spc"


def test_without_an_image_there_is_no_cron_job(stack: StackFile) -> None:
    bare = stack.model_copy(update={"image": None})
    with pytest.raises(StackError, match="set SPC_IMAGE"):
        schedule.cron_job(bare, MONDAYS, [], "https://example.org/spc.git", "main")


def test_the_cron_job_is_made_changed_and_deleted(stack: StackFile, tmp_path: Path) -> None:
    cluster = EmulatedCluster(tmp_path)
    try:
        batch = client.BatchV1Api(config.new_client_from_config(str(cluster.kubeconfig), context=CONTEXT))
        for cron, word in ((MONDAYS, "created"), ("30 4 * * 2", "changed")):
            manifest = schedule.cron_job(stack, cron, [], "https://example.org/spc.git", "main")
            assert word in schedule.apply_cron_job(manifest, batch)
            found = batch.read_namespaced_cron_job(schedule.CRON_JOB, cluster.namespace)
            assert found.spec.schedule == cron
        assert schedule.delete_cron_job(cluster.namespace, batch)
        assert not schedule.delete_cron_job(cluster.namespace, batch)
    finally:
        cluster.stop()
