"""What code a step's result depends on: its own file, every module of components/ it can reach, and the lock file.

ZenML's cache key knows the source of the step function only. A step here calls one component, so the files behind that
component belong to the key as well: editing the artist's loss trains the artist again, editing the report does not.
The modules are found by reading the import statements, also those inside functions; nothing is imported.
"""

import ast
import functools
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LIBRARY = "components"
LOCK = "requirements.lock"


def dependencies(step_file: Path, root: Path = ROOT) -> list[str]:
    """Files under ``root``, relative and sorted, on which the result of the step in ``step_file`` depends.

    These are the step's file, the transitive closure of ``components`` modules it imports with the ``__init__`` files
    of their packages and the data files (templates, tables) lying beside them, and the lock file, which stands for the
    third-party packages.

    Raises:
        SyntaxError: one of the files is not Python.
        FileNotFoundError: ``step_file`` or the lock file does not exist.
    """
    step_file = step_file.resolve()
    found = {step_file, root / LOCK}
    if missing := [path for path in sorted(found) if not path.is_file()]:
        raise FileNotFoundError(f"{missing[0]} does not exist: it is part of the cache key of {step_file.name}")
    waiting = [step_file]
    while waiting:
        for module in _imported_modules(waiting.pop(), root):
            for path in _files_of(module, root):
                if path not in found:
                    found.add(path)
                    if path.suffix == ".py":
                        waiting.append(path)
    return sorted(path.relative_to(root).as_posix() for path in found)


@functools.cache
def _imported_modules(path: Path, root: Path) -> tuple[str, ...]:
    """Dotted names of everything in the library that the file at ``path`` imports, names of objects included."""
    found: list[str] = []
    package = path.relative_to(root).parent.parts
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), filename=str(path))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            origin = ".".join([*above, *([node.module] if node.module else [])])
            names = [origin, *(f"{origin}.{alias.name}" for alias in node.names)]
        else:
            continue
        found += [name for name in names if name.split(".")[0] == LIBRARY]
    return tuple(found)


def _files_of(module: str, root: Path) -> Iterator[Path]:
    """The file of ``module`` (none if the name is an object in a module) and what its packages bring along."""
    parts = module.split(".")
    for depth in range(1, len(parts) + 1):
        location = root.joinpath(*parts[:depth])
        if location.is_dir():
            yield from (path for path in (location / "__init__.py",) if path.is_file())
            yield from (path for path in location.iterdir() if path.is_file() and path.suffix not in {".py", ".pyc"})
        elif (source := location.with_suffix(".py")).is_file():
            yield source
