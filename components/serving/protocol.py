"""The JSON of MLflow's scoring protocol, as far as one column of pictures needs it.

A request is an object with exactly one of ``dataframe_records``, ``dataframe_split``, ``inputs`` and ``instances``,
whose column ``photo`` holds files in Base64 (RFC 4648), and optionally ``params``; the answer is
``{"predictions": [{"photo", "text", "verdict"}, ...]}`` (https://mlflow.org/docs/latest/ml/deployment/).
"""

import base64
import binascii
import json
from collections.abc import Sequence
from typing import Any, NamedTuple

from components.serving.service import EnhancedPicture
from components.serving.work import Reason, Refused

COLUMN = "photo"
_MOST_VALUES, _MOST_SHOWN = 10_000, 10
FORMATS = ("dataframe_records", "dataframe_split", "inputs", "instances")


class Invocation(NamedTuple):
    """What a request asks for."""

    photos: tuple[bytes, ...]
    seed: int
    strength: float | None
    """None: the model's own."""


def parse_invocation(body: bytes, max_photos: int) -> Invocation:
    """Read the body of a request.

    Raises:
        Refused: it is not in the protocol; the message says where and what was expected.
    """
    values = sum(map(body.count, (b"[", b"{", b",", b":")))
    if values > _MOST_VALUES:  # counted before objects are made of them; Base64 has none of these characters
        raise _invalid(f"expected a JSON object of at most {_MOST_VALUES} values, found {values}")
    try:
        content = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise _invalid(f"expected a JSON object, found {len(body)} bytes that are none: {error}") from error
    if not isinstance(content, dict):
        raise _invalid(f"expected a JSON object, found {type(content).__name__}")
    present = [name for name in FORMATS if name in content]
    if len(present) != 1 or set(content) - {*FORMATS, "params"}:
        found = ", ".join(sorted(map(_short, content))[:_MOST_SHOWN]) or "none"
        raise _invalid(f"expected one of {', '.join(FORMATS)}, and params if there are any; found keys {found}")
    cells = _cells(present[0], content[present[0]])
    if not 1 <= len(cells) <= max_photos:
        raise _invalid(f"expected 1 to {max_photos} photos in a request, found {len(cells)}")
    seed, strength = _params(content.get("params") or {})
    return Invocation(tuple(_decoded(cell, row) for row, cell in enumerate(cells)), seed, strength)


def predictions(answers: Sequence[EnhancedPicture]) -> bytes:
    """The body of an answer."""
    rows = [
        {"photo": base64.b64encode(answer.photo).decode("ascii"), "text": answer.text, "verdict": answer.verdict}
        for answer in answers
    ]
    return json.dumps({"predictions": rows}).encode()


def _cells(name: str, data: Any) -> list[Any]:
    """The values of the column, in whichever of the four forms they came."""
    if name == "dataframe_split":
        if isinstance(data, dict) and data.get("columns") == [COLUMN] and isinstance(data.get("data"), list):
            rows = data["data"]
            if all(isinstance(row, list) and len(row) == 1 for row in rows):
                return [row[0] for row in rows]
        raise _invalid(f'{name}: expected {{"columns": ["{COLUMN}"], "data": [["<Base64>"], ...]}}')
    if name == "inputs" and isinstance(data, dict) and set(data) == {COLUMN}:
        return data[COLUMN] if isinstance(data[COLUMN], list) else [data[COLUMN]]
    if isinstance(data, list) and all(isinstance(row, dict) and set(row) == {COLUMN} for row in data):
        return [row[COLUMN] for row in data]
    raise _invalid(f'{name}: expected [{{"{COLUMN}": "<Base64>"}}, ...]')


def _params(params: Any) -> tuple[int, float | None]:
    if not isinstance(params, dict) or set(params) - {"seed", "strength"}:
        raise _invalid(f"params: expected an object with seed and strength, found {_short(params)}")
    seed, strength = params.get("seed", 0), params.get("strength")
    if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed < 2**63:
        raise _invalid(f"params.seed: expected an integer from 0 to 2^63 - 1, found {_short(seed)}")
    if strength is None:
        return seed, None
    if not isinstance(strength, int | float) or isinstance(strength, bool):
        raise _invalid(f"params.strength: expected a number, found {_short(strength)}")
    if not 0 <= strength <= 2:  # before it is made a float, which is infinite for some
        raise _invalid(f"params.strength: expected a number from 0 to 2, found {_short(strength)}")
    return seed, float(strength)


def _decoded(cell: Any, row: int) -> bytes:
    if not isinstance(cell, str):
        raise _invalid(f"row {row}, {COLUMN}: expected a file in Base64, found {type(cell).__name__}")
    try:
        return base64.b64decode("".join(cell.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise _invalid(f"row {row}, {COLUMN}: expected a file in Base64: {error}") from error


def _invalid(message: str) -> Refused:
    return Refused(Reason.INVALID, message)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
