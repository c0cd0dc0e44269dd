"""A quick start and end for a command that uses little of large libraries: no more of them is imported than it needs.

`import diffusers` and `import transformers` run the initialisers of packages that import hundreds of modules, of which
Critic and Artist need a few. Here such an initialiser runs when something is asked of its package, as
`importlib.util.LazyLoader` has it for a single module; the package's submodules can be imported before that. Nothing is
taken from a library: whatever is asked of a package that was put off is there, only later. Two things are weaker:

- `torch._dynamo`: the marks that libraries put on functions for `torch.compile`, which nothing here calls, are not kept
  until its initialiser has run (`PLACEHOLDERS`).
- diffusers reads the records of all installed distributions to look up three that are not installed: the mapping that
  it gets is made when something is looked up in it. It does not see PEFT, and so cannot load adapters itself, which is
  done by `components.models.lora` here.

A package that a later release no longer has is no error, and makes the start slower; `tests/test_quick_start.py` tells.

Besides, garbage is seldom looked for until all is loaded, since what imports make stays anyway, and the process ends
without taking every module apart again, which takes a second and 100 MB.
"""

import atexit
import contextlib
import gc
import importlib
import os
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import find_spec
from types import ModuleType
from typing import Any

PUT_OFF = frozenset(
    {
        "accelerate.commands.config",
        "bitsandbytes",
        "diffusers.models.autoencoders",
        "diffusers.models.transformers",
        "diffusers.models.unets",
        "requests",
        "scipy.integrate",
        "scipy.optimize",
        "scipy.stats",
        "torch._dynamo",
        "torchvision.datasets",
        "torchvision.models",
        "torchvision.ops",
        "transformers",
        "transformers.models",
    }
)
"""Packages whose initialisers wait until something is asked of them."""
PARTED = frozenset({"transformers", "transformers.models"})
"""Those whose submodules count as attributes before that: no initialiser may give such a name to something else."""
ALONE = {"torch._dynamo": ("_trace_wrapped_higher_order_op",)}
"""The only submodules that need no initialiser, where not all do without it: before any other is imported, it runs."""
READER = "diffusers.utils.import_utils"
"""The module in which diffusers looks what else is installed."""
HIDDEN = ("peft",)
"""What diffusers does not find there."""


def _dynamo() -> dict[str, Any]:
    import torch.compiler

    marks = dict.fromkeys(("allow_in_graph", "assume_constant_result", "disable"), _unmarked)
    return {**marks, "is_compiling": torch.compiler.is_compiling}


def _assign(*arguments: Any, **options: Any) -> Any:
    """`scipy.optimize.linear_sum_assignment`, imported when it is called."""
    optimize = sys.modules["scipy.optimize"]
    assert isinstance(optimize, PutOff)
    optimize.initialise()
    return optimize.linear_sum_assignment(*arguments, **options)


def _version(distribution: str) -> str:
    from importlib.metadata import version  # takes longer to import than all the rest here

    return version(distribution)


def _unmarked(function: Any = None, *_: Any, **__: Any) -> Any:
    """A decorator, with arguments or without, that leaves a function as it is."""
    return _unmarked if function is None else function


PLACEHOLDERS: dict[str, Callable[[], dict[str, Any]]] = {
    "scipy.optimize": lambda: {"linear_sum_assignment": _assign},
    "torch._dynamo": _dynamo,
    "transformers": lambda: {"__version__": _version("transformers")},
}
"""What some of the packages have before their initialisers give it to them, by the packages' names."""
_alone = False
_begun: set[str] = set()
_lock = threading.RLock()
_status: list[int] = []
_USUAL = gc.get_threshold()
_SELDOM = 200_000  # new objects between two looks; all imports together make about a million


def own_process() -> None:
    """Say that this process is a command's alone, so that it may start and end quickly.

    Once in a process, and before it imports what may register for its end.
    """
    global _alone
    _alone = True
    atexit.register(_leave)  # before anything else is, so that it is called last


def begin(in_parts: bool = True) -> None:
    """Start quickly from here on, where the process is the command's alone; once in a process.

    Args:
        in_parts: put off what is in `PUT_OFF` and has not been imported.
    """
    if not _alone:
        return
    gc.set_threshold(_SELDOM)
    if in_parts:
        sys.meta_path.insert(0, _Finder())


def loaded() -> None:
    """Collect garbage as usual, but look for none among what there is now; nothing where there was no `begin`."""
    if gc.get_threshold()[0] == _SELDOM:
        gc.freeze()
        gc.set_threshold(*_USUAL)


def end(status: int) -> int:
    """Let the process end with ``status``, as soon as whoever registered for its end has had their turn; returns it."""
    _status.append(status)
    return status


def _leave() -> None:
    if not _status:  # an error that nobody caught
        return
    with contextlib.suppress(OSError, ValueError):  # a closed pipe: Python says so when it ends in its own way
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(_status[-1])


class PutOff(ModuleType):
    """A package whose initialiser runs for the first attribute that is asked for (`PARTED`: and is no submodule)."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name not in ("__all__", "__version__"):  # Python looks for such in every module
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        with _lock:
            submodule = f"{self.__name__}.{name}"
            if self.__name__ in PARTED and self.__name__ not in _begun and find_spec(submodule) is not None:
                return importlib.import_module(submodule)
            self.initialise()
        found = sys.modules[self.__name__]
        if found is not self:  # some initialisers put another object in the place of their module
            return getattr(found, name)
        if name in self.__dict__:
            return self.__dict__[name]
        raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")

    def initialise(self) -> None:
        """Run the initialiser unless that was begun before.

        Raises: whatever goes wrong in it.
        """
        with _lock:
            if self.__name__ in _begun:
                return
            _begun.add(self.__name__)
            assert self.__spec__ is not None and self.__spec__.loader is not None
            try:
                self.__spec__.loader.exec_module(self)
            except BaseException:
                _begun.discard(self.__name__)
                raise


class _Finder(MetaPathFinder):
    """Finds what Python's own finder for files finds, with other loaders where the import is to take less."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        package, _, name = fullname.rpartition(".")
        if package in ALONE and name not in ALONE[package] and isinstance(waiting := sys.modules.get(package), PutOff):
            waiting.initialise()
            if fullname in sys.modules:
                return ModuleSpec(fullname, _There(sys.modules[fullname]))
        loader = _Later if fullname in PUT_OFF else _Reader if fullname == READER else None
        spec = PathFinder.find_spec(fullname, path, target) if loader else None
        if spec is not None and spec.loader is not None and loader:
            spec.loader = loader(spec.loader)
        return spec


class _Later(Loader):
    """Loads a package without running its initialiser."""

    def __init__(self, loader: Loader):
        self.loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self.loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        assert module.__spec__ is not None
        module.__spec__.loader = module.__loader__ = self.loader
        module.__dict__.update(PLACEHOLDERS.get(module.__name__, dict)())
        module.__class__ = PutOff


class _There(Loader):
    """Hands out a module that an initialiser has imported meanwhile."""

    def __init__(self, module: ModuleType):
        self.module, self.spec = module, module.__spec__

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return self.module

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self.spec


class _Reader(_Later):
    """Loads a module and meanwhile gives it a mapping of distributions that is made when it is needed."""

    def exec_module(self, module: ModuleType) -> None:
        import importlib.metadata

        assert module.__spec__ is not None
        module.__spec__.loader = module.__loader__ = self.loader
        read = importlib.metadata.packages_distributions
        hidden: dict[str, Any] = {name: None for name in HIDDEN if name not in sys.modules}
        importlib.metadata.packages_distributions = _Distributions
        sys.modules.update(hidden)  # None says that there is none
        try:
            self.loader.exec_module(module)
        finally:
            importlib.metadata.packages_distributions = read
            for name in hidden:
                del sys.modules[name]


class _Distributions(Mapping[str, list[str]]):
    """`importlib.metadata.packages_distributions()`, called when something is looked up."""

    @cached_property
    def _all(self) -> Mapping[str, list[str]]:
        from importlib.metadata import packages_distributions

        return packages_distributions()

    def __getitem__(self, name: str) -> list[str]:
        return self._all[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._all)

    def __len__(self) -> int:
        return len(self._all)
