"""One schema for every profile: the settings of all components together, read from YAML and checked before any work.

:func:`load_settings` reports all mistakes at once, each with file, line, the dotted key, what was expected there and
what was found. The same schema serves the laptop (configs/local.yaml) and production (configs/gpu.yaml).
"""

import difflib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, Field, ValidationError
from pydantic_core import ErrorDetails

from components.annotation.annotations import AnnotationSettings
from components.data.drift import DriftSettings
from components.data.expectations import ValidationSettings
from components.data.ingest import IngestSettings
from components.data.partition import ScaleOutSettings
from components.data.synthesis import SynthesisSettings
from components.evaluation.records import EvaluationSettings
from components.registry.promotion import GateSettings
from components.reinforcement.settings import ReinforceSettings
from components.strict import Strict
from components.training.artist_sft import ArtistSftSettings
from components.training.critic_sft import CriticSftSettings


class Settings(Strict):
    """The configuration of a whole pipeline: a section for each stage, in the order in which they run."""

    ingest: IngestSettings = Field(default_factory=IngestSettings)
    validation: ValidationSettings = Field(default_factory=ValidationSettings)
    drift: DriftSettings = Field(default_factory=DriftSettings)
    scale_out: ScaleOutSettings = Field(default_factory=ScaleOutSettings)
    annotate: AnnotationSettings = Field(default_factory=AnnotationSettings)
    synthesize: SynthesisSettings = Field(default_factory=SynthesisSettings)
    train_critic: CriticSftSettings
    train_artist: ArtistSftSettings
    adapt_artist: ArtistSftSettings
    reinforce: ReinforceSettings
    evaluate: EvaluationSettings = Field(default_factory=EvaluationSettings)
    gate: GateSettings = Field(default_factory=GateSettings)


class SettingsError(ValueError):
    """A configuration that cannot be used; the message has one line for each mistake."""


def load_settings(path: Path, overrides: Sequence[str] = (), schema: type[BaseModel] = Settings) -> Any:
    """Read ``path`` as ``schema``, after replacing single values by ``overrides`` of the form ``dotted.key=value``.

    Values in overrides are read as YAML, so ``reinforce.iterations=2`` sets a number and ``a.b=[1, 2]`` a list.

    Raises:
        SettingsError: the file is missing or no YAML, an override is malformed, or a key is unknown, repeated,
            missing or has the wrong type. The message names every offending key.
    """
    path = Path(path)
    if not path.is_file():
        near = ", ".join(sorted(str(file) for file in path.parent.glob("*.yaml"))) or "none"
        raise SettingsError(f"{path}: there is no such configuration file; configurations beside it: {near}")
    content, origins = _read(path)
    for override in overrides:
        _apply(content, origins, override, path)
    try:
        return schema.model_validate(content)
    except ValidationError as error:
        lines = [_explain(details, schema, origins, path) for details in error.errors(include_url=False)]
        raise SettingsError("\n".join(lines)) from error


class _Loader(yaml.SafeLoader):
    """YAML in which 1e-4 is a number, as in YAML 1.2 and everywhere else, and not a text as in YAML 1.1."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)

_Key = tuple[str, ...]


def _read(path: Path) -> tuple[dict[str, Any], dict[_Key, str]]:
    """The content of a YAML file and, for each key in it, where the key is (``file:line``)."""
    try:
        loader = _Loader(path.read_text(encoding="utf-8"))
        node = loader.get_single_node()
        content = loader.construct_document(node) if node is not None else {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: not readable as YAML: {error}") from error
    if not isinstance(content, dict):
        raise SettingsError(f"{path}: expected sections (key: value), found {type(content).__name__}")
    origins: dict[_Key, str] = {}
    if node is not None:
        _locate(node, (), path, origins)
    return content, origins


def _locate(node: yaml.Node, key: _Key, path: Path, origins: dict[_Key, str]) -> None:
    if isinstance(node, yaml.MappingNode):
        for name, value in node.value:
            below = (*key, str(name.value))
            if below in origins:
                raise SettingsError(
                    f"{path}:{name.start_mark.line + 1}: {'.'.join(below)}: repeated; the first one is "
                    f"at {origins[below]}"
                )
            origins[below] = f"{path}:{name.start_mark.line + 1}"
            _locate(value, below, path, origins)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            origins[(*key, str(index))] = f"{path}:{value.start_mark.line + 1}"
            _locate(value, (*key, str(index)), path, origins)


def _apply(content: dict[str, Any], origins: dict[_Key, str], override: str, path: Path) -> None:
    name, separator, text = override.partition("=")
    key = tuple(part.strip() for part in name.split("."))
    if not separator or not all(key):
        raise SettingsError(f"--set {override}: expected dotted.key=value")
    try:
        value = yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        raise SettingsError(f"--set {override}: the value is not readable as YAML: {error}") from error
    section = content
    for depth, part in enumerate(key[:-1], start=1):
        section = section.setdefault(part, {})
        if not isinstance(section, dict):
            raise SettingsError(f"--set {override}: {'.'.join(key[:depth])} in {path} is a value, not a section")
    section[key[-1]] = value
    for known in [known for known in origins if known[: len(key)] == key]:
        del origins[known]
    origins[key] = f"--set {override}"


def _explain(details: ErrorDetails, schema: type[BaseModel], origins: Mapping[_Key, str], path: Path) -> str:
    """One mistake in one line: where, which key, what was expected, what was found."""
    key = tuple(str(part) for part in details["loc"])
    place = next((origins[key[:n]] for n in range(len(key), 0, -1) if key[:n] in origins), str(path))
    name = ".".join(key) or "the whole file"
    if details["type"] == "extra_forbidden":
        known = _keys_at(schema, key[:-1])
        close = difflib.get_close_matches(key[-1], known, n=1)
        hint = f"did you mean {close[0]}?" if close else f"expected one of: {', '.join(known)}"
        return f"{place}: {name}: unknown key; {hint}"
    if details["type"] == "missing":
        return f"{place}: {name}: missing; it has no default"
    expected = re.sub(r"^(Input should be|Value error,) ?", "", details["msg"])
    if details["type"] == "value_error":
        return f"{place}: {name}: {expected}"
    return f"{place}: {name}: expected {expected}, found {details['input']!r}"


def _keys_at(schema: type[BaseModel], key: _Key) -> list[str]:
    """The keys that a section of the schema knows."""
    for part in key:
        field = schema.model_fields.get(part)
        candidates = [] if field is None else [field.annotation, *getattr(field.annotation, "__args__", ())]
        models = [kind for kind in candidates if isinstance(kind, type) and issubclass(kind, BaseModel)]
        if not models:
            return []
        schema = models[0]
    return sorted(schema.model_fields)
