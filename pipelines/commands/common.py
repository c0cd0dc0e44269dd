"""What the commands of the pipelines share: options, and the environment in which they run."""

import functools
import os
import sys
from collections.abc import Callable
from typing import Any

import click

from components import databases, quick_start
from components.command_line import PATH, CommandError, Option
from pipelines import console
from pipelines.environment import ROOT, Server, databases_of, prepare
from pipelines.environment import state as state_folders
from pipelines.place import bring_along
from pipelines.stack_file import StackError, read_stack_file

STACK = Option(["--stack"], default="local", metavar="NAME", help="Name of a file in configs/stacks.")
PROFILE: list[click.Parameter] = [
    STACK,
    Option(
        ["--config"],
        type=PATH,
        default=ROOT / "configs" / "local.yaml",
        show_default="configs/local.yaml",
        metavar="FILE",
        help="Profile with the settings.",
    ),
    Option(
        ["--set", "overrides"],
        multiple=True,
        metavar="KEY=VALUE",
        help="Replace one setting of the profile, such as reinforce.iterations=40; repeatable.",
    ),
]
"""Options of the commands that read a profile."""


def prepared(
    function: Callable[..., int], login: bool = True, log: bool = False, whole: bool = True
) -> Callable[..., int]:
    """A command in the environment of ZenML and MLflow, which calls ``function`` with the state folders first.

    Args:
        login: whether the command talks to the ZenML server that the stack names.
        log: whether all that is logged goes to the log file of the runs, too. Such a command starts quickly, and says
            when all is loaded (`components.quick_start.loaded`).
        whole: whether the databases of the state folder have to be whole.
    """

    @functools.wraps(function)
    def command(**given: Any) -> int:
        if log:
            quick_start.begin(in_parts=False)  # steps that train have all of their libraries
        try:
            state = prepare(_server(given["stack"]) if login and "stack" in given else None)
            for database in databases_of(state) if whole else ():
                databases.check(database, state.folder)
            if not state.server and (old := bring_along(state)):
                print(f"{state.folder} was {old}: its stores now name this place", file=sys.stderr, flush=True)
            console.before_zenml()
            with console.quiet(state.log if log else None):
                return function(state, **given)
        except (StackError, databases.DatabaseError) as error:
            raise CommandError(str(error)) from error
        except KeyboardInterrupt:
            return report_interruption()

    return command


def report_interruption() -> int:
    """Say that the command was stopped; its exit status."""
    print("\nStopped. The next `make pipeline` goes on from here.", file=sys.stderr)
    return 130


def _server(stack: str) -> Server | None:
    """The ZenML server that the stack names, with the API key from the environment.

    Raises:
        StackError: the stack file is wrong, or the API key is missing.
    """
    described = read_stack_file(stack, state_folders()).server
    if described is None:
        return None
    if not (api_key := os.environ.get(described.api_key_variable)):
        raise StackError(
            f"set {described.api_key_variable} in the environment: the API key of a service account of {described.url} "
            f"(`zenml service-account create` makes one)"
        )
    return Server(stack, described.url, api_key)
