"""Environments that hold some of the installed packages and nothing else, made of links within a second.

What a fresh machine would install can so be tried without a network: whatever is left out cannot be imported.
"""

import importlib.metadata
import sys
import sysconfig
import venv
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from steps.requirements import normalised

_SITE = f"lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages"


def make_environment(folder: Path, names: Iterable[str]) -> Path:
    """A virtual environment with the installed packages of these normalised names and their commands.

    Returns:
        its Python.
    """
    venv.create(folder, symlinks=True, with_pip=False)
    python = folder / "bin" / "python"
    source = Path(sysconfig.get_paths()["purelib"])
    files: dict[bool, list[str]] = {True: [], False: []}
    wanted = set(names)
    for distribution in importlib.metadata.distributions(path=[str(source)]):
        within = normalised(distribution.name) in wanted
        record = (distribution.read_text("RECORD") or "").splitlines()
        files[within] += [line.rsplit(",", 2)[0].strip('"') for line in record]
        for command in distribution.entry_points.select(group="console_scripts") if within else ():
            script = folder / "bin" / command.name
            start = f"#!{python}\nimport sys\nfrom {command.module} import {command.attr}\nsys.exit({command.attr}())\n"
            script.write_text(start)
            script.chmod(0o755)
    _link(source, folder / _SITE, files[True], files[False])
    return python


def _link(source: Path, target: Path, wanted: list[str], others: list[str]) -> None:
    """Link what is wanted from one folder to another, whole folders where nothing else lies in them."""
    inside, outside = _by_first_part(wanted), _by_first_part(others)
    target.mkdir(exist_ok=True)
    for name in inside.keys() - {"..", "__pycache__"}:
        if name in outside and inside[name] != [""]:  # a namespace, such as google/
            _link(source / name, target / name, inside[name], outside[name])
        else:
            (target / name).symlink_to(source / name)


def _by_first_part(files: list[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = defaultdict(list)
    for file in files:
        first, _, rest = file.partition("/")
        found[first].append(rest)
    return found


def locked(text: str) -> set[str]:
    """Normalised names of what the text of a lock file, or of a model's requirements.txt, pins."""
    lines = (line.split("#")[0] for line in text.splitlines())
    return {normalised(line.split("==")[0].strip()) for line in lines if line.strip()}
