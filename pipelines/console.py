"""What appears on the terminal: a line as a step starts, ends or comes from the cache; the rest goes to a log file."""

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from logging.handlers import RotatingFileHandler
from pathlib import Path

_LOG_BYTES = 10_000_000
FILE_ONLY = "pipelines.traceback"
"""Name of the logger for what belongs into the log file and not on the terminal."""
_OURS = ("components", "pipelines", "steps")
_STEP_LINES = ("zenml.orchestrators.step_launcher", "zenml.orchestrators.step_run_utils")
_REPORTED_ELSEWHERE = ("zenml.orchestrators", "zenml.steps")  # errors of a step; the command line reports them, once
_HARMLESS = (
    "bitsandbytes",  # has no fast CPU kernels, which nothing here uses
    "zenml.integrations.mlflow",  # says at each step that it could not switch off fastai's autologging
    "zenml.zen_stores",  # tells of its default stack
)


class _Quiet(logging.Filter):
    """Lets through what this project says, the lines about steps, and the warnings and errors of everything else."""

    def filter(self, record: logging.LogRecord) -> bool:
        if record.name in {"py.warnings", FILE_ONLY}:
            return False
        if record.name.startswith(_HARMLESS):
            return record.levelno >= logging.ERROR
        if record.name.startswith(_REPORTED_ELSEWHERE) and record.levelno >= logging.ERROR:
            return False
        if record.name.startswith(_STEP_LINES):
            return True
        if record.name.split(".")[0] in _OURS:
            return record.levelno >= logging.INFO
        return record.levelno >= logging.WARNING


def before_zenml() -> None:
    """Choose colours by whether there is a terminal; ZenML reads this once, at import."""
    os.environ.setdefault("ZENML_LOGGING_COLORS_DISABLED", "false" if sys.stdout.isatty() else "true")
    os.environ.setdefault("ZENML_LOGGING_VERBOSITY", "INFO")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")


@contextmanager
def quiet(log_file: Path | None = None) -> Iterator[None]:
    """Filter what ZenML's console handler prints and keep everything, debug output aside, in ``log_file``.

    The file is appended to and started anew when it has grown large.
    """
    from zenml.logger import ZenMLConsoleHandler

    root, hidden = logging.getLogger(), _Quiet()
    consoles = [handler for handler in root.handlers if isinstance(handler, ZenMLConsoleHandler)]
    for handler in consoles:
        handler.addFilter(hidden)
    for name in ("mlflow", "alembic", "sqlalchemy", "great_expectations", "httpx", "dvc"):
        logging.getLogger(name).setLevel(logging.WARNING)
    complete = None
    if log_file is not None:
        log_file.parent.mkdir(parents=True, exist_ok=True)
        complete = RotatingFileHandler(log_file, maxBytes=_LOG_BYTES, backupCount=1, encoding="utf-8")
        complete.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s"))
        root.addHandler(complete)
    try:
        yield
    finally:
        for handler in consoles:
            handler.removeFilter(hidden)
        if complete is not None:
            root.removeHandler(complete)
            complete.close()
