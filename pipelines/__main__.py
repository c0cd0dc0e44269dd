"""The command line of the pipelines: `python -m pipelines run`, `stack` and `ui`. Used by the Makefile."""

import argparse
import hashlib
import json
import logging
import shutil
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines import console
from pipelines.environment import ROOT, State, prepare

if TYPE_CHECKING:
    from pipelines.run import FinishedRun

REPORTS = ROOT / "reports" / "latest"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; 0 on success, 1 when the work failed, 2 when it could not start."""
    options = _parser().parse_args(arguments)
    state = prepare()
    console.before_zenml()
    with console.quiet(state.log if options.command is run else None):
        try:
            return options.command(options, state)
        except KeyboardInterrupt:
            return _report_interruption()


def run(options: argparse.Namespace, state: State) -> int:
    """Check configuration and data, run the training pipeline and say where to look."""
    from components.data.versioning import DataUnavailable, data_revision
    from steps.lineage import working_copy

    began = time.monotonic()
    try:
        settings = checked_settings(options.config, options.set, state)
        parameters = {
            "settings": settings,
            "data_revision": data_revision(ROOT),
            "working_copy": working_copy(ROOT / "data"),
        }
    except (DataUnavailable, ValueError) as error:
        print(error, file=sys.stderr)
        return 2

    from zenml.exceptions import RunInterruptedException, RunStoppedException

    from pipelines.run import BusyError, run_pipeline
    from pipelines.stack import StackError
    from pipelines.training import training

    try:
        finished = run_pipeline(training, parameters, options.stack, state, use_cache=not options.no_cache)
    except (BusyError, StackError) as error:
        print(error, file=sys.stderr)
        return 2
    except (RunInterruptedException, RunStoppedException):  # what ZenML makes of Ctrl-C and SIGTERM within a step
        return _report_interruption()
    except Exception as error:
        logging.getLogger(console.FILE_ONLY).exception("the run failed")
        _report_failure(error, state, options.traceback)
        return 1
    _report_success(finished, state, time.monotonic() - began)
    return 0


def stack(options: argparse.Namespace, state: State) -> int:
    """Register the stack and make it active."""
    from pipelines.stack import StackError, read_stack, register

    try:
        registered = register(read_stack(options.stack, state))
    except StackError as error:
        print(error, file=sys.stderr)
        return 2
    kinds = ", ".join(f"{kind.value} {items[0].name}" for kind, items in sorted(registered.components.items()))
    print(f"stack {registered.name} is active: {kinds}")
    return 0


def ui(options: argparse.Namespace, state: State) -> int:
    """Serve the MLflow UI on the loopback address until interrupted."""
    import subprocess

    command = [sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", state.tracking_uri]
    return subprocess.call([*command, "--host", "127.0.0.1", "--port", str(options.port)])


def checked_settings(config: Path, overrides: Sequence[str], state: State) -> dict[str, Any]:
    """The settings in ``config`` with ``overrides``, complete with defaults, as plain data.

    Checking imports every component, and with them the model libraries, which takes longer than a run in which all
    steps come from the cache; so the outcome is kept, under a hash of the code and the text that were checked.

    Raises:
        components.settings.SettingsError: a ValueError with one line for each mistake.
    """
    text = config.read_bytes() if config.is_file() else b""
    digest = hashlib.sha256(json.dumps([str(config), text.decode("latin-1"), list(overrides)]).encode())
    for path in [*sorted((ROOT / "components").rglob("*.py")), ROOT / "requirements.lock"]:
        digest.update(f"{path.relative_to(ROOT)}\0".encode() + path.read_bytes())
    kept = state.folder / "settings" / f"{digest.hexdigest()}.json"
    if kept.is_file():
        return json.loads(kept.read_text(encoding="utf-8"))

    from components.files import write_text
    from components.settings import load_settings

    settings = load_settings(config, overrides).model_dump(mode="json")
    shutil.rmtree(kept.parent, ignore_errors=True)
    write_text(kept, json.dumps(settings))
    return settings


def _report_interruption() -> int:
    print("\nStopped. The next `make pipeline` goes on from here.", file=sys.stderr)
    return 130


def _report_failure(error: Exception, state: State, with_traceback: bool) -> None:
    if with_traceback:
        traceback.print_exception(error)
    print(f"\nThe pipeline stopped: {type(error).__name__}: {error}", file=sys.stderr)
    print("Finished steps are kept: the next `make pipeline` goes on from here.", file=sys.stderr)
    print(f"Full log: {state.log}", file=sys.stderr)


def _report_success(finished: "FinishedRun", state: State, seconds: float) -> None:
    """Copy the report to where it is easy to find and print where to look."""
    from pipelines.results import collect
    from steps.registry import publish_champion

    found = collect(finished.run, REPORTS)
    publish_champion(state.folder)
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
    for function in (run, stack, ui):
        sub = commands.add_parser(function.__name__, help=(function.__doc__ or "").splitlines()[0])
        sub.set_defaults(command=function)
        if function in (run, stack):
            sub.add_argument("--stack", default="local", help="name of a file in configs/stacks (default: %(default)s)")
        if function is run:
            sub.add_argument("--config", type=Path, default=ROOT / "configs" / "local.yaml", help="profile to run")
            sub.add_argument(
                "--set", action="append", default=[], metavar="KEY=VALUE", help="override one setting; repeatable"
            )
            sub.add_argument("--no-cache", action="store_true", help="run every step, also those that are unchanged")
            sub.add_argument("--traceback", action="store_true", help="print the traceback of a failure")
        if function is ui:
            sub.add_argument("--port", type=int, default=5000, help="port on 127.0.0.1 (default: %(default)s)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
