"""A trial of the registry: processes promote, roll back, publish and read at once, and are killed at random moments.

    python -m benchmarks.registry_kills            20 processes and 60 kill -9, on SQLite and on a tracking server

Every process does what the commands do, on a real registry of small packages. Readers go the way of `make enhance`:
what they see is compared with what the registry said just before and just after. At the end, with nobody else there,
single rollbacks are killed and given again until one says what it did: together they go back one champion, not more.
"""

import contextlib
import itertools
import json
import logging
import multiprocessing
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click
import mlflow

from benchmarks.trial_registry import make_registry, tracking_server
from components.champion import service
from components.champion.address import CHAMPION, MODEL, Asked, RegistrySilent, ask
from components.champion.copies import ChampionCopies, Copy
from components.command_line import PATH, Command, Number, Option, run
from components.models.package import PackageError, read_package
from pipelines.environment import ROOT, State
from pipelines.rollback import restore
from steps import registry_lock
from steps.champion import UNTOLD_TAG, ChampionChanged, NoWayBack, previous, promote_version, recover
from steps.publish import publish_champion
from steps.registry import champion_version

if TYPE_CHECKING:  # takes seconds to import, in each of the processes
    from benchmarks.main import BenchmarkRow

RESULT = ROOT / "reports" / "benchmarks" / "registry.json"
_STALE_SECONDS = 5.0
"""After which the lock of a killed process on the server is taken; in use two minutes, too long for a trial."""
_PATIENCE = 600.0
_REGISTRIES = ("sqlite", "server")


class Work(NamedTuple):
    """What a process works on."""

    uri: str
    state: Path
    log: Path
    versions: Sequence[str]


Role = Callable[[Work, int], Any]
"""One turn of a process, with a number that no other turn has."""


class Trial(NamedTuple):
    """What was seen.

    Attributes:
        kills: that hit a process at work.
        readings: by readers, of the champion in service.
        disagreeing: of those, how many were of another version than the registry's, before and after.
        failed: of those, how many found no champion, or a package that was not whole.
        warned: of those, how many were told that the registry did not answer, or had nothing whole to give.
        moves: how often the alias moved between the readings of one reader.
        interrupted: rollbacks that were killed and given again.
        twice: of those, how many went back more or less than one champion.
    """

    kills: int
    readings: int
    disagreeing: int
    failed: int
    warned: int
    moves: int
    interrupted: int
    twice: int


def run_trial(uri: str, state: Path, versions: Sequence[str], processes: int, kills: int, seed: int = 0) -> Trial:
    """Let ``processes`` processes work on the registry at ``uri`` until ``kills`` of them have been killed.

    Args:
        state: an empty state folder, which all of them share.
        versions: of the registry, as `make_registry` gives them.

    Raises:
        RuntimeError: a process ended by itself with an error.
    """
    moments = random.Random(seed)
    os.environ["MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"] = "false"
    mlflow.set_tracking_uri(uri)
    promote_version(versions[0], over=None)
    publish_champion(state)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["benchmarks.registry_kills"])
    (state / "seen").mkdir()
    count = 0

    def start(role: Role) -> tuple[BaseProcess, Path]:
        nonlocal count
        count += 1
        log = state / "seen" / f"{role.__name__}-{count}.jsonl"
        process = context.Process(target=_work, args=(role, Work(uri, state, log, versions), 1000 * count + seed))
        process.start()
        return process, log

    roles = [(_promote, _roll_back, _publish, _read, _read)[number % 5] for number in range(processes)]
    running = [(role, *start(role)) for role in roles]
    try:
        for kill in range(kills):
            number = moments.randrange(processes)
            role, process, log = running[number]
            _wait_for_work(process, log)
            if kill % 7 == 6:  # as in MLflow's pages, under no lock
                mlflow.MlflowClient().set_registered_model_alias(MODEL, CHAMPION, moments.choice(versions))
            time.sleep(moments.uniform(0, 0.3))
            process.kill()
            process.join()
            if process.exitcode != -signal.SIGKILL:
                raise RuntimeError(f"{role.__name__} ended by itself:\n{_last_words(log)}")
            running[number] = (role, *start(role))
    finally:
        for _, process, _ in running:
            process.kill()
            process.join()
    seen = [json.loads(line) for path in (state / "seen").glob("_read-*.jsonl") for line in _whole_lines(path)]
    interrupted, twice = _repeat_killed_rollbacks(state, versions, moments, max(2, kills // 5), start)
    return Trial(
        kills=kills,
        readings=len(seen),
        disagreeing=sum(found["agrees"] is False for found in seen),
        failed=sum(bool(found["failed"]) for found in seen),
        warned=sum(bool(found["said"]) for found in seen),
        moves=len({found["operation"] for found in seen}) - 1,
        interrupted=interrupted,
        twice=twice,
    )


def _work(role: Role, work: Work, seed: int) -> None:
    """The life of a process."""
    registry_lock.STALE_SECONDS = _STALE_SECONDS
    os.environ["MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"] = "false"
    mlflow.set_tracking_uri(work.uri)
    with work.log.with_suffix(".err").open("a") as errors:
        os.dup2(errors.fileno(), 2)
    if role is _roll_back_once:
        role(work, seed)
        return
    with work.log.open("a") as lines:
        for turn in itertools.count(seed):
            lines.write(json.dumps(role(work, turn)) + "\n")
            lines.flush()


def _promote(work: Work, turn: int) -> None:
    """Promote a version, as the step `promote` does, and publish it as the run does."""
    with contextlib.suppress(ChampionChanged, TimeoutError, ValueError):
        promote_version(random.Random(turn).choice(work.versions), over=champion_version())
    publish_champion(work.state)


def _roll_back(work: Work, turn: int) -> None:
    """Roll back, also to versions by name, which were taken down before."""
    with contextlib.suppress(NoWayBack, TimeoutError):
        restore(State(work.state), random.Random(turn).choice([None, *work.versions]), "trial", lambda said: None)


def _publish(work: Work, turn: int) -> None:
    """As `make champion` does."""
    publish_champion(work.state)


def _read(work: Work, turn: int) -> dict[str, Any]:
    """Read the champion as `make enhance` does; what was seen, and what was said of a registry that does not answer."""
    served, failed, said = "", "", []
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    service.log.addHandler(handler)
    before = _asked(work.uri)
    try:
        with service.champion(work.state, publish_champion) as folder:
            served = Copy.model_validate_json((folder.parent / "copy.json").read_text("utf-8")).version
            time.sleep(0.02)
            read_package(folder)
    except (OSError, PackageError, service.NoChampion) as error:
        failed = repr(error)
    finally:
        service.log.removeHandler(handler)
    after = _asked(work.uri)
    still = before is not None and after is not None and before[:1] + before[3:] == after[:1] + after[3:]
    agrees = served == before.version if before and still and not failed and not said else None
    return {"operation": after.operation if after else "", "agrees": agrees, "failed": failed, "said": said}


def _asked(uri: str) -> Asked | None:
    try:
        return ask(uri)
    except RegistrySilent:
        return None


def _roll_back_once(work: Work, turn: int) -> None:
    """The command `make rollback`."""
    restore(State(work.state), None, "trial", lambda said: work.log.write_text(said))


def _repeat_killed_rollbacks(
    state: Path,
    versions: Sequence[str],
    moments: random.Random,
    times: int,
    start: Callable[[Role], tuple[BaseProcess, Path]],
) -> tuple[int, int]:
    """Kill the command at a random moment, and give it again until it says what it did; how often, how often wrong."""
    wrong, seconds = 0, 1.0
    client = mlflow.MlflowClient()
    for turn in range(times + 1):
        promote_afresh(versions)
        publish_champion(state)
        # Of a command that was killed when it had said so, or of the trial's last one, which `promote_afresh` finished.
        client.delete_registered_model_tag(MODEL, UNTOLD_TAG)
        expected = previous(client, str(champion_version()))
        began = time.monotonic()
        process, said = start(_roll_back_once)
        if turn:
            process.join(moments.uniform(0, seconds))
            process.kill()
        process.join()
        seconds = seconds if turn else time.monotonic() - began
        if turn % 2:
            publish_champion(state)  # somebody else comes first, and finishes it
        for _ in range(3):
            if said.is_file():
                break
            process, said = start(_roll_back_once)
            process.join()
        else:
            raise RuntimeError(f"a rollback does not end well:\n{_last_words(said)}")
        present = ChampionCopies(state).present()
        wrong += not (champion_version() == expected and present is not None and present[0].version == expected)
    return times, wrong


def promote_afresh(versions: Sequence[str]) -> None:
    """Promote two versions after clearing the marks of all, so that there is a way back.

    What was interrupted is finished before, since that may mark a version, too.
    """
    champion = recover()
    client = mlflow.MlflowClient()
    for version in versions:
        for tag in client.get_model_version(MODEL, version).tags:
            if tag.startswith(CHAMPION):
                client.delete_model_version_tag(MODEL, version, tag)
    for version in [version for version in versions if version != champion][:2]:
        promote_version(version, over=champion_version())


def _last_words(log: Path) -> str:
    return log.with_suffix(".err").read_text("utf-8", "replace")[-2000:]


def _whole_lines(path: Path) -> list[str]:
    """A killed process may leave the last one cut."""
    return [line for line in path.read_text("utf-8").split("\n")[:-1] if line]


def _wait_for_work(process: BaseProcess, log: Path) -> None:
    """Until the process has done a turn."""
    deadline = time.monotonic() + _PATIENCE
    while process.is_alive() and not (log.is_file() and log.stat().st_size):
        if time.monotonic() > deadline:
            raise TimeoutError(f"a process did nothing in {_PATIENCE:.0f} s: see {log}")
        time.sleep(0.01)


def trial_rows(where: str, found: Trial) -> "list[BenchmarkRow]":
    """The figures of a trial."""
    from benchmarks.main import BenchmarkRow

    of = f"registry ({where}), {found.kills} kill -9"
    figures = (
        (f"{of}: readings of another version than the registry's", found.disagreeing, found.readings),
        (f"{of}: readings of no champion or a broken one", found.failed, found.readings),
        (f"registry ({where}): killed rollbacks that, repeated, did not go back one", found.twice, found.interrupted),
    )
    return [
        BenchmarkRow(name=name, value=bad, unit="of", peer=all_, ratio=bad / all_, target="0", ok=bad == 0)
        for name, bad, all_ in figures
    ]


_PARAMETERS: list[click.Parameter] = [
    Option(["--processes"], type=Number(int, 1), default=20, help="Number of processes at work at once."),
    Option(["--kills"], type=Number(int, 0), default=60, help="Number of kills in all, on each registry."),
    Option(
        ["--on", "registries"],
        multiple=True,
        type=click.Choice(_REGISTRIES),
        default=_REGISTRIES,
        help="Registry to try; repeatable.",
    ),
    Option(["--seed"], type=Number(int), default=0, help="Seed of the moments."),
    Option(["--out"], type=PATH, default=RESULT, help="File to write the rows to."),
]


@click.command(cls=Command, params=_PARAMETERS)
def main(processes: int, kills: int, registries: tuple[str, ...], seed: int, out: Path) -> int:
    """Try, print and write the figures; 1 where one is not met."""
    from rich.console import Console

    from benchmarks.main import publish

    os.environ.setdefault("PYTHONWARNINGS", "ignore::RuntimeWarning")  # each process imports this module twice
    rows = []
    for where in registries:
        folder = Path(tempfile.mkdtemp(prefix="spc-registry-"))
        (folder / "state").mkdir()
        with contextlib.ExitStack() as stack:
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
            sqlite = f"sqlite:///{folder / 'mlflow.db'}"
            uri = sqlite if where == "sqlite" else stack.enter_context(tracking_server(folder))
            versions = make_registry(uri, folder, 8)
            found = run_trial(uri, folder / "state", versions, processes, kills, seed)
            rows += trial_rows(where, found)
            print(f"{where}: {found}", flush=True)
    publish(rows, out, Console())
    return 0 if all(row.ok for row in rows) else 1


if __name__ == "__main__":
    sys.exit(run(main, program="python -m benchmarks.registry_kills"))
