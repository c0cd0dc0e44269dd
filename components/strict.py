"""The base of every configuration and record model: closed, immutable and strictly typed."""

import types
from pathlib import Path
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationInfo, field_validator


class Strict(BaseModel):
    """A pydantic model that refuses unknown keys, wrong types, NaN and assignment after construction.

    YAML and JSON have neither tuples nor paths, so a list is accepted where a tuple is declared and a string where a
    ``Path`` is declared, at any depth; an integer is accepted where a float is declared. Nothing else is converted:
    ``"3"`` is not a number and ``1`` is not a boolean.

    Raises:
        pydantic.ValidationError: naming each offending key, what was expected there and what was found.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _from_plain_data(cls, value: Any, info: ValidationInfo) -> Any:
        if not isinstance(value, (str, list, tuple, dict)):
            return value
        # Reading JSON text, pydantic itself turns strings into paths, and would refuse a path made here.
        return _as_declared(cls.model_fields[str(info.field_name)].annotation, value, paths=info.mode == "python")


def _as_declared(annotation: Any, value: Any, paths: bool) -> Any:
    """``value`` with lists turned into tuples, and strings into paths, wherever ``annotation`` declares those."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        for member in arguments:
            converted = _as_declared(member, value, paths)
            if converted is not value:
                return converted
        return value
    if paths and annotation is Path and isinstance(value, str):
        return Path(value)
    if origin is tuple and isinstance(value, (list, tuple)):
        members = arguments[:1] * len(value) if arguments[-1:] == (Ellipsis,) else arguments
        if len(members) != len(value):  # pydantic reports the length
            return tuple(value)
        return _same_or(value, tuple(_as_declared(m, item, paths) for m, item in zip(members, value, strict=True)))
    if origin is list and isinstance(value, list):
        return _same_or(value, [_as_declared(arguments[0], item, paths) for item in value])
    if origin is dict and isinstance(value, dict):
        converted = {key: _as_declared(arguments[1], item, paths) for key, item in value.items()}
        return converted if any(converted[key] is not value[key] for key in value) else value
    return value


def _same_or(value: Any, converted: Any) -> Any:
    """``value`` itself when the conversion changed nothing, so that a union can tell whether a member matched."""
    unchanged = type(value) is type(converted) and all(a is b for a, b in zip(value, converted, strict=True))
    return value if unchanged else converted
