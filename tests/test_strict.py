"""Strict models take exactly what they declare, from Python, YAML-like data and JSON."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from components.strict import Strict


class Inner(Strict):
    rate: float = 1.0


class Outer(Strict):
    inner: Inner = Inner()
    many: tuple[Inner, ...] = ()
    pair: tuple[float, float] = (0.0, 1.0)
    nested: tuple[tuple[int, str], ...] | None = None
    by_name: dict[str, tuple[float, ...]] | None = None
    listed: list[Path] | None = None
    path: Path | None = None


PLAIN = {
    "inner": {"rate": 2},
    "many": [{"rate": 0.5}],
    "pair": [1, 2.5],
    "nested": [[1, "a"], [2, "b"]],
    "by_name": {"x": [1, 2]},
    "listed": ["a", "b"],
    "path": "data/base",
}


def test_plain_data_becomes_what_is_declared():
    outer = Outer.model_validate(PLAIN)
    assert outer.many == (Inner(rate=0.5),)
    assert outer.pair == (1.0, 2.5) and isinstance(outer.pair[0], float)
    assert outer.nested == ((1, "a"), (2, "b"))
    assert outer.by_name == {"x": (1.0, 2.0)}
    assert outer.listed == [Path("a"), Path("b")] and outer.path == Path("data/base")


def test_json_round_trip():
    outer = Outer.model_validate(PLAIN)
    assert Outer.model_validate_json(outer.model_dump_json()) == outer
    assert Outer.model_validate(outer.model_dump()) == outer


@pytest.mark.parametrize(
    ("data", "where"),
    [
        ({"unknown": 1}, ("unknown",)),
        ({"inner": {"rate": "2"}}, ("inner", "rate")),
        ({"inner": {"rate": True}}, ("inner", "rate")),
        ({"inner": {"rate": float("nan")}}, ("inner", "rate")),
        ({"many": [{"rate": 1, "typo": 2}]}, ("many", 0, "typo")),
        ({"pair": [1]}, ("pair", 1)),
        ({"pair": "ab"}, ("pair",)),
        ({"path": 3}, ("path",)),
    ],
)
def test_wrong_data_is_an_error_that_names_the_key(data, where):
    with pytest.raises(ValidationError) as caught:
        Outer.model_validate(data)
    assert caught.value.errors()[0]["loc"] == where


def test_is_immutable():
    with pytest.raises(ValidationError):
        Inner().rate = 2.0
