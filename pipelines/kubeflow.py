"""An orchestrator for Kubeflow Pipelines that puts every stage where the stack file wants it.

ZenML 0.98's own passes none of a stage's pod settings on but a node selector called `accelerator`: volumes, secrets,
tolerations and requests are lost, and a run that Kubeflow failed counts as done. This one is ZenML's with a graph of
its own, in which each task asks for what its class of pods asks for, by kfp-kubernetes; and it tells how the run ended.
What Kubeflow Pipelines has no words for (priority classes, pod failure policies) a stack file must not ask for.
"""

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import kfp
from kfp import dsl, kubernetes
from kfp.compiler import Compiler
from kfp_server_api import ApiException
from pydantic import Field
from urllib3.exceptions import HTTPError
from zenml.entrypoints import StepEntrypointConfiguration
from zenml.integrations.kubeflow.flavors.kubeflow_orchestrator_flavor import (
    KubeflowOrchestratorConfig,
    KubeflowOrchestratorFlavor,
    KubeflowOrchestratorSettings,
)
from zenml.integrations.kubeflow.orchestrators.kubeflow_orchestrator import ENV_KFP_RUN_ID, KubeflowOrchestrator
from zenml.models import PipelineRunResponse, PipelineSnapshotResponse
from zenml.orchestrators import SubmissionResult
from zenml.orchestrators.utils import get_orchestrator_run_name
from zenml.stack import Stack

from pipelines.placement import LABELS
from pipelines.stack_file import KUBEFLOW, PodsFile

log = logging.getLogger(__name__)

_LOOK_EVERY = 10.0
_PATIENCE = 600.0
_ENDED = {"SUCCEEDED", "FAILED", "SKIPPED", "CANCELED"}


class KubeflowRunError(RuntimeError):
    """Kubeflow's run of a pipeline has ended without success."""


class PlacedSettings(KubeflowOrchestratorSettings):
    """Of a step: what its pod asks for."""

    pods: PodsFile | None = Field(default=None, description="The class of pods, as the stack file has it.")


class PlacedConfig(KubeflowOrchestratorConfig, PlacedSettings):
    """Of the orchestrator."""

    @property
    def handles_step_retries(self) -> bool:
        """Kubeflow starts failed pods again, so that ZenML must not do so within them."""
        return True


class PlacedKubeflowOrchestrator(KubeflowOrchestrator):
    """Compiles a static pipeline, submits it and, unless told otherwise, waits for its end."""

    @property
    def config(self) -> PlacedConfig:
        """The configuration in the stack file."""
        return self._config

    @property
    def settings_class(self) -> type[PlacedSettings]:
        """Settings of its steps."""
        return PlacedSettings

    def submit_pipeline(
        self,
        snapshot: PipelineSnapshotResponse,
        stack: Stack,
        base_environment: dict[str, str],
        step_environments: dict[str, dict[str, str]],
        placeholder_run: PipelineRunResponse | None = None,
    ) -> SubmissionResult:
        """Start a run; the parameters are those of ZenML's base class.

        Raises:
            KubeflowRunError: when it is waited for, and ended without success.
            kfp_server_api.ApiException, urllib3.exceptions.HTTPError: Kubeflow refuses it or cannot be reached.
        """
        settings = self.get_settings(snapshot)
        name = get_orchestrator_run_name(snapshot.pipeline_configuration.name).replace("_", "-")
        file = Path(self.pipeline_directory) / f"{name}.yaml"
        file.parent.mkdir(parents=True, exist_ok=True)
        Compiler().compile(self._graph(name, snapshot, step_environments), str(file))
        client = self._get_kfp_client(settings)
        run = client.create_run_from_pipeline_package(
            str(file),
            arguments={},
            run_name=name,
            namespace=settings.user_namespace,
        )
        wait = (lambda: _wait(client, run.run_id)) if settings.synchronous else None
        return SubmissionResult(wait_for_completion=wait)

    def _graph(
        self, name: str, snapshot: PipelineSnapshotResponse, environments: dict[str, dict[str, str]]
    ) -> Callable[[], None]:
        @dsl.pipeline(name=name, display_name=name)
        def graph() -> None:
            tasks: dict[str, dsl.PipelineTask] = {}
            for step_name, step in snapshot.step_configurations.items():
                component = self._create_dynamic_component(
                    self.get_image(snapshot=snapshot, step_name=step_name),
                    StepEntrypointConfiguration.get_entrypoint_command(),
                    StepEntrypointConfiguration.get_entrypoint_arguments(step_name=step_name, snapshot_id=snapshot.id),
                    step_name,
                )
                task = component().set_display_name(step_name).set_caching_options(False)
                run_id = {ENV_KFP_RUN_ID: dsl.PIPELINE_JOB_NAME_PLACEHOLDER}
                for variable, value in (run_id | environments[step_name]).items():
                    task.set_env_variable(variable, value)
                if (pods := self.get_settings(step).pods) is not None:
                    place(task, pods)
                tasks[step_name] = task
            for step_name, step in snapshot.step_configurations.items():
                tasks[step_name].after(*(tasks[upstream] for upstream in step.spec.upstream_steps))

        return graph


class PlacedKubeflowFlavor(KubeflowOrchestratorFlavor):
    """How ZenML finds the orchestrator; the stack file names it."""

    @property
    def name(self) -> str:
        """What a component's `flavor` says."""
        return KUBEFLOW

    @property
    def config_class(self) -> type[PlacedConfig]:
        """Of `config`."""
        return PlacedConfig

    @property
    def implementation_class(self) -> type[PlacedKubeflowOrchestrator]:
        """The orchestrator."""
        return PlacedKubeflowOrchestrator


def place(task: dsl.PipelineTask, pods: PodsFile) -> None:
    """Have a task's pod ask for what a class of pods asks for."""
    task.set_cpu_request(pods.cpu).set_memory_request(pods.memory).set_memory_limit(pods.memory)
    if pods.gpus:
        task.set_accelerator_type(pods.gpu_resource).set_accelerator_limit(pods.gpus)
    if pods.retries:
        task.set_retry(pods.retries, backoff_duration="10s", backoff_factor=2)
    for variable, value in sorted(pods.environment.items()):
        task.set_env_variable(variable, value)
    for label, value in LABELS.items():
        kubernetes.add_pod_label(task, label, value)
    for label, value in pods.node_selector.items():
        kubernetes.add_node_selector(task, label, value)
    for toleration in pods.tolerations:
        kubernetes.add_toleration(task, **_in_snake_case(toleration))
    for claim, path in pods.claims.items():
        kubernetes.mount_pvc(task, claim, path)
    for secret, keys in pods.secrets.items():
        kubernetes.use_secret_as_env(task, secret, {key: key for key in keys}, optional=True)
    if pods.shared_memory:
        kubernetes.empty_dir_mount(task, "shared-memory", "/dev/shm", "Memory", pods.shared_memory)
    kubernetes.set_security_context(task, run_as_non_root=True)


def _in_snake_case(toleration: dict[str, Any]) -> dict[str, Any]:
    return {"toleration_seconds" if key == "tolerationSeconds" else key: value for key, value in toleration.items()}


def _wait(client: kfp.Client, run_id: str) -> None:
    """Kfp's own waiting knows no end of a run that somebody cancelled, and gives up on long ones."""
    while (state := _state(client, run_id)) not in _ENDED:
        time.sleep(_LOOK_EVERY)
    if state != "SUCCEEDED":
        raise KubeflowRunError(f"Kubeflow's run {run_id} ended as {state}; its page says which step, and why")


def _state(client: kfp.Client, run_id: str) -> str:
    """Ask again, for up to `_PATIENCE` seconds, while the API does not answer: the run goes on without it."""
    give_up = time.monotonic() + _PATIENCE
    while True:
        try:
            return client.get_run(run_id).state
        except (ApiException, HTTPError) as error:
            refused = isinstance(error, ApiException) and error.status < 500
            if refused or time.monotonic() > give_up:
                raise
            log.warning("Kubeflow's API does not answer, asking again about run %s: %s", run_id, error)
            time.sleep(_LOOK_EVERY)
