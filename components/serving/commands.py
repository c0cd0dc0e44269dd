"""The command `serve`: the champion, or another package, over HTTP; and what `demo` shares with it."""

import logging
import socket
import sys
from collections.abc import Callable, Collection
from contextlib import closing, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from pydantic import ValidationError

from components.command_line import PATH, Command, CommandError, Device, Number, Option, Precision, compute_options
from components.serving.limits import ServingLimits

if TYPE_CHECKING:  # takes seconds to import, which `--help` need not wait for
    from fastapi import FastAPI
    from pydantic_core import ErrorDetails

    from components.serving.service import PhotoService

_LOOPBACK = ("127.0.0.1", "localhost", "::1")
OPTIONS: list[click.Parameter] = [
    Option(["--package"], type=PATH, show_default="the champion", help="Folder of a package."),
    Option(["--host"], default="127.0.0.1", help="Address to listen on."),
    Option(["--port"], type=Number(int, 0, 65535), default=8080, help="Port to listen on."),
    *compute_options(),
    Option(
        ["--allow-host"],
        multiple=True,
        metavar="NAME",
        show_default="this machine's own names where --host is one of them, else any",
        help="Name that requests may be addressed to, without port; may be given several times.",
    ),
    *(
        Option(
            [f"--{name.replace('_', '-')}"],
            section="Limits",
            type=Number(type(field.default)),
            default=field.default,
            help=field.description,
        )
        for name, field in ServingLimits.model_fields.items()
    ),
]
"""Options of both commands."""


@click.command(cls=Command, params=OPTIONS)
def serve(**given: Any) -> int:
    """Serve the champion over HTTP.

    Until it is interrupted. The exit status is 1 when the package cannot be loaded or the port is taken, 2 for a limit
    out of range.
    """
    from components.serving.app import create_app

    return run_server(create_app, **given)


def run_server(
    build: "Callable[[PhotoService, Collection[str]], FastAPI]",
    package: Path | None,
    host: str,
    port: int,
    device: Device,
    dtype: Precision,
    allow_host: tuple[str, ...],
    **limits: Any,
) -> int:
    """Load a package and serve an application of it with uvicorn until interrupted; the exit status.

    Args:
        build: makes the application of a service.
        package: folder of a package; None: the champion.
        limits: the fields of `ServingLimits`.

    Raises:
        CommandError: a limit is out of range.
    """
    try:
        checked = ServingLimits.model_validate(limits)
    except ValidationError as error:
        raise CommandError("\n".join(map(_in_words, error.errors()))) from error
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)-7s %(name)s: %(message)s")
    import uvicorn

    from components.champion.service import REPAIR, champion, state_folder
    from components.inference.enhancer import Enhancer
    from components.models.compute import ComputeSettings
    from components.models.package import PackageError
    from components.serving.processes import DecodeProcesses
    from components.serving.service import PhotoService
    from components.serving.transport import configured

    try:
        listener = _bound(host, port)
    except OSError as error:
        print(f"--host {host} --port {port}: {error.strerror}: name another one", file=sys.stderr)
        return 1
    processes = DecodeProcesses(checked.readers)
    processes.start()  # while the models are loaded
    with closing(processes), listener:
        try:
            placement = ComputeSettings(device=device, dtype=dtype).place()
            with nullcontext(package) if package else champion(state_folder()) as folder:
                enhancer = Enhancer.load(folder, placement=placement)
        except PackageError as error:
            print(f"{error}{'' if package else REPAIR}", file=sys.stderr)
            return 1
        except RuntimeError as error:  # of NoChampion and of the device
            print(error, file=sys.stderr)
            return 1
        app = build(PhotoService(enhancer, checked, processes), _hosts(host, allow_host))
        listener.listen()  # from here on requests wait instead of being refused
        address = f"[{host}]" if ":" in host else host
        print(f"serving {folder} on http://{address}:{listener.getsockname()[1]} (stop with Ctrl-C)", flush=True)
        with suppress(KeyboardInterrupt):
            uvicorn.Server(configured(app, checked)).run(sockets=[listener])
    return 0


def _bound(host: str, port: int) -> socket.socket:
    """A socket at an address, which takes no connection before the models are loaded.

    Raises:
        OSError: the address is not this machine's, or in use.
    """
    family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    listener = socket.socket(family, kind)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError:
        listener.close()
        raise
    return listener


def _hosts(host: str, allowed: tuple[str, ...]) -> tuple[str, ...]:
    """The names that requests may be addressed to; none for any.

    A page of somebody else that a browser shows here can have its own name point to this machine (DNS rebinding), but
    then its requests carry that name.
    """
    if host in _LOOPBACK:
        return (*_LOOPBACK, "[::1]", *allowed)
    return allowed


def _in_words(problem: "ErrorDetails") -> str:
    option = str(problem["loc"][0]).replace("_", "-")
    return f"--{option} {problem['input']}: {problem['msg'].replace('Input should be', 'expected a number')}"
