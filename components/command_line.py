"""How the commands of `smartphotocrafter` are made with click: late imports, help in sections, numbers in bounds.

A command is a function that returns its exit status: 0 done, 1 failed. :class:`CommandError` and click's own errors of
usage end it with 2, an interruption with 130.
"""

import importlib
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Literal, NamedTuple, cast, get_args

import click
from click.shell_completion import CompletionItem

FILE = click.Path(readable=False)
"""The name of a file or folder, or a URL, as it was given: a shell completes it, and the command checks it."""
PATH = click.Path(readable=False, path_type=Path)
"""The same as a `Path`."""
_SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": 100, "show_default": True}


class CommandError(click.ClickException):
    """A mistake in the command, said in words: what was found, what was expected, what to do. The exit status is 2."""

    exit_code = 2

    def show(self, file: IO[Any] | None = None) -> None:
        """Print the message, and nothing else."""
        print(self.message, file=file or sys.stderr)


Device = Literal["auto", "cpu", "cuda"]
Precision = Literal["float32", "bfloat16"]


class Number(click.ParamType[float]):
    """A number from ``least`` to ``most``.

    Args:
        kind: int or float.
    """

    def __init__(self, kind: type[int] | type[float], least: float = -math.inf, most: float = math.inf):
        self.kind, self.least, self.most = kind, least, most
        self.name = "integer" if kind is int else "number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """The number that ``value`` is.

        Raises:
            click.BadParameter: it is none, or out of bounds.
        """
        try:
            number: float = self.kind(value)
        except ValueError:
            number = math.nan
        if not self.least <= number <= self.most:  # as no NaN is
            self.fail(f"expected {self._expected()}, found {value}", param, ctx)
        return number

    def _expected(self) -> str:
        what = "an integer" if self.kind is int else "a number"
        if self.least == -math.inf:
            return what
        return f"{what} from {self.least} up" if self.most == math.inf else f"{what} from {self.least} to {self.most}"


class Option(click.Option):
    """An option that the help of its command lists under the heading ``section``."""

    def __init__(self, *arguments: Any, section: str = "Options", **settings: Any):
        super().__init__(*arguments, **settings)
        self.section = section


def compute_options(precision: Precision = "float32") -> list[click.Parameter]:
    """`--device` and `--dtype`, the latter with the given default."""
    return [
        Option(["--device"], type=click.Choice(get_args(Device)), default="auto", help="Where the models compute."),
        Option(
            ["--dtype"],
            type=click.Choice(get_args(Precision)),
            default=precision,
            help="Number format of the models' weights; float32 takes twice the memory.",
        ),
    ]


class Command(click.Command):
    """A command whose help lists the options by section."""

    def __init__(self, *arguments: Any, **settings: Any):
        super().__init__(*arguments, **{"context_settings": _SETTINGS, **settings})

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the sections in the order of their first options, `--help` at the end."""
        sections: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None and not isinstance(parameter, click.Argument):
                sections.setdefault(getattr(parameter, "section", "Options"), []).append(record)
        for title, records in sections.items():
            with formatter.section(title):
                formatter.write_dl(records)


class Lazy(NamedTuple):
    """A command that is imported when it is called or when its own help is wanted."""

    target: str
    """``module:attribute``."""
    help: str
    """What its group's help says of it, in one line: the first sentence of its own help."""


class LazyGroup(click.Group):
    """A group that knows its commands by name.

    Args:
        sections: the commands by name, by the heading under which help lists them.
    """

    def __init__(self, name: str, help: str, sections: Mapping[str, Mapping[str, "Lazy | click.Command"]]):
        super().__init__(name, help=help, context_settings=_SETTINGS)
        self.sections = sections

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names of the commands, in the order of the table."""
        return [name for section in self.sections.values() for name in section]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of that name, imported; None if there is none."""
        found = self._entries().get(cmd_name)
        if not isinstance(found, Lazy):
            return found
        module, _, attribute = found.target.partition(":")
        return cast(click.Command, getattr(importlib.import_module(module), attribute))

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the table, which imports no command."""
        for title, section in self.sections.items():
            with formatter.section(title):
                formatter.write_dl([(name, _line(entry)) for name, entry in section.items()])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Names that begin with ``incomplete``, which imports no command, and options."""
        names = [
            CompletionItem(name, help=_line(entry))
            for name, entry in self._entries().items()
            if name.startswith(incomplete)
        ]
        return [*names, *click.Command.shell_complete(self, ctx, incomplete)]

    def _entries(self) -> dict[str, "Lazy | click.Command"]:
        return {name: entry for section in self.sections.values() for name, entry in section.items()}


def _line(entry: Lazy | click.Command) -> str:
    return entry.help or ""


def run(command: click.Command, arguments: Sequence[str] | None = None, program: str | None = None) -> int:
    """Run a command line; its exit status.

    Args:
        arguments: the words of the command line (default: those of this process).
        program: the name by which messages and completion call the command (default: its own).
    """
    try:
        return int(command.main(arguments, program or command.name, standalone_mode=False) or 0)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except click.Abort as abort:
        if isinstance(abort.__cause__, EOFError):  # of the work: nothing here asks a person
            raise abort.__cause__ from None
        print("interrupted", file=sys.stderr)
        return 130
