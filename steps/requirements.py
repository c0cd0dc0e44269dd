"""Which installed packages code needs: the environment of a registered model, and the content of the lock files.

A registered model is loaded by people who install its environment to enhance photos, so that it holds what
steps/serving.py and the modules it reaches import, and neither ZenML nor what only tests use.
"""

import ast
import importlib.metadata
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from packaging.requirements import Requirement

from steps.code import LIBRARY, LOCK, dependencies

NEVER_IMPORTED = {"pyiqa": {"pre-commit", "pytest", "ruff", "yapf"}}
"""Tools of its authors that a package asks for and no module of it imports. The lock files leave them out, so they are
installed with ``--no-deps``."""
_NOT_SEEN = ("torchvision",)
"""What no import statement shows: Transformers reads pictures for the Critic by it."""


def normalised(name: str) -> str:
    """A distribution's name as packaging compares it: ``Pillow_HEIF`` is ``pillow-heif``."""
    return re.sub(r"[-_.]+", "-", name).lower()


def requested(file: Path) -> list[Requirement]:
    """The requirements of a .in file, without those of the file that it includes."""
    lines = (line.split("#")[0].strip() for line in file.read_text(encoding="utf-8").splitlines())
    return [Requirement(line) for line in lines if line and not line.startswith("-")]


def closure(requirements: Iterable[Requirement]) -> set[str]:
    """Normalised names of the distributions that the requirements need on this machine, themselves included.

    Raises:
        importlib.metadata.PackageNotFoundError: one of them is not installed.
    """
    waiting = list(requirements)
    seen: set[tuple[str, frozenset[str]]] = set()
    while waiting:
        requirement = waiting.pop()
        name, extras = normalised(requirement.name), frozenset(requirement.extras)
        if (name, extras) in seen:
            continue
        seen.add((name, extras))
        for line in importlib.metadata.requires(name) or []:
            needed = Requirement(line)
            unwanted = normalised(needed.name) in NEVER_IMPORTED.get(name, ())
            marker = needed.marker
            if not unwanted and (marker is None or any(marker.evaluate({"extra": extra}) for extra in ("", *extras))):
                waiting.append(needed)
    return {name for name, _ in seen}


def imported_modules(files: Iterable[Path]) -> dict[str, Path]:
    """Top-level modules that the files import, inside functions too, with a file that does; no standard library."""
    found = {name: file for file in files for name in _imports(file)}
    return {name: file for name, file in found.items() if name not in sys.stdlib_module_names}


def environment(file: Path, root: Path) -> list[str]:
    """The lines of the lock that the code in ``file``, and whatever it reaches in components/, needs.

    Args:
        file: a module of the repository.
        root: the repository.

    Raises:
        ValueError: a package that is needed is not in the lock.
    """
    reached = [root / name for name in dependencies(file, root) if name.endswith(".py")]
    owners = importlib.metadata.packages_distributions()
    names = {owner for module in imported_modules(reached).keys() - {LIBRARY} for owner in owners.get(module, ())}
    wanted = closure(Requirement(name) for name in (*names, *_NOT_SEEN))
    lines = [line for line in (root / LOCK).read_text(encoding="utf-8").splitlines() if line and line[0] != "#"]
    pins = {normalised(line.split("==")[0]): line for line in lines}
    if missing := wanted - pins.keys():
        raise ValueError(f"{LOCK} pins no {', '.join(sorted(missing))}, which {file.name} needs: run `make lock`")
    return [pins[name] for name in sorted(wanted)]


def _imports(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.split(".")[0]
