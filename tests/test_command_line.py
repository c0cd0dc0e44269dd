"""The command `smartphotocrafter` as a whole: its table and what it names, exit statuses, completion."""

import os
import subprocess
import sys
from collections.abc import Iterator

import click
import pytest

from components.command_line import Command, CommandError, Lazy, LazyGroup, run
from components.training import nodes
from components.training.__main__ import main as training
from pipelines.__main__ import COMMANDS, main

HEAVY = {"mlflow", "numpy", "pydantic", "torch", "transformers", "zenml"}


def entries(group: LazyGroup, path: tuple[str, ...] = ()) -> Iterator[tuple[str, str, click.Command]]:
    """Of each command below ``group``: how it is called, what its group says of it, and the command."""
    for section in group.sections.values():
        for name, entry in section.items():
            command = group.get_command(click.Context(group), name)
            assert command is not None and command.name == name
            yield " ".join([*path, name]), entry.help or "", command
            if isinstance(command, LazyGroup):
                yield from entries(command, (*path, name))


ALL = list(entries(COMMANDS))
WORKERS = [("components.training", "", training), ("components.training.nodes", "", nodes.main)]


@pytest.mark.parametrize(("name", "line", "command"), ALL, ids=[name for name, _, _ in ALL])
def test_the_table_says_what_the_command_says(name: str, line: str, command: click.Command) -> None:
    assert (command.help or "").split("\n\n")[0].replace("\n", " ").startswith(line)
    assert line.endswith(".") and len(line) <= 80


@pytest.mark.parametrize(("name", "line", "command"), ALL + WORKERS, ids=[name for name, _, _ in ALL + WORKERS])
def test_every_parameter_says_what_it_is(name: str, line: str, command: click.Command) -> None:
    for parameter in command.params:
        said = getattr(parameter, "help", None)
        assert getattr(parameter, "hidden", False) or (said and said.endswith(".")), parameter.name


@pytest.mark.parametrize("arguments", [["--help"], ["release", "--help"], ["fetch", "-h"], ["nonsense"]])
def test_the_table_imports_no_command(arguments: list[str]) -> None:
    code = f"import sys; from pipelines.__main__ import main; main({arguments}); print(*sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert not {name for name in done.stderr.split() if name.split(".")[0] in HEAVY or name.endswith(".commands")}


@pytest.mark.parametrize(
    "command", ["enhance", "critique", "plan", "serve", "demo", "release import", "fetch measures"]
)
def test_help_of_a_command_loads_no_models(command: str) -> None:
    code = f"import sys; from pipelines.__main__ import main; main({[*command.split(), '--help']}); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert "Usage: smartphotocrafter " + command in done.stdout
    assert not (HEAVY - {"pydantic"}) & set(done.stdout.split())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "Usage: smartphotocrafter"),
        (["nonsense"], "No such command 'nonsense'"),
        (["enhance"], "Missing argument 'IN'"),
        (["critique", "in.jpg", "--nonsense"], "No such option"),
        (["release", "export"], "Missing option '--out'"),
        (["serve", "--max-bytes", "0"], "--max-bytes 0: expected a number greater than or equal to 1"),
        (["demo", "--timeout-seconds", "soon"], "'--timeout-seconds': expected a number, found soon"),
        (["dependencies", "nothing"], "there is no step nothing: expected one of ablate, "),
    ],
)
def test_a_mistake_of_usage_ends_with_2(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    assert words in capsys.readouterr().err


def failing(error: BaseException) -> click.Command:
    @click.command(cls=Command)
    def fail() -> int:
        """Fail."""
        raise error

    return fail


def test_a_mistake_is_said_in_its_own_words_and_an_interruption_ends_with_130(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(failing(CommandError("no: say yes")), []) == 2
    assert capsys.readouterr().err == "no: say yes\n"
    assert run(failing(KeyboardInterrupt()), []) == 130
    assert "interrupted" in capsys.readouterr().err


@pytest.mark.parametrize("error", [EOFError("a file ends early"), RuntimeError("a fault")])
def test_a_fault_of_the_program_is_not_hidden(error: Exception) -> None:
    with pytest.raises(type(error), match=str(error)):
        run(failing(error), [])


def test_the_entries_of_a_table_are_imported_when_they_are_called() -> None:
    group = LazyGroup("group", "A group.", {"Commands": {"gone": Lazy("components.nowhere:gone", "It is gone.")}})
    assert run(group, ["--help"]) == 0
    with pytest.raises(ModuleNotFoundError):
        run(group, ["gone"])


def test_a_step_tells_what_it_depends_on(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["dependencies", "train_critic"]) == 0
    files = capsys.readouterr().out.split()
    assert {"components/training/critic_sft.py", "requirements.lock", "steps/train_critic.py"} < set(files)
    assert main(["dependencies"]) == 0
    counts = dict(line.split() for line in capsys.readouterr().out.splitlines())
    assert counts["train_critic"] == str(len(files)) and "promote" in counts


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("smartphotocrafter ro", ["rollback"]),
        ("smartphotocrafter release ", ["export", "import", "enhance"]),
        ("smartphotocrafter critique --si", ["--sidecar"]),
        ("smartphotocrafter enhance --restore a", ["asked", "always"]),
    ],
)
def test_a_shell_completes_commands_options_and_choices(words: str, offered: list[str]) -> None:
    given = words.split(" ")
    environment = {"COMP_WORDS": words, "COMP_CWORD": str(len(given) - 1)}
    done = subprocess.run(
        [sys.executable, "-m", "pipelines"],
        env=os.environ | environment | {"_SMARTPHOTOCRAFTER_COMPLETE": "bash_complete"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert [line.split(",")[1] for line in done.stdout.splitlines()] == offered
