"""Stacks as files: read configs/stacks/<name>.yaml, register what differs, make the stack active. Idempotent."""

import os
from pathlib import Path

from zenml.client import Client
from zenml.enums import StackComponentType
from zenml.exceptions import AuthorizationException
from zenml.models import ComponentResponse, FlavorUpdate, StackResponse
from zenml.stack.flavor import validate_flavor_source

from pipelines.environment import State
from pipelines.stack_file import STACKS, ComponentFile, StackError, StackFile, read_stack_file


def read_stack(name: str, state: State, folder: Path = STACKS) -> StackFile:
    """Read and check the file of the stack called ``name``; see :func:`pipelines.stack_file.read_stack_file`.

    Raises:
        StackError: the file is wrong, or names a type of component that ZenML does not know.
    """
    stack = read_stack_file(name, state, folder)
    known = {kind.value for kind in StackComponentType}
    if unknown := set(stack.components) - known:
        path = folder / f"{name}.yaml"
        raise StackError(f"{path}: unknown component types {sorted(unknown)}, expected some of {sorted(known)}")
    return stack


def register(stack: StackFile) -> StackResponse:
    """Bring ZenML's store in line with ``stack`` and make the stack active; touch nothing that is right already.

    Secrets come first, since components refer to them, and hold what the environment says now.

    Raises:
        StackError: the server refuses the API key, a component exists with another flavor, or a secret neither exists
            nor is in the environment.
    """
    client = _logged_in(stack)
    for name, variables in stack.secrets.items():
        _store_secret(client, name, variables)
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


def _logged_in(stack: StackFile) -> Client:
    """The client, after a first request to the store."""
    try:
        client = Client()
        client.active_user  # noqa: B018  asks the store
    except AuthorizationException as error:
        if stack.server is None:
            raise
        raise StackError(
            f"{stack.server.url} refuses the API key in {stack.server.api_key_variable}: it was rotated or deleted, or "
            f"its account is not active; `make doctor STACK={stack.name}` says more"
        ) from error
    return client


def champion_on(stack: StackFile) -> str | None:
    """The version of the champion in the stack's registry; None before the first promotion. Registers the stack."""
    from steps.champion import recover

    register(stack)
    Client().active_stack.experiment_tracker.configure_mlflow()
    return recover()


def _store_secret(client: Client, name: str, variables: dict[str, str]) -> None:
    """Create or update a secret of ZenML's from environment variables; one that exists stays where they are not set."""
    values = {key: os.environ[variable] for key, variable in variables.items() if os.environ.get(variable)}
    found = client.list_secrets(name=name, hydrate=True).items
    if not found:
        if missing := sorted(variable for key, variable in variables.items() if key not in values):
            raise StackError(
                f"the secret {name!r} does not exist on the ZenML server: set {', '.join(missing)} in the environment "
                f"once, then run `make stack` again"
            )
        client.create_secret(name=name, values=values)
    elif any(found[0].secret_values.get(key) != value for key, value in values.items()):
        client.update_secret(found[0].id, add_or_update_values=values)


def _register_flavor(client: Client, kind: StackComponentType, wanted: ComponentFile) -> None:
    """Make a flavor of the project's own known to the server, or its settings where they have changed."""
    _, flavor = validate_flavor_source(wanted.source, kind)
    found = client.list_flavors(name=wanted.flavor, type=kind, hydrate=True).items
    if not found:
        client.create_flavor(wanted.source, kind)
    elif found[0].config_schema != flavor.config_schema:
        client.zen_store.update_flavor(found[0].id, FlavorUpdate(config_schema=flavor.config_schema))


def _register_component(client: Client, kind: StackComponentType, wanted: ComponentFile) -> ComponentResponse:
    if wanted.source:
        _register_flavor(client, kind, wanted)
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
