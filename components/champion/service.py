"""The champion in service: the copy in the state folder, after it was made to follow the registry.

`make enhance`, `serve` and `demo` begin here. Asking the registry costs milliseconds; only where the copy has to
change is MLflow called, in a process of its own.
"""

import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from components.champion.address import SQLITE, RegistrySilent, ask
from components.champion.copies import ChampionCopies, held
from components.checkout import checkout

log = logging.getLogger(__name__)

REPAIR = "; `make champion` copies it from the registry again"
_RECOVERY_SECONDS = 600.0


class NoChampion(RuntimeError):  # noqa: N818 (reads as a sentence where it is caught)
    """There is no champion yet; the message says how to get one."""


def state_folder() -> Path:
    """``$SPC_STATE``, or ``.spc`` of the repository.

    Raises:
        components.checkout.NoCheckoutError: there is neither.
    """
    return Path(os.environ.get("SPC_STATE") or checkout() / ".spc").resolve()


@contextmanager
def champion(state: Path, follow: Callable[[Path, str], None] | None = None) -> Iterator[Path]:
    """The folder of the champion's package; it stays there, whole, while the context lasts.

    It is the version that the registry calls champion at the time, however the alias came to point there. Where that
    one cannot be had, because the registry is silent, the version is damaged or somebody deleted it, the champion in
    service stays in service and a warning says so.

    Args:
        follow: publishes the champion of the stack of that name in that state folder, and finishes what a killed
            process began; by default by `smartphotocrafter champion`.

    Raises:
        NoChampion: nothing has been promoted yet.
    """
    copies = ChampionCopies(state)
    registry, stack = _registry(copies)
    if registry:
        _follow(copies, registry, stack, follow or follow_by_mlflow)
    with held(copies.link) as folder:
        if not folder.is_dir():
            raise NoChampion(
                f"there is no champion yet (looked in {copies.link}): run `make pipeline`, or name a package"
            )
        yield folder


def follow_by_mlflow(state: Path, stack: str) -> None:
    """Publish the champion through MLflow.

    Raises:
        RuntimeError: it could not be published; the message says why.
    """
    words = ["champion", "--stack", stack]
    environment = os.environ | {"SPC_STATE": str(state)}
    try:
        done = subprocess.run(
            [sys.executable, "-m", "pipelines", *words],
            cwd=checkout(),
            env=environment,
            capture_output=True,
            text=True,
            timeout=_RECOVERY_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise RuntimeError(f"`smartphotocrafter {' '.join(words)}` did not end in {_RECOVERY_SECONDS:.0f} s") from error
    if done.returncode != 0:
        said = (done.stderr.strip() or done.stdout.strip()).splitlines()
        raise RuntimeError(said[-1] if said else f"`smartphotocrafter {' '.join(words)}` ended with {done.returncode}")


def _registry(copies: ChampionCopies) -> tuple[str, str]:
    """URI and stack of the registry that the champion in service came from, or that of the state folder; or neither."""
    if present := copies.present():
        return present[0].registry, present[0].stack
    database = copies.state / "artifacts" / "mlflow.db"
    unknown = Path(os.path.realpath(copies.link)).is_relative_to(os.path.realpath(copies.folder))
    return (f"{SQLITE}{database}", "local") if database.is_file() and not unknown else ("", "")


def _follow(copies: ChampionCopies, registry: str, stack: str, follow: Callable[[Path, str], None]) -> None:
    """Have the copy in service be that of the registry's champion, or say why it is not."""
    try:
        asked = ask(registry)
    except RegistrySilent as silent:
        if registry.startswith((SQLITE, "http")):
            _warn(copies, f"{silent}; whether there is a new champion is not known")
            return
        asked = None
    if asked is not None and asked.consistent:
        present = copies.present()
        if asked.version is None:
            if present:
                _warn(
                    copies,
                    "the registry has no champion any more, its version or the alias was deleted there; "
                    "`make rollback TO=` with the number of a version makes that one champion",
                )
            return
        if present and (present[0].version, present[0].identity) == (asked.version, asked.identity):
            return
    try:
        follow(copies.state, stack)
    except (RuntimeError, OSError, ValueError) as error:
        _warn(copies, f"the champion of the registry could not be taken into service: {error}")


def _warn(copies: ChampionCopies, why: str) -> None:
    """Say what stands in the way, and what goes on being served."""
    if present := copies.present():
        log.warning("%s. Going on with version %s, as it was published here", why, present[0].version)
    else:
        log.warning("%s", why)
