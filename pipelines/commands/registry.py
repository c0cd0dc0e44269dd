"""The commands of the registry and of what shows it: champion, rollback, stack and ui."""

import sys
from collections.abc import Callable

import click

from components.command_line import Command, Number, Option
from pipelines.commands.common import STACK, prepared
from pipelines.environment import State
from pipelines.stack_file import read_stack_file

_ROLLBACK: list[click.Parameter] = [
    STACK,
    Option(["--to"], metavar="VERSION", show_default="the previous champion", help="Number of the version to restore."),
    Option(["--reason"], default="", show_default=False, help="Why; kept with the version that is taken down."),
]
_UI: list[click.Parameter] = [
    Option(["--port"], type=Number(int), default=5000, help="Port of MLflow."),
    Option(["--zenml-port"], type=Number(int), default=8237, help="Port of ZenML."),
]


@click.command(cls=Command, params=[STACK])
@prepared
def champion(state: State, stack: str) -> int:
    """Say who is champion.

    Finishes what was interrupted, and renews the copy that is in service where it is not that version.
    """
    from pipelines.rollback import connect, follow

    def work() -> bool:
        connect(read_stack_file(stack, state), state)
        print(follow(state, stack))
        return True

    return _in_the_registry(work)


@click.command(cls=Command, params=_ROLLBACK)
@prepared
def rollback(state: State, stack: str, to: str | None, reason: str) -> int:
    """Make the previous champion, or another version, champion again."""
    from pipelines.rollback import connect, restore

    def work() -> bool:
        connect(read_stack_file(stack, state), state)
        return restore(state, to or None, reason, lambda text: print(text, flush=True), stack)

    return _in_the_registry(work)


def _in_the_registry(work: Callable[[], bool]) -> int:
    from mlflow.exceptions import MlflowException

    from components.models.package import PackageError
    from steps.champion import NoWayBack

    try:
        return 0 if work() else 1
    except (MlflowException, NoWayBack, PackageError, OSError) as error:  # a TimeoutError is an OSError
        print(error, file=sys.stderr)
        return 1


@click.command(cls=Command, params=[STACK])
@prepared
def stack(state: State, stack: str) -> int:
    """Register a stack from configs/stacks and make it active."""
    from pipelines.stack import read_stack, register

    registered = register(read_stack(stack, state))
    kinds = ", ".join(f"{kind.value} {items[0].name}" for kind, items in sorted(registered.components.items()))
    print(f"stack {registered.name} is active: {kinds}")
    return 0


@click.command(cls=Command, params=_UI)
@prepared
def ui(state: State, port: int, zenml_port: int) -> int:
    """Open MLflow's pages and ZenML's dashboard on this machine.

    On the loopback address, until it is interrupted.
    """
    from pipelines.dashboards import serve

    return serve(state, port, zenml_port)
