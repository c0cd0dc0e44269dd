"""Scheduled retraining: a small scheduler in a process of its own on this machine, a CronJob on a cluster.

Both fire `smartphotocrafter retrain`, which decides whether there is anything to do. Times are UTC, as Kubernetes has
them. ZenML's own schedules are not used: they freeze the data revision and the code at the moment of scheduling.
"""

import json
import logging
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import psutil
from croniter import croniter
from pydantic import ValidationError

from components.files import write_text
from components.strict import Strict
from pipelines.environment import ROOT, State
from pipelines.placement import pod_settings
from pipelines.stack_file import StackError, StackFile

log = logging.getLogger(__name__)

CRON_JOB = "smartphotocrafter-retraining"
SUBMITTER = "smartphotocrafter-submitter"
_LONGEST_SLEEP = 30.0  # seconds; a clock that is set is noticed within this time


class Scheduled(Strict):
    """A scheduler that was started on this machine."""

    cron: str
    arguments: tuple[str, ...]
    pid: int
    started: float
    """Start of the process, seconds since the epoch: tells it from a later one with the same number."""

    @property
    def alive(self) -> bool:
        """Whether the process still runs."""
        try:
            return abs(psutil.Process(self.pid).create_time() - self.started) < 1
        except psutil.NoSuchProcess:
            return False


def check_cron(cron: str) -> str:
    """The expression, stripped, if it has the five fields of cron (minute hour day month weekday).

    Raises:
        ValueError: it does not.
    """
    cron = cron.strip()
    if len(cron.split()) != 5 or not croniter.is_valid(cron):
        raise ValueError(f'CRON="{cron}": expected five fields, minute hour day month weekday, such as "0 3 * * 1"')
    return cron


def next_time(cron: str, after: datetime) -> datetime:
    """The first time after ``after`` that the expression names, UTC."""
    return croniter(cron, after.astimezone(UTC)).get_next(datetime)


def find(state: State) -> Scheduled | None:
    """The scheduler that runs on this machine, if there is one."""
    path = state.folder / "schedule.json"
    if not path.is_file():
        return None
    try:
        scheduled = Scheduled.model_validate_json(path.read_text(encoding="utf-8"))
    except ValidationError:
        return None
    return scheduled if scheduled.alive else None


def start(cron: str, arguments: Sequence[str], state: State) -> Scheduled:
    """Start a scheduler in the background, in the place of the one that may run; its output goes to a log file.

    It ends with the machine. `smartphotocrafter schedule --foreground` is the same for systemd or a container.
    """
    stop(state)
    command = [sys.executable, "-m", "pipelines", "schedule", "--cron", cron, "--foreground", *arguments]
    state.folder.mkdir(parents=True, exist_ok=True)
    with (state.folder / "schedule.log").open("ab") as log_file:
        process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log_file, stderr=log_file, start_new_session=True
        )
    scheduled = Scheduled(
        cron=cron, arguments=tuple(arguments), pid=process.pid, started=psutil.Process(process.pid).create_time()
    )
    write_text(state.folder / "schedule.json", scheduled.model_dump_json(indent=2))
    return scheduled


def stop(state: State) -> Scheduled | None:
    """End the scheduler of this machine; a retraining that is under way goes on. None if there was none."""
    scheduled = find(state)
    if scheduled is not None:
        os.kill(scheduled.pid, signal.SIGTERM)
    (state.folder / "schedule.json").unlink(missing_ok=True)
    return scheduled


def serve(
    cron: str,
    fire: Callable[[], object],
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
    sleep: Callable[[float], object] = time.sleep,
) -> None:
    """Call ``fire`` at each time that ``cron`` names, for ever. Times that pass while it works are left out."""
    while True:
        due = next_time(cron, now())
        log.info("Next retraining: %s UTC", f"{due:%Y-%m-%d %H:%M}")
        while (left := (due - now()).total_seconds()) > 0:
            sleep(min(left, _LONGEST_SLEEP))
        fire()


def cron_job(stack: StackFile, cron: str, arguments: Sequence[str], repository: str, branch: str) -> dict[str, Any]:
    """The CronJob that retrains on a cluster.

    Each time it clones ``branch`` of ``repository``, which has the newest data.dvc, code and configuration, and submits
    a run from there. Credentials come from the Kubernetes secret `spc-submit`; what the last run depended on is kept on
    the claim of the stages.

    Raises:
        StackError: the stack names no image: a pod can only start from one that exists.
    """
    if stack.image is None or not stack.image.reference:
        raise StackError("set SPC_IMAGE in the environment: the scheduled pod needs an image that exists")
    everywhere = next(pods for pods in stack.pods.values() if not pods.stages)
    settings = pod_settings(everywhere)
    environment = {name: value for name, value in stack.variables.items() if value} | everywhere.environment
    environment |= {name: os.environ[name] for name in stack.variables if os.environ.get(name)}
    environment |= {"SPC_STATE": f"{everywhere.environment.get('SPC_STATE', '/state')}/retraining", "HOME": "/tmp"}
    script = (
        'git clone --quiet --depth 1 --branch "$1" "$2" /tmp/smartphotocrafter && cd /tmp/smartphotocrafter && shift 2 '
        '&& exec python -m pipelines retrain "$@"'
    )
    container = {
        "name": "retrain",
        "image": stack.image.reference,
        "command": ["bash", "-c", script, "retrain", branch, repository, *arguments],
        "env": [{"name": name, "value": value} for name, value in sorted(environment.items())],
        "envFrom": [{"secretRef": {"name": "spc-submit"}}],
        "resources": settings["resources"],
        "volumeMounts": settings["volume_mounts"],
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }
    pod = {
        "restartPolicy": "Never",
        "serviceAccountName": SUBMITTER,
        "nodeSelector": settings["node_selectors"],
        "securityContext": settings["additional_pod_spec_args"]["security_context"],
        "containers": [container],
        "volumes": settings["volumes"],
    }
    return {
        "apiVersion": "batch/v1",
        "kind": "CronJob",
        "metadata": {"name": CRON_JOB, "namespace": stack.namespace, "labels": settings["labels"]},
        "spec": {
            "schedule": cron,
            "timeZone": "Etc/UTC",
            "concurrencyPolicy": "Forbid",
            "startingDeadlineSeconds": 3600,
            "successfulJobsHistoryLimit": 3,
            "failedJobsHistoryLimit": 5,
            "jobTemplate": {
                "spec": {
                    "backoffLimit": 0,
                    "template": {"metadata": {"labels": settings["labels"]}, "spec": pod},
                }
            },
        },
    }


def apply_cron_job(manifest: dict[str, Any], api: Any) -> str:
    """Create the CronJob, or replace the one that exists; ``api`` is a ``kubernetes.client.BatchV1Api``."""
    from kubernetes.client import ApiException

    name, namespace = manifest["metadata"]["name"], manifest["metadata"]["namespace"]
    try:
        api.create_namespaced_cron_job(namespace, manifest)
        return f"CronJob {name} created in {namespace}"
    except ApiException as error:
        if error.status != 409:
            raise
    api.replace_namespaced_cron_job(name, namespace, manifest)
    return f"CronJob {name} changed in {namespace}"


def delete_cron_job(namespace: str, api: Any) -> bool:
    """Delete the CronJob; runs that it started go on. False if there was none."""
    from kubernetes.client import ApiException

    try:
        api.delete_namespaced_cron_job(CRON_JOB, namespace, propagation_policy="Orphan")
    except ApiException as error:
        if error.status != 404:
            raise
        return False
    return True


def in_words(scheduled: Scheduled) -> str:
    """When the scheduler fires next, and what."""
    due = next_time(scheduled.cron, datetime.now(UTC))
    return (
        f'retraining is scheduled ("{scheduled.cron}" UTC, next {due:%Y-%m-%d %H:%M}, process {scheduled.pid}): '
        f"smartphotocrafter retrain {shlex.join(scheduled.arguments)}"
    )


def message(body: str | None) -> str:
    """The text of an error body of the Kubernetes API."""
    try:
        return str(json.loads(body or "")["message"])
    except (ValueError, KeyError, TypeError):
        return body or "no message"
