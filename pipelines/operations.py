"""The commands that keep an installation going: fetch, doctor, retrain, schedule and unschedule."""

import argparse
import subprocess
import sys
from pathlib import Path
from typing import Any

from pipelines import schedule as scheduling
from pipelines.configuration import checked_settings
from pipelines.environment import ROOT, State
from pipelines.lock import BusyError, only_pipeline
from pipelines.stack_file import StackFile, read_stack_file


def fetch(options: argparse.Namespace, state: State) -> int:
    """Bring the photos and base models that data.dvc names to data/, but not under a pipeline that runs."""
    from components.data.versioning import DataUnavailable, dvc_checkout

    try:
        with only_pipeline(state):
            dvc_checkout(ROOT)
    except (BusyError, DataUnavailable) as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def doctor(options: argparse.Namespace, state: State) -> int:
    """Check everything a run on the stack needs, and say what to do about each fault."""
    from pipelines.doctor import examine, in_lines

    try:
        settings = checked_settings(options.config, options.set, state)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    faults = 0
    for finding in examine(read_stack_file(options.stack, state), state, settings):
        print(in_lines(finding), flush=True)
        faults += not finding.ok
    print(f"\nTo be mended first: {faults}." if faults else "\nNothing stands in the way of a run.")
    return 1 if faults else 0


def retrain(options: argparse.Namespace, state: State) -> int:
    """Let the champion go on learning, if data, code or configuration changed."""
    from pipelines.alerts import alert
    from pipelines.retrain import retrain as retrain_once

    try:
        settings = checked_settings(options.config, options.set, state)
    except ValueError as error:
        alert("SmartPhotoCrafter: retraining could not start", str(error), state.folder)
        print(error, file=sys.stderr)
        return 2
    done = retrain_once(settings, _run_arguments(options), options.stack, state, force=options.force)
    print(done.message)
    return done.code


def schedule(options: argparse.Namespace, state: State) -> int:
    """Retrain on a schedule: by a process on this machine, or by a CronJob on a cluster."""
    stack, arguments = read_stack_file(options.stack, state), _run_arguments(options)
    try:
        cron = scheduling.check_cron(options.cron)
        checked_settings(options.config, options.set, state)
        if options.foreground:
            command = [sys.executable, "-m", "pipelines", "retrain", *arguments]
            scheduling.serve(cron, lambda: subprocess.call(command, cwd=ROOT))
        elif stack.namespace:
            if not options.repository:
                raise ValueError("a cluster clones the repository: say which with REPOSITORY=https://... (and BRANCH=)")
            manifest = scheduling.cron_job(stack, cron, arguments, options.repository, options.branch)
            print(scheduling.apply_cron_job(manifest, _batch_api(stack)))
        else:
            print(scheduling.in_words(scheduling.start(cron, arguments, state)))
            print(f"Its log: {state.folder / 'schedule.log'}. It ends with this machine, or by `make unschedule`.")
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def unschedule(options: argparse.Namespace, state: State) -> int:
    """End the scheduled retraining; a run that is under way goes on."""
    stack = read_stack_file(options.stack, state)
    if stack.namespace:
        gone = scheduling.delete_cron_job(stack.namespace, _batch_api(stack))
    else:
        gone = scheduling.stop(state) is not None
    print("Retraining is no longer scheduled." if gone else "No retraining was scheduled.")
    return 0


WITHOUT_LOGIN = (doctor, schedule, unschedule)
"""Commands that do their work without ZenML, and so before there is a server or a key."""


def add_parsers(commands: Any) -> None:
    """Add the commands to the sub-parsers of `python -m pipelines`."""
    fetching = commands.add_parser(fetch.__name__, help=(fetch.__doc__ or "").splitlines()[0])
    fetching.set_defaults(command=fetch)
    for function in (doctor, retrain, schedule, unschedule):
        sub = commands.add_parser(function.__name__, help=(function.__doc__ or "").splitlines()[0])
        sub.set_defaults(command=function)
        sub.add_argument("--stack", default="local", help="name of a file in configs/stacks (default: %(default)s)")
        if function is unschedule:
            continue
        sub.add_argument("--config", type=Path, default=ROOT / "configs" / "local.yaml", help="profile to run")
        sub.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override one setting")
        if function is retrain:
            sub.add_argument("--force", action="store_true", help="retrain even if nothing changed")
        if function is schedule:
            sub.add_argument("--cron", required=True, help='when, UTC: five fields, such as "0 3 * * 1"')
            sub.add_argument(
                "--foreground", action="store_true", help="stay in the foreground, for systemd or a container"
            )
            sub.add_argument("--repository", default="", help="URL of the repository that a cluster clones")
            sub.add_argument("--branch", default="main", help="branch of the repository (default: %(default)s)")


def _run_arguments(options: argparse.Namespace) -> list[str]:
    """What to hand on to `python -m pipelines run` or `retrain`."""
    overrides = [argument for value in options.set for argument in ("--set", value)]
    config = options.config.resolve()
    if config.is_relative_to(ROOT):  # where they are used, the repository may lie elsewhere
        config = config.relative_to(ROOT)
    return ["--stack", options.stack, "--config", str(config), *overrides]


def _batch_api(stack: StackFile) -> Any:
    from kubernetes import client, config

    context = stack.components["orchestrator"].configuration.get("kubernetes_context")
    return client.BatchV1Api(config.new_client_from_config(context=context))
