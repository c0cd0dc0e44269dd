"""A trial of the registry: processes promote, roll back, publish and read at once, and are killed at random moments.

    python -m benchmarks.registry_kills            20 processes and 60 kill -9, on SQLite and on a tracking server

Every process does what the commands do, on a real registry of small packages. Readers go the way of `make enhance`:
what they see is compared with what the registry said just before and just after. At the end, with nobody else there,
single rollbacks are killed and given again until one ends by itself: together they go back one champion, not more.
"""

import argparse
import contextlib
import itertools
import json
import multiprocessing
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import mlflow

from components.champion import service
from components.champion.address import CHAMPION, MODEL, ask
from components.champion.copies import ChampionCopies, Copy
from components.models.package import PackageError, Provenance, read_package, write_package
from pipelines.environment import ROOT, State
from pipelines.rollback import restore
from steps import registry_lock
from steps.champion import UNTOLD_TAG, ChampionChanged, NoWayBack, previous, promote_version, settle
from steps.publish import publish_champion
from steps.registry import champion_version

if TYPE_CHECKING:  # takes seconds to import, in each of the processes
    from benchmarks.main import BenchmarkRow

RESULT = ROOT / "reports" / "benchmarks" / "registry.json"
_STALE_SECONDS = 5.0
"""After which the lock of a killed process on the server is taken; in use two minutes, too long for a trial."""
_PATIENCE = 600.0


Role = Callable[[str, Path, int, Sequence[str]], Any]
"""One turn of a process: URI of the registry, state folder, number of the turn, versions."""


class Trial(NamedTuple):
    """What was seen.

    Attributes:
        kills: that hit a process at work.
        readings: by readers, of the champion in service.
        disagreeing: of those, how many were of another version than the registry's, before and after.
        failed: of those, how many found no champion, or a package that was not whole.
        moves: how often the alias moved between the readings of one reader.
        interrupted: rollbacks that were killed and given again.
        twice: of those, how many went back more or less than one champion.
    """

    kills: int
    readings: int
    disagreeing: int
    failed: int
    moves: int
    interrupted: int
    twice: int


def make_registry(uri: str, folder: Path, count: int, weight_bytes: int = 20_000) -> list[str]:
    """Register ``count`` versions with small packages of their own in the registry at ``uri``, which is new."""
    client = mlflow.MlflowClient(uri)
    location = None if uri.startswith("http") else f"file:{folder / 'artifacts'}"
    run = client.create_run(client.create_experiment("trial", location))
    client.create_registered_model(MODEL)
    for number in range(1, count + 1):
        sources = folder / "sources" / str(number)
        for part in ("base/critic", "base/artist", "critic", "artist"):
            (sources / part).mkdir(parents=True)
            (sources / part / "weights.safetensors").write_bytes(f"{part} {number} ".encode() * (weight_bytes // 16))
        provenance = Provenance(data_revision="d", code_revision="c", pipeline_run="r")
        out = sources / "artifacts" / "package"
        write_package(out, sources / "base", sources / "critic", sources / "artist", provenance, "# Card")
        client.log_artifacts(run.info.run_id, str(out.parent), f"{number}/artifacts")
        shutil.rmtree(sources)
        client.create_model_version(MODEL, source=f"{run.info.artifact_uri}/{number}", run_id=run.info.run_id)
    return [str(number) for number in range(1, count + 1)]


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
        process = context.Process(target=_work, args=(role, uri, state, log, 1000 * count + seed, versions))
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
                raise RuntimeError(f"{role.__name__} ended by itself: see {log.with_suffix('.err')}")
            running[number] = (role, *start(role))
    finally:
        for _, process, _ in running:
            process.kill()
            process.join()
    seen = [json.loads(line) for path in (state / "seen").glob("_read-*") for line in _whole_lines(path)]
    interrupted, twice = _repeat_killed_rollbacks(state, versions, moments, max(2, kills // 5), start)
    return Trial(
        kills=kills,
        readings=len(seen),
        disagreeing=sum(found["agrees"] is False for found in seen),
        failed=sum(bool(found["failed"]) for found in seen),
        moves=len({found["operation"] for found in seen}) - 1,
        interrupted=interrupted,
        twice=twice,
    )


def _work(
    role: Role,
    uri: str,
    state: Path,
    log: Path,
    seed: int,
    versions: Sequence[str],
) -> None:
    """The life of a process."""
    os.environ["SPC_STATE"] = str(state)
    registry_lock.STALE_SECONDS = _STALE_SECONDS
    mlflow.set_tracking_uri(uri)
    os.environ["MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"] = "false"
    with log.with_suffix(".err").open("a") as errors:
        os.dup2(errors.fileno(), 2)
    if role is _roll_back_once:
        role(uri, state, seed, versions)
        return
    with log.open("a") as lines:
        for turn in itertools.count(seed):
            lines.write(json.dumps(role(uri, state, turn, versions)) + "\n")
            lines.flush()


def _promote(uri: str, state: Path, turn: int, versions: Sequence[str]) -> None:
    """Promote a version, as the step `promote` does, and publish it as the run does."""
    with contextlib.suppress(ChampionChanged, ValueError):
        promote_version(random.Random(turn).choice(versions), over=champion_version())
    publish_champion(state)


def _roll_back(uri: str, state: Path, turn: int, versions: Sequence[str]) -> None:
    """Roll back, also to versions by name, which were taken down before."""
    with contextlib.suppress(NoWayBack):
        restore(State(state), random.Random(turn).choice([None, *versions]), "trial", lambda said: None)


def _publish(uri: str, state: Path, turn: int, versions: Sequence[str]) -> None:
    """As `make champion` does."""
    publish_champion(state)


def _read(uri: str, state: Path, turn: int, versions: Sequence[str]) -> dict[str, Any]:
    """Read the champion as `make enhance` does; what was seen."""
    before, served, failed = ask(uri), "", ""
    try:
        with service.champion(state, publish_champion) as folder:
            served = Copy.model_validate_json((folder.parent / "copy.json").read_text("utf-8")).version
            time.sleep(0.02)
            read_package(folder)
    except (OSError, PackageError, service.NoChampion) as error:
        failed = repr(error)
    after = ask(uri)
    still = (before.version, before.operation) == (after.version, after.operation)
    agrees = served == before.version if still and not failed else None
    return {"operation": after.operation, "agrees": agrees, "failed": failed, "asked": before.version, "served": served}


def _roll_back_once(uri: str, state: Path, turn: int, versions: Sequence[str]) -> None:
    """The command `make rollback`."""
    restore(State(state), None, "trial", lambda said: None)


def _repeat_killed_rollbacks(
    state: Path,
    versions: Sequence[str],
    moments: random.Random,
    times: int,
    start: Callable[[Role], tuple[BaseProcess, Path]],
) -> tuple[int, int]:
    """Kill the command at a random moment and give it again until it ends by itself; how often, how often wrong."""
    wrong, seconds = 0, 1.0
    client = mlflow.MlflowClient()
    client.delete_registered_model_tag(MODEL, UNTOLD_TAG)  # of the processes that were killed at the end
    for turn in range(times + 1):
        promote_afresh(versions)
        publish_champion(state)
        expected = previous(client, str(champion_version()))
        began = time.monotonic()
        process, _ = start(_roll_back_once)
        if turn:
            process.join(moments.uniform(0, seconds))
            process.kill()
        process.join()
        seconds = seconds if turn else time.monotonic() - began
        if turn % 2:
            publish_champion(state)  # somebody else comes first, and finishes it
        for _ in range(3):
            if process.exitcode == 0:
                break
            process, log = start(_roll_back_once)
            process.join()
        else:
            raise RuntimeError(f"a rollback does not end well: see {log.with_suffix('.err')}")
        present = ChampionCopies(state).present()
        wrong += not (champion_version() == expected and present is not None and present[0].version == expected)
    return times, wrong


def promote_afresh(versions: Sequence[str]) -> None:
    """Promote two versions after clearing the marks of all, so that there is a way back."""
    client = mlflow.MlflowClient()
    for version in versions:
        for tag in client.get_model_version(MODEL, version).tags:
            if tag.startswith(CHAMPION):
                client.delete_model_version_tag(MODEL, version, tag)
    champion = settle()
    for version in [version for version in versions if version != champion][:2]:
        promote_version(version, over=champion_version())


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


@contextlib.contextmanager
def tracking_server(folder: Path) -> Iterator[str]:
    """MLflow's server on a free port of this machine, which keeps everything in ``folder``; its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    storage = [
        "--backend-store-uri",
        f"sqlite:///{folder / 'server.db'}",
        "--artifacts-destination",
        str(folder / "kept"),
    ]
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    with (folder / "server.log").open("w") as log:
        process = subprocess.Popen([*command, *storage], stdout=log, stderr=log, start_new_session=True)
    try:
        deadline = time.monotonic() + _PATIENCE
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                break
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"MLflow's server does not start: see {folder / 'server.log'}")
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=20)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def trial_rows(where: str, found: Trial) -> "list[BenchmarkRow]":
    """The figures of a trial."""
    from benchmarks.main import BenchmarkRow

    of = f"registry on {where}, {found.kills} kill -9"
    figures = (
        (f"{of}: readings of another version than the registry's", found.disagreeing, found.readings),
        (f"{of}: readings of no champion or a broken one", found.failed, found.readings),
        (f"registry on {where}: killed rollbacks that, repeated, did not go back one", found.twice, found.interrupted),
    )
    return [
        BenchmarkRow(name=name, value=bad, unit="of", peer=all_, ratio=bad / all_, target="0", ok=bad == 0)
        for name, bad, all_ in figures
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Try, print and write the figures; 1 where one is not met."""
    from rich.console import Console

    from benchmarks.main import publish

    parser = argparse.ArgumentParser(prog="python -m benchmarks.registry_kills", description=__doc__)
    parser.add_argument("--processes", type=int, default=20, help="at work at once (default: %(default)s)")
    parser.add_argument("--kills", type=int, default=60, help="in all, on each registry (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=RESULT, help="file to write (default: %(default)s)")
    options = parser.parse_args(arguments)
    os.environ.setdefault("PYTHONWARNINGS", "ignore::RuntimeWarning")  # each process imports this module twice
    rows = []
    for where in ("SQLite", "a server"):
        folder = Path(tempfile.mkdtemp(prefix="spc-registry-"))
        (folder / "state").mkdir()
        with contextlib.ExitStack() as stack:
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
            sqlite = f"sqlite:///{folder / 'mlflow.db'}"
            uri = sqlite if where == "SQLite" else stack.enter_context(tracking_server(folder))
            versions = make_registry(uri, folder, 8)
            found = run_trial(uri, folder / "state", versions, options.processes, options.kills, options.seed)
            rows += trial_rows(where, found)
            print(f"{where}: the alias was seen to move {found.moves} times")
    publish(rows, options.out, Console())
    return 0 if all(row.ok for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
