"""The controllers of the emulated cluster: jobs, cron jobs, and the deletion of what belongs to what was deleted."""

import asyncio
import copy
import logging
import secrets
import time
from datetime import UTC, datetime
from typing import Any

from croniter import croniter

from tests.cluster.kubelet import Kubelet
from tests.cluster.objects import ApiError, Key, Object, Store, now

log = logging.getLogger(__name__)

_FIRST_BACKOFF = 1.0  # seconds; the real controller waits 10
_LONGEST_BACKOFF = 360.0


class Controllers:
    """Turns jobs into pods and pods into outcomes of jobs."""

    def __init__(self, store: Store, kubelet: Kubelet) -> None:
        self.store, self.kubelet = store, kubelet
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, coroutine: Any) -> None:
        """Run a coroutine until it ends or the cluster stops."""
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    async def stop(self) -> None:
        """End everything."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def created(self, key: Key, item: Object) -> None:
        """React to a new object."""
        if key.resource == "jobs":
            self.start(self._run_job(key, item))
        elif key.resource == "pods":
            self.start(self.kubelet.run(key, item))
        elif key.resource == "services":
            self.kubelet.publish(key)

    def deleted(self, key: Key, orphan: bool, grace: float | None = None) -> None:
        """Remove an object and, unless they are orphaned, what it owns; running pods end first."""
        self.start(self._delete(key, orphan, grace))

    def evicted(self, key: Key) -> None:
        """End a pod as the drain of its node does."""
        self.start(self.kubelet.end(key, disruption=True))

    async def _delete(self, key: Key, orphan: bool, grace: float | None = None) -> None:
        item = self.store.find(key)
        if item is None:
            return
        if key.resource == "pods":
            await self.kubelet.end(key, grace)
        self.store.remove(key)
        if not orphan:
            await asyncio.gather(
                *(self._delete(owned, False) for owned in self.store.owned_by(item["metadata"]["uid"]))
            )

    async def _run_job(self, key: Key, job: Object) -> None:
        spec, status = job["spec"], job["status"]
        indices = range(spec["completions"]) if spec["completionMode"] == "Indexed" else [None] * spec["completions"]
        workers = [asyncio.create_task(self._complete(key, job, index)) for index in indices]
        try:
            await asyncio.wait_for(asyncio.gather(*workers), spec.get("activeDeadlineSeconds"))
            failure = None
        except TimeoutError:
            failure = ("DeadlineExceeded", "Job was active longer than specified deadline")
        except _JobFailed as error:
            failure = error.args
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
        for owned in list(self.store.owned_by(job["metadata"]["uid"])):
            await self.kubelet.end(owned)
        status["active"] = 0
        condition = {"status": "True", "lastTransitionTime": now(), "lastProbeTime": now()}
        if failure:
            status["conditions"].append({"type": "Failed", "reason": failure[0], "message": failure[1], **condition})
        else:
            status["completionTime"] = now()
            status["conditions"].append({"type": "Complete", **condition})
        if (seconds := spec.get("ttlSecondsAfterFinished")) is not None:
            await asyncio.sleep(seconds)
            await self._delete(key, False)

    async def _complete(self, key: Key, job: Object, index: int | None) -> None:
        """Run pods until one of them succeeds, by the job's rules."""
        spec, status = job["spec"], job["status"]
        while self.store.find(key) is job:
            pod_key, pod = self._make_pod(key, job, index)
            status["active"] += 1
            await self.kubelet.run(pod_key, pod)
            status["active"] -= 1
            if pod["status"]["phase"] == "Succeeded":
                status["succeeded"] += 1
                return
            action = _action(spec, pod)
            log.info("pod %s failed: %s", pod_key.name, action)
            if action == "Ignore":
                continue
            status["failed"] += 1
            if action == "FailJob":
                raise _JobFailed("PodFailurePolicy", f"Container of pod {pod_key.name} failed by a FailJob rule")
            if status["failed"] > spec["backoffLimit"]:
                raise _JobFailed("BackoffLimitExceeded", "Job has reached the specified backoff limit")
            await asyncio.sleep(min(_LONGEST_BACKOFF, _FIRST_BACKOFF * 2 ** (status["failed"] - 1)))

    def _make_pod(self, key: Key, job: Object, index: int | None) -> tuple[Key, Object]:
        template = copy.deepcopy(job["spec"]["template"])
        name = key.name if index is None else f"{key.name}-{index}"
        metadata = template.setdefault("metadata", {})
        metadata["name"] = f"{name[:57]}-{secrets.token_hex(3)[:5]}"
        labels = metadata["labels"] = dict(metadata.get("labels") or {})
        labels |= dict.fromkeys(("job-name", "batch.kubernetes.io/job-name"), key.name)
        labels |= dict.fromkeys(("controller-uid", "batch.kubernetes.io/controller-uid"), job["metadata"]["uid"])
        metadata["ownerReferences"] = [_owner(job)]
        if index is not None:
            template["spec"]["hostname"] = name
            labels["batch.kubernetes.io/job-completion-index"] = str(index)
            for container in template["spec"]["containers"]:
                container["env"] = [
                    *(container.get("env") or []),
                    {"name": "JOB_COMPLETION_INDEX", "value": str(index)},
                ]
        pod = self.store.create("pods", key.namespace, {"metadata": metadata, "spec": template["spec"]})
        return Key("pods", key.namespace, metadata["name"]), pod

    def fire(self, key: Key, scheduled: float | None = None) -> str | None:
        """Start the job of a cron job; None where its rules or an earlier firing in the same minute forbid it."""
        cron = self.store.get(key)
        name = f"{key.name[:52]}-{int((time.time() if scheduled is None else scheduled) // 60)}"
        if cron["spec"]["concurrencyPolicy"] == "Forbid":
            owned = self.store.owned_by(cron["metadata"]["uid"])
            if any(not self.store.get(job)["status"]["conditions"] for job in owned):
                return None
        template = copy.deepcopy(cron["spec"]["jobTemplate"])
        metadata = template.setdefault("metadata", {}) | {"name": name, "ownerReferences": [_owner(cron)]}
        try:
            job = self.store.create("jobs", key.namespace, {"metadata": metadata, "spec": template["spec"]})
        except ApiError:
            return None
        cron["status"]["lastScheduleTime"] = now()
        self.created(Key("jobs", key.namespace, name), job)
        return name

    async def keep_time(self) -> None:
        """Fire every cron job in the minutes that its schedule names."""
        minute = int(time.time() // 60)
        while True:
            await asyncio.sleep(1)
            if (present := int(time.time() // 60)) == minute:
                continue
            minute = present
            for key, item in self.store.select("cronjobs"):
                moment = datetime.fromtimestamp(minute * 60, UTC)
                if not item["spec"]["suspend"] and croniter.match(item["spec"]["schedule"], moment):
                    self.fire(key, minute * 60)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            log.error("a controller failed", exc_info=error)


class _JobFailed(Exception):  # noqa: N818  carries reason and message of the condition
    pass


def _owner(item: Object) -> Object:
    return {
        "apiVersion": item["apiVersion"],
        "kind": item["kind"],
        "name": item["metadata"]["name"],
        "uid": item["metadata"]["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }


def _action(spec: Object, pod: Object) -> str:
    """What the job's pod failure policy says about a failed pod; `Count` where no rule matches."""
    codes = {
        status["name"]: status["state"]["terminated"]["exitCode"]
        for status in pod["status"]["containerStatuses"]
        if "terminated" in status["state"]
    }
    present = {(condition["type"], condition["status"]) for condition in pod["status"]["conditions"]}
    for rule in (spec.get("podFailurePolicy") or {}).get("rules", []):
        if wanted := rule.get("onExitCodes"):
            named = [code for name, code in codes.items() if wanted.get("containerName") in (None, name)]
            inside = [(code in wanted["values"]) == (wanted["operator"] == "In") for code in named if code != 0]
            if any(inside):
                return str(rule["action"])
        if any((item["type"], item["status"]) in present for item in rule.get("onPodConditions") or []):
            return str(rule["action"])
    return "Count"
