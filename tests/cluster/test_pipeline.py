"""The whole training pipeline in pods, from submission to the registry: on the emulated cluster, or on a real one.

One run, in which the node of stage III is drained in the middle of it.
Slow, so `make test` leaves it out and `make test-cluster` runs it. Of the cluster it uses the Kubernetes API only. On a
real one (CONTEXT=) the variables of configs/stacks/kubernetes.yaml have to be set, as for any run, and deploy/ applied.
"""

import re
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
from mlflow import MlflowClient
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from pipelines.environment import State
from pipelines.placement import POD_FAILURE_POLICY
from pipelines.stack_file import StackFile, read_stack_file
from steps.registry import CHALLENGER, CHAMPION, MODEL
from tests.cluster.site import ITERATIONS, Site, Trained

pytestmark = pytest.mark.cluster

STAGES = (
    "ingest",
    "validate",
    "drift",
    "annotate",
    "synthesize",
    "train_critic",
    "train_artist",
    "adapt_artist",
    "reinforce",
    "evaluate",
    "promote",
)


@pytest.fixture
def stack(site: Site, monkeypatch: pytest.MonkeyPatch) -> StackFile:
    for name, value in site.environment.items():
        if name.startswith("SPC_"):
            monkeypatch.setenv(name, value)
    return read_stack_file("kubernetes", State(Path(site.environment["SPC_STATE"])))


def jobs(site: Site) -> dict[str, dict[str, Any]]:
    """Every job of the pipeline runs as the API has it, by stage; the one that starts the stages under ""."""
    found = site.kubernetes.call_api(
        f"/apis/batch/v1/namespaces/{site.namespace}/jobs", "GET", response_type="object", auth_settings=["BearerToken"]
    )[0]["items"]
    return {job["spec"]["template"]["metadata"]["labels"].get("step_name", ""): job for job in found}


def test_the_doctor_finds_nothing_in_the_way(site: Site) -> None:
    outcome = site.run("doctor", "--config", "configs/small.yaml", "--stack", "kubernetes")
    assert outcome.code == 0, outcome.output
    assert "Nothing stands in the way of a run." in outcome.output


def test_the_run_completes_with_every_stage_in_a_pod_of_its_own(site: Site, trained: Trained, stack: StackFile) -> None:
    assert trained.code == 0, trained.output[-6000:]
    assert f"({len(STAGES)} steps, 0 from the cache)" in trained.output
    gpu = stack.pods["gpu"]
    names = set()
    for stage in STAGES:
        *evicted, pod = site.pods(stage)
        assert len(evicted) == (stage == "reinforce")
        names.add(pod.metadata.name)
        assert pod.status.phase == "Succeeded", stage
        assert pod.spec.service_account_name == stack.stage_account, "it may do nothing in the namespace"
        labels = site.core.read_node(pod.spec.node_name).metadata.labels
        wanted = gpu if stage in gpu.stages else stack.pods["light"]
        assert wanted.node_selector.items() <= labels.items(), stage
    assert len(names) == len(STAGES)


def test_the_champion_is_in_the_registry_of_the_server_with_its_files(site: Site, trained: Trained) -> None:
    client = MlflowClient(site.mlflow)
    (version,) = client.search_model_versions(f"name = '{MODEL}'")
    assert client.get_registered_model(MODEL).aliases == {CHAMPION: version.version, CHALLENGER: version.version}
    assert "Promoted to champion" in version.description
    experiment = client.get_experiment_by_name("smartphotocrafter")
    runs = client.search_runs([experiment.experiment_id])
    (parent,) = (run for run in runs if MLFLOW_PARENT_RUN_ID not in run.data.tags)
    assert parent.info.status == "FINISHED"
    ended = sorted((run.info.run_name, run.info.status) for run in runs if run is not parent)
    assert [name for name, status in ended if status == "FINISHED"] == sorted(STAGES)
    assert {name for name, status in ended if status != "FINISHED"} <= {"reinforce"}, "of the drained node"
    assert not any(status == "RUNNING" for _, status in ended)
    assert all(run.data.tags.get(MLFLOW_PARENT_RUN_ID) == parent.info.run_id for run in runs if run is not parent)
    if site.services is not None:
        assert site.services.database.startswith("postgresql") or not site.services.has_postgres
        for bucket, part in (("mlflow", "models/"), ("artifacts", "runs/evaluate/package/")):
            listed = site.services.s3().list_objects_v2(Bucket=bucket)["Contents"]
            assert any(part in entry["Key"] and entry["Key"].endswith(".safetensors") for entry in listed), bucket


def test_the_manifests_are_valid_and_ask_for_what_the_stack_file_says(
    site: Site, trained: Trained, stack: StackFile
) -> None:
    found = jobs(site)
    assert set(found) == {"", *STAGES}
    for stage, job in found.items():
        kubernetes_validate.validate({key: job[key] for key in job if key != "status"}, "1.35", strict=True)
        pod = job["spec"]["template"]["spec"]
        container = pod["containers"][0]
        on_gpu = stage in stack.pods["gpu"].stages
        assert container["resources"].get("limits", {}).get("nvidia.com/gpu") == ("1" if on_gpu else None), stage
        assert container["resources"]["requests"].get("nvidia.com/gpu") == ("1" if on_gpu else None), stage
        assert pod["nodeSelector"] == {"smartphotocrafter/pool": "gpu" if on_gpu else "cpu"}, stage
        mounts = {mount["mountPath"]: mount["name"] for mount in container.get("volumeMounts") or []}
        volumes = {volume["name"]: volume for volume in pod.get("volumes") or []}
        if stage:  # checkpoints outlive the pod; a drained node costs no retry
            assert volumes[mounts["/state"]]["persistentVolumeClaim"]["claimName"] == "spc-state"
            assert job["spec"]["podFailurePolicy"]["rules"][0]["action"] == POD_FAILURE_POLICY["rules"][0]["action"]
            assert job["spec"]["podFailurePolicy"]["rules"][0]["onPodConditions"][0]["type"] == "DisruptionTarget"
            assert job["spec"]["backoffLimit"] >= (3 if on_gpu else 1)
        if on_gpu:
            assert [(item["key"], item["effect"]) for item in pod["tolerations"]] == [("nvidia.com/gpu", "NoSchedule")]
            assert volumes[mounts["/dev/shm"]]["emptyDir"] == {"medium": "Memory", "sizeLimit": "16Gi"}
            assert pod["priorityClassName"] == "smartphotocrafter-training"
        assert pod["serviceAccountName"] == (stack.stage_account if stage else "smartphotocrafter"), stage
        assert pod["securityContext"]["runAsNonRoot"] is True


def test_stage_three_on_a_drained_node_went_on_from_its_checkpoint(site: Site, trained: Trained) -> None:
    first, second = (pod.metadata.name for pod in site.pods("reinforce"))
    assert first == trained.evicted
    (resumed,) = re.findall(rf"resuming at iteration (\d+) of {ITERATIONS}", site.log(second))
    assert int(resumed) >= 1, "not from zero"
    assert "resuming" not in site.log(first)
    assert not jobs(site)["reinforce"]["status"].get("failed"), "a drained node costs no retry"
