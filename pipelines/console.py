"""What appears on the terminal: a line as a step starts, ends or comes from the cache; the rest goes to a log file."""

import logging
import os
import sys
from pathlib import Path

_OURS = ("components", "pipelines", "steps")
_STEP_LINES = ("zenml.orchestrators.step_launcher", "zenml.orchestrators.step_run_utils")
_REPORTED_ELSEWHERE = ("zenml.orchestrators", "zenml.steps")  # errors of a step; the command line reports them, once
_NOT_OURS_TO_FIX = ("zenml.integrations.mlflow",)  # says at each step that it could not switch off fastai's autologging


class _Quiet(logging.Filter):
    """Lets through what this project says, the lines about steps, and the warnings and errors of everything else."""

    def filter(self, record: logging.LogRecord) -> bool:
        if record.name == "py.warnings":
            return False
        if record.name.startswith(_NOT_OURS_TO_FIX):
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


def quieten(log_file: Path) -> None:
    """Filter what ZenML's console handler prints and keep everything, debug output aside, in ``log_file``."""
    root = logging.getLogger()
    log_file.parent.mkdir(parents=True, exist_ok=True)
    for handler in root.handlers:
        if isinstance(handler, logging.StreamHandler):
            handler.addFilter(_Quiet())
    complete = logging.FileHandler(log_file, mode="w", encoding="utf-8")
    complete.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s"))
    root.addHandler(complete)
    logging.captureWarnings(True)
    for name in ("mlflow", "alembic", "sqlalchemy", "great_expectations", "httpx", "dvc"):
        logging.getLogger(name).setLevel(logging.WARNING)
