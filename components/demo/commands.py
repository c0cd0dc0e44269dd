"""The command `demo`: the page and the champion behind it."""

from typing import Any

import click

from components.command_line import Command
from components.serving.commands import OPTIONS, run_server


@click.command(cls=Command, params=OPTIONS)
def demo(**given: Any) -> int:
    """Serve a web page to drop photos into, with the champion behind it.

    Until it is interrupted. The exit status is 1 when the package cannot be loaded or the port is taken, 2 for a limit
    out of range.
    """
    from components.demo.app import create_demo

    return run_server(create_demo, **given)
