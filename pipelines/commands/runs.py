"""The commands that train and judge: run, tables and ablation."""

import functools
import logging
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from components import quick_start
from components.command_line import Command, CommandError, Option
from pipelines import console
from pipelines.commands.common import PROFILE, prepared, report_interruption
from pipelines.configuration import checked_settings
from pipelines.environment import ROOT, State
from pipelines.lock import BusyError, only_pipeline
from pipelines.stack_file import StackError, read_stack_file

if TYPE_CHECKING:
    from zenml.pipelines.pipeline_definition import Pipeline

    from pipelines.run import FinishedRun

REPORTS = ROOT / "reports" / "latest"
_RUN: list[click.Parameter] = [
    *PROFILE,
    Option(["--no-cache"], is_flag=True, help="Run every step, even if it is unchanged."),
    Option(["--traceback", "with_traceback"], is_flag=True, help="Print the traceback of a failure."),
    # The run that `retrain` starts in a process of its own; by hand, `make retrain ARGS=--force` is the way.
    Option(["--from-champion"], is_flag=True, hidden=True),
]
_VERSIONS = Option(
    ["--version", "versions"],
    multiple=True,
    default=("enhance=champion",),
    metavar="NAME=VERSION",
    help="Version or alias to judge, and its name in the tables; repeatable.",
)
_logged = functools.partial(prepared, log=True)


@click.command(cls=Command, params=_RUN)
@_logged
def run(state: State, **given: Any) -> int:
    """Run the whole pipeline, photos to promoted model.

    Configuration and data are checked first. Finished steps are kept: a run that was stopped goes on where it was.
    """
    try:
        with only_pipeline(state):  # from before the data is looked at, so that the run has what it saw
            return _run(state, **given)
    except BusyError as error:
        raise CommandError(str(error)) from error


def _run(
    state: State,
    stack: str,
    config: Path,
    overrides: tuple[str, ...],
    no_cache: bool,
    with_traceback: bool,
    from_champion: bool,
) -> int:
    from components.data.versioning import DataUnavailable, data_revision
    from steps.lineage import check_sources, data_folders, working_copy

    began = time.monotonic()
    try:
        settings = checked_settings(config, overrides, state)
        if stack == "local":
            check_sources(settings)
        parameters = {
            "settings": settings,
            "data_revision": data_revision(ROOT),
            "working_copy": working_copy(*data_folders(settings)),
        }
    except (DataUnavailable, ValueError) as error:
        raise CommandError(str(error)) from error

    from zenml.exceptions import RunInterruptedException, RunStoppedException

    from pipelines.retrain import current_inputs, remember
    from pipelines.run import run_pipeline

    inputs = current_inputs(settings)
    quick_start.loaded()
    try:
        pipeline, parameters = _chosen_pipeline(from_champion, stack, state, parameters)
        finished = run_pipeline(pipeline, parameters, stack, state, use_cache=not no_cache)
    except StackError:
        raise
    except (RunInterruptedException, RunStoppedException):  # what ZenML makes of Ctrl-C and SIGTERM within a step
        return report_interruption()
    except Exception as error:
        logging.getLogger(console.FILE_ONLY).exception("the run failed")
        _report_failure(error, state, with_traceback)
        return 1
    remember(inputs, stack, state)
    _report_success(finished, stack, state, time.monotonic() - began)
    return 0


def _chosen_pipeline(
    from_champion: bool, stack: str, state: State, parameters: dict[str, Any]
) -> tuple["Pipeline", dict[str, Any]]:
    """The training pipeline, or, where a champion is to go on learning and there is one, the retraining pipeline."""
    in_shards = parameters["settings"]["scale_out"]["shards"] > 1
    if from_champion:
        from pipelines.stack import champion_on, read_stack

        if (version := champion_on(read_stack(stack, state))) is not None:
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


@click.command(cls=Command, params=[*PROFILE, _VERSIONS])
@_logged
def tables(state: State, stack: str, config: Path, overrides: tuple[str, ...], versions: tuple[str, ...]) -> int:
    """Judge registered versions by the paper's tables.

    Beside every baseline; the page is reports/tables/tables.html.
    """
    from pipelines.pages import judge_versions

    return _make_page(
        "tables", config, overrides, state, lambda settings: judge_versions(settings, versions, stack, state)
    )


@click.command(cls=Command, params=PROFILE)
@_logged
def ablation(state: State, stack: str, config: Path, overrides: tuple[str, ...]) -> int:
    """Train without RL, without r_photo and in full, and compare the three.

    All from the same stage II.
    """
    from pipelines.pages import compare_variants

    return _make_page("ablation", config, overrides, state, lambda settings: compare_variants(settings, stack, state))


def _make_page(
    what: str, config: Path, overrides: tuple[str, ...], state: State, make: Callable[[dict[str, Any]], Path]
) -> int:
    from components.data.versioning import DataUnavailable

    try:
        with only_pipeline(state):
            quick_start.loaded()
            page = make(checked_settings(config, overrides, state))
    except (BusyError, DataUnavailable, ValueError) as error:
        raise CommandError(str(error)) from error
    except Exception as error:
        logging.getLogger(console.FILE_ONLY).exception("the %s failed", what)
        _report_failure(error, state, with_traceback=False)
        return 1
    print(f"{what}: {page}")
    return 0


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
