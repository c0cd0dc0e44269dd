"""One retraining: the newest data, nothing if nothing changed, the run in a process of its own, an alert if it fails.

The run is a child process, so that a crash or a kill by the system is a failed retraining like any other, and the alert
is still raised. Only the gate moves the champion, so that a failed retraining leaves it as it was.
"""

import hashlib
import json
import logging
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from pydantic import ValidationError

from components.data.versioning import DATA_FILE, data_revision, dvc_checkout
from components.files import write_text
from components.strict import Strict
from pipelines.alerts import alert
from pipelines.environment import ROOT, State
from pipelines.lock import BusyError, handed_to_child, only_pipeline

log = logging.getLogger(__name__)

_CODE = ("components", "steps", "pipelines")
_LAST_LINES = 20


class Inputs(Strict):
    """Everything that a trained model depends on."""

    data: str
    """DVC revision of data/."""
    code: str
    """Digest of the sources and of requirements.lock."""
    configuration: str
    """Digest of the checked settings."""


class LastRun(Strict):
    """The last training or retraining that completed on a stack."""

    inputs: Inputs
    finished: str


class Retrained(NamedTuple):
    """How a retraining ended."""

    code: int
    """Exit code: 0 for a run that completed or was not needed."""
    message: str


def current_inputs(settings: Any, root: Path = ROOT) -> Inputs:
    """What a run that starts now would depend on.

    Raises:
        components.data.versioning.DataUnavailable: data.dvc is missing or damaged.
    """
    code = hashlib.sha256()
    for path in [*sorted(file for name in _CODE for file in (root / name).rglob("*.py")), root / "requirements.lock"]:
        code.update(f"{path.relative_to(root)}\0".encode() + path.read_bytes() + b"\0")
    configuration = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    return Inputs(data=data_revision(root), code=code.hexdigest(), configuration=configuration.hexdigest())


def remember(inputs: Inputs, stack: str, state: State) -> None:
    """Keep what a completed run depended on, for :func:`changes` of the next."""
    last = LastRun(inputs=inputs, finished=f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC")
    write_text(_record(stack, state), last.model_dump_json(indent=2))


def changes(inputs: Inputs, stack: str, state: State) -> list[str] | None:
    """Which of data, code and configuration changed since the last completed run; None if there was none."""
    last = last_run(stack, state)
    if last is None:
        return None
    return [name for name in Inputs.model_fields if getattr(inputs, name) != getattr(last.inputs, name)]


def last_run(stack: str, state: State) -> LastRun | None:
    """The record of the last completed run; a damaged one counts as none, so that the next run is not lost."""
    path = _record(stack, state)
    if not path.is_file():
        return None
    try:
        return LastRun.model_validate_json(path.read_text(encoding="utf-8"))
    except ValidationError:
        log.warning("%s is damaged and ignored: this retraining runs whether or not anything changed", path)
        return None


def fetch_newest_data(root: Path = ROOT) -> str:
    """Take data.dvc from the upstream branch if it is newer there, and bring the files of its revision to data/.

    Only data.dvc is taken, so that a retraining never changes the code under a process that is running it. A data.dvc
    that was edited here stays.

    Returns:
        what was done, in words.

    Raises:
        components.data.versioning.DataUnavailable: the files cannot be fetched.
    """
    done = _take_upstream_pointer(root)
    revision = dvc_checkout(root)
    return f"{done}; data revision {revision}"


def retrain(
    settings: Any, arguments: Sequence[str], stack: str, state: State, force: bool = False, root: Path = ROOT
) -> Retrained:
    """Retrain once if anything changed, or if ``force`` says so.

    Args:
        settings: the checked configuration as plain data.
        arguments: of `smartphotocrafter run`, which does the work.

    The lock of the pipelines is held for all of it, and handed to the run, so that nobody's data changes under their
    feet. Nothing is done, and nobody alerted, while a pipeline runs, be it another retraining: the next retraining
    finds what this one would have found.
    """
    try:
        with only_pipeline(state):
            return _retrain(settings, arguments, stack, state, force, root)
    except BusyError as busy:
        return Retrained(0, f"Nothing done: {busy}. The next retraining takes what is new.")


def _retrain(settings: Any, arguments: Sequence[str], stack: str, state: State, force: bool, root: Path) -> Retrained:
    try:
        log.info("%s", fetch_newest_data(root))
        inputs = current_inputs(settings, root)
    except (RuntimeError, OSError) as error:
        return _failed(f"the data could not be fetched: {error}", state)
    changed = changes(inputs, stack, state)
    if changed == [] and not force:
        last = last_run(stack, state)
        assert last is not None
        return Retrained(
            0, f"Nothing to do: data, code and configuration are those of the run that finished {last.finished}."
        )
    log.info("Retraining: %s", "there is no earlier run" if changed is None else f"changed: {', '.join(changed)}")
    # Unbuffered: what a run that is killed said last would be lost otherwise.
    command = [sys.executable, "-u", "-m", "pipelines", "run", "--from-champion", *arguments]
    tail: list[str] = []
    environment, lock = handed_to_child(state)
    with subprocess.Popen(
        command,
        cwd=root,
        env=environment,
        pass_fds=lock,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as child:
        assert child.stdout is not None
        for line in child.stdout:
            print(line, end="", flush=True)
            tail = [*tail, line][-_LAST_LINES:]
    if child.returncode != 0:
        code = child.returncode
        ended = f"ended with code {code}" if code > 0 else f"was killed by signal {-code}"
        return _failed(f"the run {ended}. Its last lines:\n{''.join(tail)}", state)
    return Retrained(0, "Retraining complete.")


def _failed(why: str, state: State) -> Retrained:
    alert("SmartPhotoCrafter: retraining failed, the champion stays in service", why, state.folder)
    return Retrained(1, f"Retraining failed, the champion stays in service: {why}")


def _record(stack: str, state: State) -> Path:
    return state.folder / f"last-run-{stack}.json"


def _take_upstream_pointer(root: Path) -> str:
    """Replace data.dvc by the upstream branch's where only that one changed since the branches parted."""
    upstream = _git(root, "rev-parse", "--abbrev-ref", "--symbolic-full-name", "@{upstream}")
    if upstream is None:
        return "no upstream branch to look for newer data on"
    if _git(root, "fetch", "--quiet") is None:
        return f"{upstream} could not be fetched, going on with the data at hand"
    base = _git(root, "merge-base", "HEAD", upstream)
    theirs, common = (_git(root, "show", f"{commit}:{DATA_FILE}") for commit in (upstream, base))
    ours = (root / DATA_FILE).read_text(encoding="utf-8").strip()
    if theirs is None or theirs == ours:
        return f"{upstream} has no newer data"
    if ours != common:
        return f"{DATA_FILE} was changed here, so that of {upstream} is not taken"
    try:
        yaml.safe_load(theirs)["outs"][0]["md5"]
    except (yaml.YAMLError, KeyError, IndexError, TypeError):
        return f"{DATA_FILE} of {upstream} is damaged and not taken"
    write_text(root / DATA_FILE, theirs + "\n")
    return f"newer data taken from {upstream}"


def _git(root: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, timeout=120, check=False)
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
