"""MLflow for the stages: one run per pipeline run, a nested run per step, and what the library reports put into it.

ZenML's tracker opens both runs around a step; :func:`tracked` tags them and hands the stage a :class:`MlflowTracker`.
A step that came from the cache ran in an earlier pipeline run: :func:`attach_cached_steps` gives it a nested run as
well, which carries the parameters and last metrics of the original, points to it, and copies no file.
"""

import json
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

import mlflow
from mlflow.entities import Metric, Param, Run, RunStatus, RunTag, ViewType
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID, MLFLOW_RUN_NAME, MLFLOW_RUN_NOTE
from zenml import get_step_context
from zenml.client import Client
from zenml.enums import ExecutionStatus
from zenml.integrations.mlflow.mlflow_utils import ZENML_TAG_KEY, get_tracking_uri
from zenml.models import StepRunResponse

from components.planning.gpus import peak_flops
from steps.lineage import lineage

if TYPE_CHECKING:
    from torch import Tensor

_OPERATIONS, _MFU = "throughput/teraflops_per_second", "throughput/mfu"
_BATCH = 500
_SECONDS = 5.0
_LONGEST_VALUE = 6000  # of a parameter, a limit of MLflow's stores
STEP_RUN_TAG, CACHE_KEY_TAG, CACHED_TAG, ORIGINAL_TAG = "zenml.step_run", "zenml.cache_key", "cached", "cached_from"


class MlflowTracker:
    """The library's ``Tracker`` (components/training/tracker.py) writing to one MLflow run.

    Scalars are collected and written in batches, at most one write every few seconds, so that reporting every
    optimiser step costs microseconds; :meth:`flush` writes what is left.
    """

    def __init__(self, client: mlflow.MlflowClient, run_id: str):
        self._client = client
        self._run_id = run_id
        self._waiting: list[Metric] = []
        self._written = time.monotonic()
        self._peak: float | None = None

    def params(self, values: Mapping[str, Any]) -> None:
        """Record settings; nested mappings become dotted names, as in the configuration file.

        Raises:
            mlflow.exceptions.MlflowException: a name was recorded before with another value.
        """
        params = [Param(name, value[:_LONGEST_VALUE]) for name, value in flatten(values).items()]
        for start in range(0, len(params), 100):
            self._client.log_batch(self._run_id, params=params[start : start + 100])

    def hardware(self, device: str, dtype: str, devices: int) -> None:
        """Record on what a stage computes, as tags; where the planner knows its peak, rates come with MFU from now on.

        MFU is the share of the peak that the operations of the models make up (Chowdhery et al. 2022).
        """
        peak = peak_flops(device, dtype)
        self._peak = peak and peak * devices
        self.tags({"device": device, "device_dtype": dtype, "device_count": str(devices)})

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """Record scalars at an optimiser step, with the time of the call."""
        now = int(time.time() * 1000)
        if self._peak:
            rates = {name: value for name, value in values.items() if name.endswith(_OPERATIONS)}
            shares = {name.replace(_OPERATIONS, _MFU): rate * 1e12 / self._peak for name, rate in rates.items()}
            values = {**values, **shares}
        self._waiting += [Metric(_allowed(name), float(value), now, step) for name, value in values.items()]
        if len(self._waiting) >= _BATCH or time.monotonic() - self._written > _SECONDS:
            self.flush()

    def picture(self, name: str, image: "Tensor", step: int) -> None:
        """Record an sRGB picture (3, H, W) in [0, 1] as a PNG in the run's image grid, one row per name."""
        pixels = image.detach().clamp(0, 1).mul(255).round().byte().permute(1, 2, 0).cpu().numpy()
        self._client.log_image(self._run_id, pixels, key=_allowed(name).replace("/", "."), step=step)

    def artifact(self, path: Path, name: str) -> None:
        """Copy a file or a folder into the folder ``name`` of the run's artifacts."""
        log = self._client.log_artifacts if Path(path).is_dir() else self._client.log_artifact
        log(self._run_id, str(path), artifact_path=name)

    def note(self, text: str) -> None:
        """Put ``text`` where MLflow's page shows the description of the run."""
        self.tags({MLFLOW_RUN_NOTE: text})

    def tags(self, values: Mapping[str, str]) -> None:
        """Set tags of the run."""
        self._client.log_batch(self._run_id, tags=[RunTag(name, value) for name, value in values.items()])

    def flush(self) -> None:
        """Write the scalars that wait."""
        waiting, self._waiting = self._waiting, []
        for start in range(0, len(waiting), _BATCH):
            self._client.log_batch(self._run_id, metrics=waiting[start : start + _BATCH])
        self._written = time.monotonic()


@contextmanager
def tracked(settings: Mapping[str, Any] | None = None) -> Iterator[MlflowTracker]:
    """The tracker of the running step, with ``settings`` recorded as its parameters and both runs tagged.

    What waits is written also when the stage fails, so that the losses of a run that diverged can be looked at.

    Raises:
        RuntimeError: no nested MLflow run is open: the stack has no MLflow tracker or it is not set to nested.
    """
    run = mlflow.active_run()
    if run is None or MLFLOW_PARENT_RUN_ID not in run.data.tags:
        raise RuntimeError("no nested MLflow run is open; the stack needs an mlflow experiment tracker, nested: true")
    context, client = get_step_context(), mlflow.MlflowClient()
    tracker = MlflowTracker(client, run.info.run_id)
    revision = lineage()
    MlflowTracker(client, run.data.tags[MLFLOW_PARENT_RUN_ID]).tags(
        {**revision, "zenml.pipeline_run": str(context.pipeline_run.id)}
    )
    step_run = context.step_run
    tracker.tags(
        {**revision, STEP_RUN_TAG: str(step_run.id), CACHE_KEY_TAG: step_run.cache_key or "", CACHED_TAG: "no"}
    )
    tracker.params(settings or {})
    try:
        yield tracker
    finally:
        tracker.flush()


def attach_cached_steps(pipeline_run_id: UUID, experiment: str) -> str:
    """Complete the MLflow run of a finished pipeline run with its cached steps; returns the MLflow run id.

    Where every step came from the cache no MLflow run exists yet, so this opens it. Calling it again adds nothing.
    """
    client = mlflow.MlflowClient(tracking_uri=get_tracking_uri())
    pipeline_run = Client().get_pipeline_run(pipeline_run_id)
    parent = open_run(pipeline_run.name, experiment)
    MlflowTracker(client, parent).tags({**lineage(), "zenml.pipeline_run": str(pipeline_run.id)})
    experiment_id = client.get_run(parent).info.experiment_id
    children = client.search_runs([experiment_id], f"tags.`{MLFLOW_PARENT_RUN_ID}` = '{parent}'", max_results=1000)
    _end_open(client, children)
    present = {child.info.run_name for child in children}
    for name, step_run in pipeline_run.steps.items():
        if step_run.status == ExecutionStatus.CACHED and name not in present:
            _attach(client, experiment_id, parent, name, step_run)
    if client.get_run(parent).info.status == RunStatus.to_string(RunStatus.RUNNING):
        client.set_terminated(parent)
    return parent


def open_run(name: str, experiment: str) -> str:
    """The MLflow run of the pipeline run called ``name``, opened if there is none; its id.

    Called before a pipeline starts, since stages that begin at once, in pods, would open one each.
    """
    client = mlflow.MlflowClient(tracking_uri=get_tracking_uri())
    found = client.get_experiment_by_name(experiment)
    experiment_id = found.experiment_id if found else client.create_experiment(experiment, _artifact_location())
    runs = client.search_runs([experiment_id], f"attributes.run_name = '{name}'", ViewType.ACTIVE_ONLY, max_results=1)
    return runs[0].info.run_id if runs else _create(client, experiment_id, name, {})


def fail_run(run_id: str) -> None:
    """Mark the MLflow run of a pipeline run that failed so, and the nested runs that are still open as killed."""
    client = mlflow.MlflowClient(tracking_uri=get_tracking_uri())
    run = client.get_run(run_id)
    query = f"tags.`{MLFLOW_PARENT_RUN_ID}` = '{run_id}'"
    _end_open(client, client.search_runs([run.info.experiment_id], query, max_results=1000))
    client.set_terminated(run_id, status=RunStatus.to_string(RunStatus.FAILED))


def close_abandoned_runs(tracking_uri: str, experiment: str) -> int:
    """Mark runs that a killed process left open as killed; returns how many. Call it while nothing else runs."""
    client = mlflow.MlflowClient(tracking_uri=tracking_uri)
    found = client.get_experiment_by_name(experiment)
    if found is None:
        return 0
    open_runs = client.search_runs([found.experiment_id], "attributes.status = 'RUNNING'", max_results=1000)
    _end_open(client, open_runs)
    return len(open_runs)


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested mappings as one, with dotted names, texts as they are and other values as JSON."""
    flat: dict[str, str] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value if isinstance(value, str) else json.dumps(value, default=str)
    return flat


def _allowed(name: str) -> str:
    """``name`` with what MLflow refuses in names replaced by underscores."""
    return re.sub(r"[^/\w.\- ]", "_", name)


def _end_open(client: mlflow.MlflowClient, runs: Sequence[Run]) -> None:
    """Mark those of the runs that nobody has ended as killed; where a stage was tried again, that opened another."""
    for run in runs:
        if run.info.status == RunStatus.to_string(RunStatus.RUNNING):
            client.set_terminated(run.info.run_id, status=RunStatus.to_string(RunStatus.KILLED))


def _attach(client: mlflow.MlflowClient, experiment_id: str, parent: str, name: str, step_run: StepRunResponse) -> None:
    tags = {MLFLOW_PARENT_RUN_ID: parent, STEP_RUN_TAG: str(step_run.id), CACHED_TAG: "yes"}
    query = f"tags.`{STEP_RUN_TAG}` = '{step_run.original_step_run_id}'"
    originals = client.search_runs([experiment_id], query, max_results=1)
    if originals:
        tags[ORIGINAL_TAG] = originals[0].info.run_id
    run_id = _create(client, experiment_id, name, tags)
    if originals:
        data = originals[0].data
        now = int(time.time() * 1000)
        tracker = MlflowTracker(client, run_id)
        tracker.params(data.params)
        client.log_batch(run_id, metrics=[Metric(key, value, now, 0) for key, value in data.metrics.items()])
    client.set_terminated(run_id)


def _create(client: mlflow.MlflowClient, experiment_id: str, name: str, tags: Mapping[str, str]) -> str:
    run = client.create_run(experiment_id, tags={MLFLOW_RUN_NAME: name, ZENML_TAG_KEY: "cached", **tags}, run_name=name)
    return run.info.run_id


def _artifact_location() -> str | None:
    """Beside the runs where the tracker keeps them locally, as ZenML's tracker does; the server's choice elsewhere."""
    local = getattr(Client().active_stack.experiment_tracker, "local_path", None)
    return f"file:{local}" if local else None
