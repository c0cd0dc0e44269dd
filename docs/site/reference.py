"""A hook of MkDocs: pages of the reference that are made from the code whenever the site is built.

    reference/settings.md     every key of a profile, from the schema in components/settings.py
    reference/cli.md          every command, from its help, and every target of the Makefile
    reference/api/<room>.md   every public module of a package of components/, from the docstrings

It also refuses a page that would fetch anything from the network.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

import click
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from components.settings import Settings
from components.training.__main__ import main as training
from components.training.nodes import main as training_nodes
from pipelines.__main__ import COMMANDS

ROOT = Path(__file__).resolve().parents[2]
WORKERS = {"python -m components.training": training, "python -m components.training.nodes": training_nodes}
"""What launchers start on each node or rank."""
_BOUNDS = {"ge": "from {}", "gt": "above {}", "le": "to {}", "lt": "below {}", "min_length": "at least {} long"}
_FETCHED = re.compile(
    r"<(?:script|img|iframe|source)[^>]+src=\"(?:https?:)?//|<link[^>]+rel=\"(?:stylesheet|preload)\""
    r"[^>]+href=\"(?:https?:)?//"
)
_WITHOUT_MEMBERS = ["    options:", "      members: false"]
_NAMES = {str: "text", bool: "true or false", int: "integer", float: "number", Path: "path", Any: "any value"}
_ROLE = re.compile(r":(?:func|class|meth|mod|data|attr|exc):(?=<code>)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages."""
    pages = {"reference/settings.md": settings_page(), "reference/cli.md": cli_page(), **api_pages()}
    for path, text in pages.items():
        files.append(File.generated(config, path, content=text))
    return files


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Names in docstrings are plain code; the site has no use for the roles in front of them."""
    return _ROLE.sub("", html)


def on_post_page(output: str, page: Page, config: MkDocsConfig) -> str:
    """Raises PluginError where the page would load something from another server."""
    if found := _FETCHED.search(output):
        raise PluginError(f"{page.file.src_path} would fetch from the network: {found.group()}: keep a copy in docs/")
    return output


def settings_page() -> str:
    """Every key of a profile: type, default and meaning, section by section."""
    lines = [
        "# Settings",
        "",
        "Every key that a profile (`configs/local.yaml`, `configs/gpu.yaml`) may hold, made from the schema in",
        "`components/settings.py`. Any of them can be set for one run:",
        "",
        '    make pipeline SET="reinforce.iterations=40 train_critic.optimiser.steps=300"',
        "",
        "An unknown key or a wrong value is reported with its line before any work starts.",
        "",
    ]
    for name, field in Settings.model_fields.items():
        lines += _section(name, field, depth=2)
    return "\n".join(lines) + "\n"


def _section(key: str, field: FieldInfo, depth: int) -> Iterator[str]:
    (model,) = _models(field.annotation)
    about = (model.__doc__ or "").strip().split("\n\n")[0].replace("\n", " ")
    yield from (f"{'#' * depth} `{key}`", "", re.sub(r"\s+", " ", f"{field.description or ''} {about}").strip(), "")
    plain = {name: inner for name, inner in model.model_fields.items() if not _models(inner.annotation)}
    if plain:
        yield from ("| key | type | default | meaning |", "|---|---|---|---|")
        for name, inner in plain.items():
            meaning = _sentence(inner.description or "").replace("|", "\\|")
            yield f"| `{name}` | {_type(inner)} | {_default(inner)} | {meaning} |"
        yield ""
    for name, inner in model.model_fields.items():
        if name not in plain:
            yield from _section(f"{key}.{name}", inner, depth=3)


def _models(kind: Any) -> list[type[BaseModel]]:
    """The sections that a field holds, also inside a list or an optional one."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return [kind]
    return [model for argument in get_args(kind) for model in _models(argument)]


def _type(field: FieldInfo) -> str:
    bounds = [
        text.format(getattr(constraint, name))
        for constraint in field.metadata
        for name, text in _BOUNDS.items()
        if getattr(constraint, name, None) is not None
    ]
    kinds = get_args(field.annotation) if get_origin(field.annotation) in (Union, UnionType) else (field.annotation,)
    named = " or ".join(_name(kind) for kind in kinds if kind is not NoneType)
    return " ".join([named, *bounds]) + (", or none" if NoneType in kinds else "")


def _name(kind: Any) -> str:
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Literal:
        return " or ".join(f"`{value}`" for value in arguments)
    if origin in (Union, UnionType):
        return " or ".join(_name(argument) for argument in arguments)
    if origin is tuple:
        return f"list of {_name(arguments[0])}"
    if origin is dict:
        return f"map of names to {_name(arguments[1])}"
    return _NAMES.get(kind, getattr(kind, "__name__", "value"))


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "**required**"
    value = field.get_default(call_default_factory=True)
    if value is None:
        return "none"
    if isinstance(value, dict):
        return ", ".join(f"`{name}: {inner}`" for name, inner in value.items()) or "empty"
    if isinstance(value, tuple):
        return ", ".join(f"`{inner}`" for inner in value) or "empty"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _sentence(text: str) -> str:
    text = text.strip()
    return text[:1].upper() + text[1:] + ("" if not text or text.endswith(".") else ".")


def cli_page() -> str:
    """What every command says of itself, and the Makefile's targets."""
    targets = re.findall(r"^([a-z-]+):.*?## (.+)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    lines = ["# Command line", "", "## make", "", "| target | |", "|---|---|"]
    lines += [f"| `make {name}` | {text.replace('|', chr(92) + '|')} |" for name, text in targets]
    lines += _command("smartphotocrafter", COMMANDS, depth=2)
    for name, command in WORKERS.items():
        lines += _command(name, command, depth=2)
    return "\n".join(lines) + "\n"


def _command(name: str, command: click.Command, depth: int) -> Iterator[str]:
    """The help of a command and of all below it."""
    context = click.Context(command, info_name=name, terminal_width=100, **command.context_settings)
    yield from ("", f"{'#' * depth} {name}", "", "```text", command.get_help(context).rstrip(), "```")
    if isinstance(command, click.Group):
        for inner in command.list_commands(context):
            found = command.get_command(context, inner)
            if found is None:
                raise PluginError(f"{name} lists {inner}, and there is no such command")
            yield from _command(f"{name} {inner}", found, depth=3)


def api_pages() -> dict[str, str]:
    """A page for each package of components/, and one for the modules beside them."""
    components = ROOT / "components"
    rooms = {folder.name: sorted(folder.rglob("*.py")) for folder in components.iterdir() if folder.is_dir()}
    rooms = {name: modules for name, modules in rooms.items() if modules}
    rooms["modules"] = sorted(components.glob("*.py"))
    return {f"reference/api/{room}.md": _api_page(room, modules) for room, modules in rooms.items()}


def _api_page(room: str, modules: list[Path]) -> str:
    title = "Single modules of components" if room == "modules" else f"components.{room}"
    lines = [f"# {title}", ""]
    for path in modules:
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        if "._" not in name and path.read_text(encoding="utf-8").strip() and not name.endswith(".__main__"):
            lines += (
                [f"::: {name}", ""]
                if path.name != "__init__.py"
                else [f"::: {name}", "    options:", "      members: false", ""]
            )
    return "\n".join(lines)
