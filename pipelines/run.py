"""Run a pipeline on a registered stack: one at a time, after what a killed run left is cleared, completed in MLflow."""

import contextlib
import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple
from uuid import UUID

from mlflow.exceptions import MlflowException
from zenml.client import Client
from zenml.enums import ExecutionMode, ExecutionStatus
from zenml.integrations.mlflow.mlflow_utils import get_tracking_uri
from zenml.models import PipelineRunResponse, PipelineRunUpdate
from zenml.pipelines.dynamic.pipeline_definition import DynamicPipeline
from zenml.pipelines.pipeline_definition import Pipeline

from pipelines.environment import State
from pipelines.integrations import leave_out_unused
from pipelines.lock import only_pipeline
from pipelines.nodes import nodes_of
from pipelines.placement import pipeline_options
from pipelines.stack import read_stack, register
from pipelines.stack_file import StackError
from steps.champion import recover
from steps.folders import discard
from steps.tracking import attach_cached_steps, close_abandoned_runs, fail_run, open_run

log = logging.getLogger(__name__)


class RunFailedError(RuntimeError):
    """A run ended without success: a step failed for good, or somebody ended it."""


class FinishedRun(NamedTuple):
    """A pipeline run that completed."""

    run: PipelineRunResponse
    mlflow_run: str
    """Id of the MLflow run that holds the nested runs of its steps."""


def run_pipeline(
    pipeline: Pipeline, parameters: Mapping[str, Any], stack: str, state: State, use_cache: bool = True
) -> FinishedRun:
    """Register ``stack``, run ``pipeline`` on it to the end and complete its MLflow run.

    Raises:
        pipelines.lock.BusyError: another process runs a pipeline in ``state``.
        pipelines.stack.StackError: the stack file is wrong.
        RunFailedError: a step failed in a pod, or the run was cancelled or stopped there.
        Exception: whatever stopped a step here. The steps before it stay cached and its checkpoints stay on disk, so
            that the next run goes on from there.
    """
    with only_pipeline(state):
        return _run_locked(pipeline, parameters, stack, state, use_cache)


def _run_locked(
    pipeline: Pipeline, parameters: Mapping[str, Any], stack: str, state: State, use_cache: bool
) -> FinishedRun:
    leave_out_unused()
    described = read_stack(stack, state)
    register(described)
    tracker = Client().active_stack.experiment_tracker
    tracker.configure_mlflow()
    experiment = tracker.config.experiment_name
    recover()
    if not described.remote:  # on a server, the open runs may be other people's
        _fail_abandoned_runs()
        if killed := close_abandoned_runs(get_tracking_uri(), experiment):
            log.warning(
                "An earlier run was killed; %d MLflow runs of it are marked so. Going on from what it finished.", killed
            )
    name = f"{pipeline.name}-{datetime.now(UTC):%Y-%m-%d-%H%M%S-%f}"[:-3]
    dynamic = [step.name for step in pipeline.depends_on] if isinstance(pipeline, DynamicPipeline) else []
    if dynamic and not Client().active_stack.orchestrator.supports_dynamic_pipelines:
        raise StackError(
            f"the orchestrator of the stack {stack!r} runs no dynamic pipelines: set scale_out.shards to 1, or take a "
            "stack that does (local, kubernetes)"
        )
    nodes = nodes_of(parameters.get("settings", {}))
    placed = pipeline_options(described, dynamic, nodes)
    if steps := placed.get("steps"):  # the stack file places those of all pipelines
        pipeline.prepare(**parameters)
        placed["steps"] = {step: options for step, options in steps.items() if step in pipeline.invocations}
    configured = pipeline.with_options(run_name=name, **placed)
    modes = Client().active_stack.orchestrator.supported_execution_modes
    mode = ExecutionMode.FAIL_FAST if ExecutionMode.FAIL_FAST in modes else modes[0]  # Kubeflow ends branches apart
    configured.configure(enable_cache=use_cache, execution_mode=mode)
    opened = open_run(name, experiment)
    try:
        run = completed(configured(**parameters).id)
    except BaseException:
        with contextlib.suppress(MlflowException):
            fail_run(opened)
        raise
    mlflow_run = attach_cached_steps(run.id, experiment)
    discard(state.folder, keep_checkpoints=False)
    return FinishedRun(run, mlflow_run)


def completed(run_id: UUID) -> PipelineRunResponse:
    """The run as the server has it: ZenML's orchestrator for Kubernetes returns from one that failed, too.

    Raises:
        RunFailedError: it failed, was cancelled or was stopped.
    """
    run = Client().get_pipeline_run(run_id)
    if run.status.is_finished and not run.status.is_successful:
        steps = ", ".join(sorted(name for name, step in run.steps.items() if not step.status.is_successful))
        raise RunFailedError(f"the run {run.name} ended as {run.status.value} in {steps or 'no step'}")
    return run


def _fail_abandoned_runs() -> None:
    """Pipeline runs that a killed process left in the state `running` become failed; nothing else runs, by the lock."""
    client = Client()
    for status in (ExecutionStatus.RUNNING, ExecutionStatus.INITIALIZING):
        for run in client.list_pipeline_runs(status=status.value, size=100).items:
            client.zen_store.update_run(run.id, PipelineRunUpdate(status=ExecutionStatus.FAILED))
