"""Kubeflow Pipelines beside the emulated cluster: its API as far as a submission needs it, and runs as jobs.

Kfp's own client talks to it, through the proxy for services of the Kubernetes API. Tasks run one after the other, by
the compiled pipeline alone, as Kubeflow's controller reads it; Argo, the driver and the launcher are not emulated.
"""

import threading
import time
from graphlib import TopologicalSorter
from typing import Any
from uuid import uuid4

from kubernetes import config
from kubernetes.client import BatchV1Api

from tests.cluster.api import ApiServer
from tests.cluster.emulated import CONTEXT, EmulatedCluster
from tests.cluster.objects import ApiError, Object

SERVICE = "ml-pipeline:http"
TASK_LABEL = "kubeflow-task"
"""Label of the pods of a task: its name."""
_VERSION = "/apis/v2beta1/"
_JOB_NAME = "{{$.pipeline_job_name}}"


class KubeflowPipelines:
    """Answers at once and runs pipelines in threads.

    Args:
        cluster: where the pods go, into its namespace.
    """

    def __init__(self, cluster: EmulatedCluster) -> None:
        self.namespace = cluster.namespace
        self.runs: dict[str, Object] = {}
        self._jobs = BatchV1Api(config.new_client_from_config(str(cluster.kubeconfig), context=CONTEXT))
        api: ApiServer = cluster.api
        api.proxied[SERVICE] = self._answer

    def _answer(self, method: str, path: str, body: Any) -> Object:
        resource, _, name = path.removeprefix(_VERSION).partition("/")
        match method, resource, name:
            case "GET", "healthz", "":
                return {"multi_user": False}
            case "GET", "experiments", "":
                return {"experiments": []}
            case "POST", "experiments", "":
                return {"experiment_id": "1", "display_name": body["display_name"]}
            case "POST", "runs", "":
                run = {"run_id": str(uuid4()), "state": "RUNNING", "display_name": body["display_name"]}
                self.runs[run["run_id"]] = run
                threading.Thread(target=self._run, args=(run, body["pipeline_spec"]), daemon=True).start()
                return run
            case "GET", "runs", run_id if run_id in self.runs:
                return self.runs[run_id]
        raise ApiError(404, "NotFound", f"{method} {path} is not emulated")

    def _run(self, run: Object, package: Object) -> None:
        spec = package["pipeline_spec"]
        platform = package["platform_spec"]["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
        tasks = spec["root"]["dag"]["tasks"]
        for name in TopologicalSorter(
            {name: task.get("dependentTasks", ()) for name, task in tasks.items()}
        ).static_order():
            label = spec["components"][tasks[name]["componentRef"]["name"]]["executorLabel"]
            container = spec["deploymentSpec"]["executors"][label]["container"]
            job = _job(name, container, platform.get(label, {}), tasks[name], run["display_name"])
            if not self._succeeds(job):
                run["state"] = "FAILED"
                return
        run["state"] = "SUCCEEDED"

    def _succeeds(self, job: Object) -> bool:
        name = self._jobs.create_namespaced_job(self.namespace, job).metadata.name
        while not (conditions := self._jobs.read_namespaced_job(name, self.namespace).status.conditions):
            time.sleep(0.5)
        return conditions[0].type == "Complete"


def _job(name: str, container: Object, platform: Object, task: Object, run_name: str) -> Object:
    """The pods of one task, with everything that the compiled pipeline says of them."""
    resources = container.get("resources", {})
    requests = {"cpu": resources.get("resourceCpuRequest"), "memory": resources.get("resourceMemoryRequest")}
    limits = {"memory": resources.get("resourceMemoryLimit")}
    if accelerator := resources.get("accelerator"):
        requests[accelerator["resourceType"]] = limits[accelerator["resourceType"]] = accelerator["resourceCount"]
    mounts, volumes = [], []
    for claim in platform.get("pvcMount", ()):
        volumes.append({"name": claim["constant"], "persistentVolumeClaim": {"claimName": claim["constant"]}})
        mounts.append({"name": claim["constant"], "mountPath": claim["mountPath"]})
    for empty in platform.get("emptyDirMounts", ()):
        source = {"medium": empty["medium"], "sizeLimit": empty["sizeLimit"]}
        volumes.append({"name": empty["volumeName"], "emptyDir": source})
        mounts.append({"name": empty["volumeName"], "mountPath": empty["mountPath"]})
    variables = [
        {"name": item["name"], "value": item["value"].replace(_JOB_NAME, run_name)} for item in container["env"]
    ]
    for secret in platform.get("secretAsEnv", ()):
        for pair in secret["keyToEnv"]:
            source = {"name": secret["secretName"], "key": pair["secretKey"], "optional": secret["optional"]}
            variables.append({"name": pair["envVar"], "valueFrom": {"secretKeyRef": source}})
    pod = {
        "serviceAccountName": "pipeline-runner",
        "restartPolicy": "Never",
        "nodeSelector": platform.get("nodeSelector", {}).get("labels", {}),
        "tolerations": platform.get("tolerations", []),
        "securityContext": platform.get("securityContext", {}),
        "volumes": volumes,
        "containers": [
            {
                "name": "main",
                **{key: container[key] for key in ("image", "command", "args")},
                "env": variables,
                "volumeMounts": mounts,
                "resources": {
                    kind: {resource: amount for resource, amount in asked.items() if amount}
                    for kind, asked in (("requests", requests), ("limits", limits))
                },
            }
        ],
    }
    labels = platform.get("podMetadata", {}).get("labels", {}) | {TASK_LABEL: name}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": f"{name}-{uuid4().hex[:8]}"},
        "spec": {
            "backoffLimit": task.get("retryPolicy", {}).get("maxRetryCount", 0),
            "template": {"metadata": {"labels": labels}, "spec": pod},
        },
    }
