"""The commands that keep an installation going: fetch data, doctor, retrain, schedule, unschedule, dependencies."""

import functools
import subprocess
import sys
from pathlib import Path
from typing import Any

import click

from components.command_line import Command, CommandError, Option
from pipelines import schedule as scheduling
from pipelines.commands.common import PROFILE, STACK, prepared
from pipelines.configuration import checked_settings
from pipelines.environment import ROOT, State
from pipelines.lock import BusyError, only_pipeline
from pipelines.stack_file import StackFile, read_stack_file

_FORCE = Option(["--force"], is_flag=True, help="Retrain even if nothing changed.")
_SCHEDULE: list[click.Parameter] = [
    Option(["--cron"], required=True, metavar="TIME", help='When, UTC: five fields of cron, such as "0 3 * * 1".'),
    *PROFILE,
    Option(["--foreground"], is_flag=True, help="Stay in the foreground, for systemd or a container."),
    Option(
        ["--repository"],
        default="",
        show_default=False,
        metavar="URL",
        help="Repository that a cluster clones; on this machine, none is needed.",
    ),
    Option(["--branch"], default="main", help="Branch of the repository."),
]
_STEP = click.Argument(["step"], required=False, help="Such as train_critic.")
_without_login = functools.partial(prepared, login=False)
"""Of commands that do their work without ZenML, and so before there is a server or a key."""


@click.command("data", cls=Command)
@prepared
def fetch_data(state: State) -> int:
    """Bring the photos and base models that data.dvc names to data/.

    But not under a pipeline that runs: then the exit status is 2.
    """
    from components.data.versioning import DataUnavailable, dvc_checkout

    try:
        with only_pipeline(state):
            dvc_checkout(ROOT)
    except (BusyError, DataUnavailable) as error:
        raise CommandError(str(error)) from error
    return 0


@click.command(cls=Command, params=PROFILE)
@_without_login
def doctor(state: State, stack: str, config: Path, overrides: tuple[str, ...]) -> int:
    """Check everything that a run on a stack needs.

    Says what to do about each fault. The exit status is 1 if there is one.
    """
    from pipelines.doctor import examine, in_lines

    try:
        settings = checked_settings(config, overrides, state)
    except ValueError as error:
        raise CommandError(str(error)) from error
    faults = 0
    for finding in examine(read_stack_file(stack, state), state, settings):
        print(in_lines(finding), flush=True)
        faults += not finding.ok
    print(f"\nTo be mended first: {faults}." if faults else "\nNothing stands in the way of a run.")
    return 1 if faults else 0


@click.command(cls=Command)
@functools.partial(prepared, whole=False)
def check_state(state: State) -> int:
    """Read all that lies in the state folder, and say what is damaged.

    Databases and their copies, the champion, checkpoints and journals; nothing is changed. For each damaged part the
    way back is named. The exit status is 1 if something is damaged.
    """
    from pipelines.state_check import examine

    faults = count = 0
    for finding in examine(state):
        count += 1
        name = finding.path.relative_to(state.folder) if finding.path.is_relative_to(state.folder) else finding.path
        note = f" ({finding.note})" if finding.note else ""
        print(f"DAMAGED  {name}: {finding.fault}" if finding.fault else f"whole    {name}{note}", flush=True)
        faults += finding.fault is not None
    print(f"\n{faults} of {count} are damaged." if faults else f"\nAll {count} are whole.")
    return 1 if faults else 0


@click.command(cls=Command, params=[*PROFILE, _FORCE])
@prepared
def retrain(state: State, stack: str, config: Path, overrides: tuple[str, ...], force: bool) -> int:
    """Let the champion go on learning, if data, code or settings changed."""
    from pipelines.alerts import alert
    from pipelines.retrain import retrain as retrain_once

    try:
        settings = checked_settings(config, overrides, state)
    except ValueError as error:
        alert("SmartPhotoCrafter: retraining could not start", str(error), state.folder)
        raise CommandError(str(error)) from error
    done = retrain_once(settings, _run_arguments(stack, config, overrides), stack, state, force=force)
    print(done.message)
    return done.code


@click.command(cls=Command, params=_SCHEDULE)
@_without_login
def schedule(
    state: State,
    cron: str,
    stack: str,
    config: Path,
    overrides: tuple[str, ...],
    foreground: bool,
    repository: str,
    branch: str,
) -> int:
    """Retrain on a schedule.

    By a process on this machine, or by a CronJob on a cluster.
    """
    described, arguments = read_stack_file(stack, state), _run_arguments(stack, config, overrides)
    try:
        cron = scheduling.check_cron(cron)
        checked_settings(config, overrides, state)
        if foreground:
            command = [sys.executable, "-m", "pipelines", "retrain", *arguments]
            scheduling.serve(cron, lambda: subprocess.call(command, cwd=ROOT))
        elif described.namespace:
            if not repository:
                raise ValueError("a cluster clones the repository: say which with REPOSITORY=https://... (and BRANCH=)")
            manifest = scheduling.cron_job(described, cron, arguments, repository, branch)
            print(scheduling.apply_cron_job(manifest, _batch_api(described)))
        else:
            print(scheduling.in_words(scheduling.start(cron, arguments, state)))
            print(f"Its log: {state.folder / 'schedule.log'}. It ends with this machine, or by `make unschedule`.")
    except ValueError as error:
        raise CommandError(str(error)) from error
    return 0


@click.command(cls=Command, params=[STACK])
@_without_login
def unschedule(state: State, stack: str) -> int:
    """End the scheduled retraining.

    A run that is under way goes on.
    """
    described = read_stack_file(stack, state)
    if described.namespace:
        gone = scheduling.delete_cron_job(described.namespace, _batch_api(described))
    else:
        gone = scheduling.stop(state) is not None
    print("Retraining is no longer scheduled." if gone else "No retraining was scheduled.")
    return 0


@click.command(cls=Command, params=[_STEP])
def dependencies(step: str | None) -> int:
    """List the files that a step's result depends on.

    A change in one of them runs the step again; with it, the packages of the lock file. Without a step: how many files
    each step depends on.
    """
    from steps import code

    files = {path.stem: path for path in code.step_files()}
    if step is None:
        for name, path in files.items():
            print(f"{name:20} {len(code.dependencies(path)):4}")
        return 0
    if step not in files:
        raise CommandError(f"there is no step {step}: expected one of {', '.join(files)}")
    print("\n".join(code.dependencies(files[step])))
    return 0


def _run_arguments(stack: str, config: Path, overrides: tuple[str, ...]) -> list[str]:
    """What to hand on to `run` or `retrain`."""
    config = config.resolve()
    if config.is_relative_to(ROOT):  # where they are used, the repository may lie elsewhere
        config = config.relative_to(ROOT)
    settings = [argument for value in overrides for argument in ("--set", value)]
    return ["--stack", stack, "--config", str(config), *settings]


def _batch_api(stack: StackFile) -> Any:
    from kubernetes import client, config

    context = stack.components["orchestrator"].configuration.get("kubernetes_context")
    return client.BatchV1Api(config.new_client_from_config(context=context))
