"""The command line of the pipelines: `python -m pipelines run`, `tables`, `rollback`, ... Used by the Makefile."""

import argparse
import logging
import os
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines import console, operations
from pipelines.configuration import checked_settings
from pipelines.environment import ROOT, Server, State, prepare
from pipelines.environment import state as state_folders
from pipelines.lock import BusyError, only_pipeline
from pipelines.stack_file import StackError, read_stack_file

if TYPE_CHECKING:
    from zenml.pipelines.pipeline_definition import Pipeline

    from pipelines.run import FinishedRun

REPORTS = ROOT / "reports" / "latest"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; 0 on success, 1 when the work failed, 2 when it could not start."""
    options = _parser().parse_args(arguments)
    try:
        state = prepare(_server(options))
    except StackError as error:
        print(error, file=sys.stderr)
        return 2
    console.before_zenml()
    with console.quiet(state.log if options.command in (run, tables, ablation) else None):
        try:
            return options.command(options, state)
        except KeyboardInterrupt:
            return _report_interruption()
        except StackError as error:
            print(error, file=sys.stderr)
            return 2


def run(options: argparse.Namespace, state: State) -> int:
    """Check configuration and data, run the training pipeline and say where to look."""
    try:
        with only_pipeline(state):  # from before the data is looked at, so that the run has what it saw
            return _run(options, state)
    except BusyError as error:
        print(error, file=sys.stderr)
        return 2


def _run(options: argparse.Namespace, state: State) -> int:
    from components.data.versioning import DataUnavailable, data_revision
    from steps.lineage import check_sources, data_folders, working_copy

    began = time.monotonic()
    try:
        settings = checked_settings(options.config, options.set, state)
        if options.stack == "local":
            check_sources(settings)
        parameters = {
            "settings": settings,
            "data_revision": data_revision(ROOT),
            "working_copy": working_copy(*data_folders(settings)),
        }
    except (DataUnavailable, ValueError) as error:
        print(error, file=sys.stderr)
        return 2

    from zenml.exceptions import RunInterruptedException, RunStoppedException

    from pipelines.retrain import current_inputs, remember
    from pipelines.run import run_pipeline

    inputs = current_inputs(settings)
    try:
        pipeline, parameters = _chosen_pipeline(options, state, parameters)
        finished = run_pipeline(pipeline, parameters, options.stack, state, use_cache=not options.no_cache)
    except StackError as error:
        print(error, file=sys.stderr)
        return 2
    except (RunInterruptedException, RunStoppedException):  # what ZenML makes of Ctrl-C and SIGTERM within a step
        return _report_interruption()
    except Exception as error:
        logging.getLogger(console.FILE_ONLY).exception("the run failed")
        _report_failure(error, state, options.traceback)
        return 1
    remember(inputs, options.stack, state)
    _report_success(finished, options.stack, state, time.monotonic() - began)
    return 0


def _chosen_pipeline(
    options: argparse.Namespace, state: State, parameters: dict[str, Any]
) -> tuple["Pipeline", dict[str, Any]]:
    """The training pipeline, or, where a champion is to go on learning and there is one, the retraining pipeline."""
    in_shards = parameters["settings"]["scale_out"]["shards"] > 1
    if options.from_champion:
        from pipelines.stack import champion_on, read_stack

        if (version := champion_on(read_stack(options.stack, state))) is not None:
            parameters = {**parameters, "champion": version}
            if in_shards:
                from pipelines.sharded_retraining import sharded_retraining

                return sharded_retraining, parameters
            from pipelines.retraining import retraining

            return retraining, parameters
        print("There is no champion yet: training from stage I.")
    if in_shards:
        from pipelines.sharded_training import sharded_training

        return sharded_training, parameters
    from pipelines.training import training

    return training, parameters


def tables(options: argparse.Namespace, state: State) -> int:
    """Judge registered versions by the paper's tables, beside every baseline."""
    from pipelines.pages import judge_versions

    versions = options.version or ["enhance=champion"]
    return _make_page(
        "tables", options, state, lambda settings: judge_versions(settings, versions, options.stack, state)
    )


def ablation(options: argparse.Namespace, state: State) -> int:
    """Train without RL, without r_photo and in full from the same stage II, and compare the three."""
    from pipelines.pages import compare_variants

    return _make_page("ablation", options, state, lambda settings: compare_variants(settings, options.stack, state))


def _make_page(what: str, options: argparse.Namespace, state: State, make: Callable[[dict[str, Any]], Path]) -> int:
    from components.data.versioning import DataUnavailable

    try:
        with only_pipeline(state):
            page = make(checked_settings(options.config, options.set, state))
    except (BusyError, DataUnavailable, StackError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    except Exception as error:
        logging.getLogger(console.FILE_ONLY).exception("the %s failed", what)
        _report_failure(error, state, with_traceback=False)
        return 1
    print(f"{what}: {page}")
    return 0


def stack(options: argparse.Namespace, state: State) -> int:
    """Register the stack and make it active."""
    from pipelines.stack import read_stack, register

    try:
        registered = register(read_stack(options.stack, state))
    except StackError as error:
        print(error, file=sys.stderr)
        return 2
    kinds = ", ".join(f"{kind.value} {items[0].name}" for kind, items in sorted(registered.components.items()))
    print(f"stack {registered.name} is active: {kinds}")
    return 0


def rollback(options: argparse.Namespace, state: State) -> int:
    """Make the previous champion, or another version, champion again."""
    from pipelines.rollback import connect, restore

    def work() -> bool:
        connect(read_stack_file(options.stack, state), state)
        return restore(state, options.to or None, options.reason, lambda text: print(text, flush=True), options.stack)

    return _in_the_registry(work)


def champion(options: argparse.Namespace, state: State) -> int:
    """Say who is champion, finish what was interrupted, and renew the copy that is in service where it is not that."""
    from pipelines.rollback import connect, follow

    def work() -> bool:
        connect(read_stack_file(options.stack, state), state)
        print(follow(state, options.stack))
        return True

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


def ui(options: argparse.Namespace, state: State) -> int:
    """Serve MLflow's pages and ZenML's dashboard on the loopback address until interrupted."""
    from pipelines.dashboards import serve

    return serve(state, options.port, options.zenml_port)


def _server(options: argparse.Namespace) -> Server | None:
    """The ZenML server that the chosen stack names, with the API key from the environment.

    Raises:
        StackError: the stack file is wrong, or the API key is missing.
    """
    if not hasattr(options, "stack") or options.command in operations.WITHOUT_LOGIN:
        return None
    described = read_stack_file(options.stack, state_folders()).server
    if described is None:
        return None
    if not (api_key := os.environ.get(described.api_key_variable)):
        raise StackError(
            f"set {described.api_key_variable} in the environment: the API key of a service account of {described.url} "
            f"(`zenml service-account create` makes one)"
        )
    return Server(options.stack, described.url, api_key)


def _report_interruption() -> int:
    print("\nStopped. The next `make pipeline` goes on from here.", file=sys.stderr)
    return 130


def _report_failure(error: Exception, state: State, with_traceback: bool) -> None:
    if with_traceback:
        traceback.print_exception(error)
    print(f"\nThe pipeline stopped: {type(error).__name__}: {error}", file=sys.stderr)
    print("Finished steps are kept: the next `make pipeline` goes on from here.", file=sys.stderr)
    print(f"Full log: {state.log}", file=sys.stderr)


def _report_success(finished: "FinishedRun", stack: str, state: State, seconds: float) -> None:
    """Copy the report to where it is easy to find and print where to look."""
    from pipelines.results import collect
    from pipelines.rollback import connect
    from steps.publish import publish_champion

    found = collect(finished.run, REPORTS)
    connect(read_stack_file(stack, state), state)  # the end of a step takes MLflow's address away
    publish_champion(state.folder, stack)
    cached = sum(step.status.value == "cached" for step in finished.run.steps.values())
    minutes, rest = divmod(round(seconds), 60)
    taken = f"{minutes} min {rest} s" if minutes else f"{rest} s"
    print(f"\n{finished.run.name} is complete in {taken} ({len(finished.run.steps)} steps, {cached} from the cache).")
    print(f"  model     {found.decision}")
    print(f"  report    {found.report.relative_to(ROOT)}")
    print("  runs      make ui, then http://127.0.0.1:5000 (experiment smartphotocrafter)")
    print("  try it    make enhance PHOTO=in.jpg OUT=out.jpg")
    print(f"  full log  {state.log}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m pipelines", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for function in (run, tables, ablation, stack, rollback, champion, ui):
        sub = commands.add_parser(function.__name__, help=(function.__doc__ or "").splitlines()[0])
        sub.set_defaults(command=function)
        if function in (run, tables, ablation, stack, rollback, champion):
            sub.add_argument("--stack", default="local", help="name of a file in configs/stacks (default: %(default)s)")
        if function in (run, tables, ablation):
            sub.add_argument("--config", type=Path, default=ROOT / "configs" / "local.yaml", help="profile to run")
            sub.add_argument(
                "--set", action="append", default=[], metavar="KEY=VALUE", help="override one setting; repeatable"
            )
        if function is tables:
            sub.add_argument(
                "--version", action="append", metavar="NAME=VERSION", help="version or alias to evaluate; repeatable"
            )
        if function is run:
            # The run that `retrain` starts in a process of its own; by hand, `make retrain ARGS=--force` is the way.
            sub.add_argument("--from-champion", action="store_true", help=argparse.SUPPRESS)
            sub.add_argument("--no-cache", action="store_true", help="run every step, even if it is unchanged")
            sub.add_argument("--traceback", action="store_true", help="print the traceback of a failure")
        if function is rollback:
            sub.add_argument("--to", help="version to restore (default: the previous champion)")
            sub.add_argument("--reason", default="", help="why; kept with the version that is taken down")
        if function is ui:
            sub.add_argument("--port", type=int, default=5000, help="port of MLflow (default: %(default)s)")
            sub.add_argument("--zenml-port", type=int, default=8237, help="port of ZenML (default: %(default)s)")
    operations.add_parsers(commands)
    return parser


if __name__ == "__main__":
    sys.exit(main())
