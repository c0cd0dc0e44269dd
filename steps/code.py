"""What code a step's result depends on: its own file, every module of components/ it can reach, and the lock file.

ZenML's cache key knows the source of the step function only. A step here calls one component, so the files behind that
component belong to the key as well: editing the artist's loss trains the artist again, editing the report does not.
The modules are found by reading the import statements, also those inside functions; nothing is imported. A module may
look another up by name only where it can be seen which it may be: `import_module(f"{__package__}.{name}")` is any
module beside it.

    smartphotocrafter dependencies [STEP]     how many files each step depends on, or which
"""

import ast
import functools
from collections.abc import Iterator
from pathlib import Path

from components.checkout import checkout

ROOT = checkout()
LIBRARY = "components"
LOCK = "requirements.lock"
WITHOUT_EFFECT = frozenset(
    {
        # writes files whole or not at all, whatever is in them
        "components.files",
        # keeps what a killed stage goes on from, to the bit
        "components.training.checkpoints",
        # start the processes of a stage and carry back what they report
        "components.training.launch",
        "components.training.nodes",
        "components.training.job",
        "components.training.events",
        "components.training.tracker",
        # measure how fast it is
        "components.training.passes",
        "components.training.throughput",
        "components.models.flops",
        # end it when it stands still or diverges
        "components.training.observer",
        "components.training.watchdog",
        "components.training.divergence",
    }
)
"""Modules that no result depends on: without them a stage learns the same to the bit (docs/explanation/training.md)."""


def dependencies(step_file: Path, root: Path = ROOT) -> list[str]:
    """Files under ``root``, relative and sorted, on which the result of the step in ``step_file`` depends.

    These are the step's file, the transitive closure of ``components`` modules it imports, with the data files
    (templates, tables) that they name and the ``__init__`` files of their packages, unless those do nothing, and the
    lock file, which stands for the third-party packages. `WITHOUT_EFFECT` is left out.

    Raises:
        SyntaxError: one of the files is not Python.
        FileNotFoundError: ``step_file`` or the lock file does not exist.
        ValueError: a module imports another by a name that cannot be told from its text.
    """
    step_file = step_file.resolve()
    found = {step_file, root / LOCK}
    if missing := [path for path in sorted(found) if not path.is_file()]:
        raise FileNotFoundError(f"{missing[0]} does not exist: it is part of the cache key of {step_file.name}")
    waiting = [step_file]
    while waiting:
        module_file = waiting.pop()
        found.update(data_files(module_file))
        for module in _imported_modules(module_file, root):
            for path in _files_of(module, root):
                if path not in found:
                    found.add(path)
                    waiting.append(path)
    return sorted(path.relative_to(root).as_posix() for path in found if not _does_nothing(path))


@functools.cache
def data_files(module_file: Path) -> frozenset[Path]:
    """Files that are no Python and belong to a module: those beside it that it names, by their name or their folder's.

    What one of them names of the others, as a template does that includes another, belongs to it as well.
    """
    beside = {path.name: path for path in module_file.parent.iterdir() if _holds_data(path)}
    named = {node.value for node in ast.walk(_tree(module_file)) if isinstance(node, ast.Constant)}
    waiting = [beside[name] for name in beside.keys() & named]
    found: set[Path] = set()
    while waiting:
        path = waiting.pop()
        if path.is_dir():
            found.update(inner for inner in path.rglob("*") if inner.is_file())
        elif path not in found:
            found.add(path)
            content = path.read_bytes()
            waiting += [other for name, other in beside.items() if name.encode() in content]
    return frozenset(found)


def _holds_data(path: Path) -> bool:
    if path.is_dir():
        return path.name != "__pycache__" and not any(path.rglob("*.py"))
    return path.suffix not in {".py", ".pyc"}


@functools.cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


@functools.cache
def _does_nothing(path: Path) -> bool:
    """Whether a file is the ``__init__`` of a package and holds nothing but words."""
    if path.name != "__init__.py":
        return False
    return all(isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) for node in _tree(path).body)


@functools.cache
def _imported_modules(path: Path, root: Path) -> tuple[str, ...]:
    """Dotted names of everything in the library that the file at ``path`` imports, names of objects included."""
    found: list[str] = []
    package = path.relative_to(root).parent.parts
    for node in ast.walk(_tree(path)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            origin = ".".join([*above, *([node.module] if node.module else [])])
            names = [origin, *(f"{origin}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Call) and _called(node) in ("import_module", "__import__"):
            names = _found_by_name(node, path, root)
        else:
            continue
        found += [name for name in names if name.split(".")[0] == LIBRARY]
    return tuple(found)


def _called(node: ast.Call) -> str:
    return str(getattr(node.func, "attr", None) or getattr(node.func, "id", ""))


def _found_by_name(call: ast.Call, path: Path, root: Path) -> list[str]:
    """Modules that a call of `import_module` may import, as far as its text tells."""
    argument = call.args[0] if call.args else None
    parts = argument.values if isinstance(argument, ast.JoinedStr) else [argument]
    first = parts[0] if parts else None
    if isinstance(first, ast.Constant) and isinstance(first.value, str):
        whole, begins = len(parts) == 1, first.value.split(".")[0]
        if whole or ("." in first.value and begins != LIBRARY):
            return [first.value]
    package = ".".join(path.relative_to(root).parent.parts)
    if isinstance(first, ast.FormattedValue) and getattr(first.value, "id", "") == "__package__":
        return [f"{package}.{beside.stem}" for beside in sorted(path.parent.glob("*.py"))]
    raise ValueError(
        f"{path.relative_to(root).as_posix()}, line {call.lineno}: import_module of a name that cannot be told from "
        "the text, so that no cache key can hold it: import by a statement, or what is beside by "
        'import_module(f"{__package__}.{name}")'
    )


def _files_of(module: str, root: Path) -> Iterator[Path]:
    """The file of ``module`` (none if the name is an object in a module) and the ``__init__`` files of its packages."""
    parts = module.split(".")
    for depth in range(1, len(parts) + 1):
        location = root.joinpath(*parts[:depth])
        if location.is_dir():
            yield from (path for path in (location / "__init__.py",) if path.is_file())
        elif ".".join(parts[:depth]) not in WITHOUT_EFFECT and (source := location.with_suffix(".py")).is_file():
            yield source


def step_files(root: Path = ROOT) -> list[Path]:
    """The files of the steps that have such a cache key, by name."""
    return [
        path
        for path in sorted((root / "steps").glob("*.py"))
        if any(_decorator(node) in ("stage", "preparation") for node in ast.walk(_tree(path)))
    ]


def _decorator(node: ast.AST) -> str:
    decorators = getattr(node, "decorator_list", [])
    return next((getattr(one, "id", "") for one in decorators), "")
