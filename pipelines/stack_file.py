"""What a file in configs/stacks may say, and how it is read. Knows nothing of ZenML, so that it can be read first.

Which server ZenML talks to is decided by the environment at its first import, and the stack file says which server that
is. A file holds no password: `${NAME}` is replaced from the environment, where the file's own section `variables` names
every such variable with its default; secrets are listed by the environment variables they are taken from.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from string import Template
from typing import Any, Literal

import yaml
from pydantic import Field, ValidationError, model_validator

from components.strict import Strict
from pipelines.environment import ROOT, State

STACKS = ROOT / "configs" / "stacks"
KUBEFLOW = "placed_kubeflow"
"""Flavor of the orchestrator in pipelines/kubeflow.py."""


class StackError(ValueError):
    """A stack file is missing or says something a stack cannot say."""


class ComponentFile(Strict):
    """One component of a stack, as the file names it."""

    name: str = Field(min_length=1)
    flavor: str = Field(min_length=1)
    source: str = Field(default="", description="Class of the flavor, if it is not one of ZenML's.")
    configuration: dict[str, Any] = Field(default_factory=dict)


class ServerFile(Strict):
    """The ZenML server that holds the stack; without one, ZenML keeps its SQLite store in the state folder."""

    url: str = Field(pattern=r"^https?://", description="Address of the ZenML server.")
    api_key_variable: str = Field(
        default="SPC_ZENML_API_KEY", description="Environment variable with the API key of a ZenML service account."
    )


class ImageFile(Strict):
    """The container image of the pods: one that exists, or one built from the Dockerfile when a run is submitted."""

    reference: str = Field(default="", description="An image that exists; empty: build and push one.")
    variant: Literal["cpu", "cuda"] = Field(default="cuda", description="Build argument VARIANT of the Dockerfile.")


class PodsFile(Strict):
    """What the pods of some stages ask of the cluster."""

    stages: tuple[str, ...] = Field(default=(), description="Stages that run so; none: all that no other class names.")
    cpu: str = Field(description="CPU request, as Kubernetes writes it.")
    memory: str = Field(description="Memory request and limit, as Kubernetes writes it.")
    gpus: int = Field(default=0, ge=0, description="Devices, as request and limit.")
    gpu_model: str = Field(
        default="", description="One of components.planning.gpus, for the memory plan of the doctor."
    )
    gpu_resource: str = Field(default="nvidia.com/gpu", description="Name of the extended resource.")
    shared_memory: str = Field(default="", description="Size limit of a memory-backed /dev/shm; empty: the default's.")
    node_selector: dict[str, str] = Field(default_factory=dict)
    tolerations: tuple[dict[str, Any], ...] = ()
    priority_class: str = ""
    claims: dict[str, str] = Field(default_factory=dict, description="Mount path by the name of a volume claim.")
    environment: dict[str, str] = Field(default_factory=dict)
    secrets: dict[str, tuple[str, ...]] = Field(
        default_factory=dict,
        description="Kubernetes secrets that become environment variables: the keys that are wanted, where there are "
        "such; no key named: all there are.",
    )
    retries: int = Field(default=0, ge=0, description="How often a stage that failed is run again.")

    @model_validator(mode="after")
    def _disk_for_retries(self) -> "PodsFile":
        if self.gpus and not self.retries:
            raise ValueError("stages on GPUs run for hours: expected retries of 1 or more")
        return self


class StackFile(Strict):
    """A stack: its name and its components by ZenML's component type, and where its stages run."""

    name: str = Field(min_length=1)
    variables: dict[str, str | None] = Field(
        default_factory=dict, description="Environment variables the file uses, with their defaults; null: no default."
    )
    server: ServerFile | None = None
    components: dict[str, ComponentFile]
    secrets: dict[str, dict[str, str]] = Field(
        default_factory=dict,
        description="ZenML secrets: for each key the environment variable its value is taken from.",
    )
    image: ImageFile | None = None
    service_account: str = Field(
        default="", description="Kubernetes service account of the pods that start others: the orchestrator's."
    )
    stage_account: str = Field(default="", description="Kubernetes service account of the stages; needs no rights.")
    pods: dict[str, PodsFile] = Field(default_factory=dict, description="Classes of pods by name.")

    @model_validator(mode="after")
    def _each_stage_once(self) -> "StackFile":
        named = [stage for pods in self.pods.values() for stage in pods.stages]
        if twice := sorted({stage for stage in named if named.count(stage) > 1}):
            raise ValueError(f"stages in more than one class of pods: {twice}")
        if self.pods and sum(not pods.stages for pods in self.pods.values()) != 1:
            raise ValueError("exactly one class of pods must name no stages: it takes all the others")
        return self

    @model_validator(mode="after")
    def _accounts_apart(self) -> "StackFile":
        if self.service_account and self.stage_account in ("", self.service_account):
            raise ValueError(
                f"stage_account: expected an account other than {self.service_account!r}, without rights: with its "
                "rights a stage could start jobs, and so read every secret of the namespace"
            )
        return self

    @property
    def remote(self) -> bool:
        """Whether runs live on a server that others use as well."""
        return self.server is not None

    @property
    def namespace(self) -> str:
        """The Kubernetes namespace of the orchestrator's pods; empty for a stack without a cluster."""
        orchestrator = self.components.get("orchestrator")
        key = {"kubernetes": "kubernetes_namespace", KUBEFLOW: "kubeflow_namespace"}
        if orchestrator is None or orchestrator.flavor not in key:
            return ""
        return str(orchestrator.configuration.get(key[orchestrator.flavor], "default"))


def read_stack_file(name: str, state: State, folder: Path = STACKS) -> StackFile:
    """Read and check the file of the stack called ``name``.

    ``${state}`` becomes the state folder, and ``${NAME}`` what the environment says, or else the default in the file's
    section ``variables``.

    Raises:
        StackError: no such file, no YAML, an unknown key or placeholder, or a variable that is needed and not set.
    """
    path = folder / f"{name}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in folder.glob("*.yaml"))) or "none"
        raise StackError(f"no stack file {path}; stacks there: {known}")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise StackError(f"{path}: not readable as YAML: {error}") from error
    if not isinstance(content, dict):
        raise StackError(f"{path}: expected sections (name, components, ...), found {type(content).__name__}")
    values = {"state": str(state.folder)} | _variables(content.get("variables") or {}, path)
    try:
        stack = StackFile.model_validate(_filled(content, values, path))
    except ValidationError as error:
        raise StackError(f"{path}: {error}") from error
    if stack.name != name:
        raise StackError(f"{path}: the stack is named {stack.name!r}, expected {name!r} like the file")
    return stack


def _variables(declared: Any, path: Path) -> dict[str, str]:
    """The values of the declared variables; all that are missing are named at once."""
    if not isinstance(declared, dict):
        raise StackError(f"{path}: variables: expected NAME: default, found {declared!r}")
    found = {name: os.environ.get(name) or default for name, default in declared.items()}
    if missing := sorted(name for name, value in found.items() if value is None):
        raise StackError(f"{path}: set {', '.join(missing)} in the environment; the stack has no default for them")
    return {name: str(value) for name, value in found.items()}


def _filled(node: Any, values: Mapping[str, str], path: Path) -> Any:
    """``node`` with the placeholders in all its texts replaced."""
    if isinstance(node, dict):
        return {key: _filled(value, values, path) for key, value in node.items()}
    if isinstance(node, list):
        return [_filled(item, values, path) for item in node]
    if not isinstance(node, str):
        return node
    try:
        return Template(node).substitute(values)
    except KeyError as error:
        known = ", ".join(f"${{{name}}}" for name in sorted(values))
        raise StackError(f"{path}: unknown placeholder {error} in {node!r}; there are {known}") from error
    except ValueError as error:
        raise StackError(
            f"{path}: {node!r}: a single $ stands for a placeholder; write $$ for the character"
        ) from error
