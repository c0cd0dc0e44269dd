"""What the processes of a stage are to do, and how it ended: files in a folder that all of them see.

`job.json` is there first. The main rank adds `events.jsonl` (components/training/events.py) and, at the very end,
`result.json`; a rank that fails adds `failure-<rank>.json`.
"""

import json
from pathlib import Path
from typing import Any

from components.files import write_text
from components.strict import Strict

JOB_FILE, RESULT_FILE, FAILURE_FILES = "job.json", "result.json", "failure-*.json"


class StageError(RuntimeError):
    """A stage in several processes ended without a result; the message says which rank failed first, and of what.

    Attributes:
        exit_code: of the launcher.
    """

    def __init__(self, message: str, exit_code: int):
        super().__init__(message)
        self.exit_code = exit_code


class Job(Strict):
    """What the processes are to do.

    Attributes:
        settings: of the stage, as plain data.
        arguments: folders, by the names that the stage's function gives them.
    """

    settings: dict[str, Any]
    arguments: dict[str, Path]

    def write(self, folder: Path) -> Path:
        """Write the job into `folder`; the file."""
        write_text(folder / JOB_FILE, self.model_dump_json())
        return folder / JOB_FILE


class Failure(Strict):
    """How a rank failed, and when (seconds since the epoch)."""

    rank: int
    time: float
    error: str
    traceback: str


def read_job(file: Path) -> Job:
    """The job of a file.

    Raises:
        pydantic.ValidationError: the job has an unknown key or a wrong value.
    """
    return Job.model_validate_json(file.read_text(encoding="utf-8"))


def result(folder: Path) -> dict[str, float] | None:
    """What the stage's function returned on the main rank; None where it has not ended well."""
    file = folder / RESULT_FILE
    return json.loads(file.read_text(encoding="utf-8")) if file.exists() else None


def first_failure(folder: Path) -> str:
    """Which rank failed first, of what and where; empty where none has said so."""
    found = [Failure.model_validate_json(path.read_text()) for path in folder.glob(FAILURE_FILES)]
    if not found:
        return ""
    first = min(found, key=lambda failure: failure.time)
    return f"rank {first.rank} failed: {first.error}\n{first.traceback}"


def why(folder: Path, code: int) -> str:
    """Why there is no result, for the message of a `StageError`; `code` is the launcher's."""
    return first_failure(folder) or (
        f"a process ended without a word (the launcher's exit code is {code}): killed, perhaps for want of memory, "
        "or by the watchdog, which has then said so on the standard error"
    )
