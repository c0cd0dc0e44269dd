"""Stacks as files: read configs/stacks/<name>.yaml, register what differs, make the stack active. Idempotent."""

from pathlib import Path
from string import Template
from typing import Any

import yaml
from pydantic import Field, ValidationError
from zenml.client import Client
from zenml.enums import StackComponentType
from zenml.models import ComponentResponse, StackResponse

from components.strict import Strict
from pipelines.environment import ROOT, State


class StackError(ValueError):
    """A stack file is missing or says something a stack cannot say."""


class ComponentFile(Strict):
    """One component of a stack, as the file names it."""

    name: str = Field(min_length=1)
    flavor: str = Field(min_length=1)
    configuration: dict[str, Any] = Field(default_factory=dict)


class StackFile(Strict):
    """A stack: its name and its components by ZenML's component type."""

    name: str = Field(min_length=1)
    components: dict[str, ComponentFile]


def read_stack(name: str, state: State, folder: Path = ROOT / "configs" / "stacks") -> StackFile:
    """Read and check the file of the stack called ``name``, with ``${state}`` replaced by the state folder.

    Raises:
        StackError: no such file, no YAML, an unknown key, component type or placeholder.
    """
    path = folder / f"{name}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in folder.glob("*.yaml"))) or "none"
        raise StackError(f"no stack file {path}; stacks there: {known}")
    try:
        content = yaml.safe_load(Template(path.read_text(encoding="utf-8")).substitute(state=state.folder))
        stack = StackFile.model_validate(content)
    except (yaml.YAMLError, ValidationError) as error:
        raise StackError(f"{path}: {error}") from error
    except (KeyError, ValueError) as error:
        raise StackError(f"{path}: unknown placeholder {error}; ${{state}} is the only one") from error
    known = {kind.value for kind in StackComponentType}
    if unknown := set(stack.components) - known:
        raise StackError(f"{path}: unknown component types {sorted(unknown)}, expected some of {sorted(known)}")
    if stack.name != name:
        raise StackError(f"{path}: the stack is named {stack.name!r}, expected {name!r} like the file")
    return stack


def register(stack: StackFile) -> StackResponse:
    """Bring ZenML's store in line with ``stack`` and make the stack active; touch nothing that is right already."""
    client = Client()
    components = {
        StackComponentType(kind): _register_component(client, StackComponentType(kind), wanted).id
        for kind, wanted in stack.components.items()
    }
    found = client.list_stacks(name=stack.name, hydrate=True)
    if not found.items:
        registered = client.create_stack(name=stack.name, components=components)
    else:
        registered = found.items[0]
        present = {kind: [item.id for item in items] for kind, items in registered.components.items()}
        if present != {kind: [identifier] for kind, identifier in components.items()}:
            updates = {kind: [components[kind]] if kind in components else [] for kind in {*present, *components}}
            registered = client.update_stack(name_id_or_prefix=registered.id, component_updates=updates)
    if client.active_stack_model.id != registered.id:
        client.activate_stack(registered.id)
    return registered


def _register_component(client: Client, kind: StackComponentType, wanted: ComponentFile) -> ComponentResponse:
    found = client.list_stack_components(type=kind, name=wanted.name, hydrate=True).items
    if not found:
        return client.create_stack_component(
            name=wanted.name, flavor=wanted.flavor, component_type=kind, configuration=wanted.configuration
        )
    present = found[0]
    if present.flavor_name != wanted.flavor:
        raise StackError(
            f"the {kind.value} {wanted.name!r} is registered with flavor {present.flavor_name!r}, the stack file says "
            f"{wanted.flavor!r}: give the component another name"
        )
    if any(present.configuration.get(key) != value for key, value in wanted.configuration.items()):
        return client.update_stack_component(present.id, component_type=kind, configuration=wanted.configuration)
    return present
