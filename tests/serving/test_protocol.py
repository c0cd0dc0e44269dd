"""MLflow's JSON protocol: every form it allows, and a reason for everything else. Random bodies never crash it."""

import base64
import json
import random
from typing import Any

import pytest

from components.serving.protocol import Invocation, parse_invocation, predictions
from components.serving.service import EnhancedPicture, Refused

PHOTO = b"\xff\xd8 some bytes"
TEXT = base64.b64encode(PHOTO).decode()


@pytest.mark.parametrize(
    "content",
    [
        {"dataframe_records": [{"photo": TEXT}]},
        {"dataframe_split": {"columns": ["photo"], "data": [[TEXT]]}},
        {"inputs": {"photo": [TEXT]}},
        {"inputs": {"photo": TEXT}},
        {"inputs": [{"photo": TEXT}]},
        {"instances": [{"photo": TEXT}]},
        {"instances": [{"photo": base64.encodebytes(PHOTO).decode()}]},
    ],
)
def test_every_form_of_the_protocol_is_read(content: dict[str, Any]) -> None:
    assert parse_invocation(json.dumps(content).encode(), 8) == Invocation((PHOTO,), 0, None)


def test_parameters_are_read() -> None:
    body = {"inputs": [{"photo": TEXT}, {"photo": TEXT}], "params": {"seed": 7, "strength": 1}}
    assert parse_invocation(json.dumps(body).encode(), 8) == Invocation((PHOTO, PHOTO), 7, 1.0)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "expected a JSON object"),
        (b"\xff\xfe{", "expected a JSON object"),
        (b"[" * 100_000, "expected a JSON object"),
        (b"[]", "expected a JSON object, found list"),
        (b"{}", "found keys none"),
        (json.dumps({"inputs": [], "instances": []}).encode(), "expected one of"),
        (json.dumps({"inputs": [{"photo": TEXT}], "more": 1}).encode(), "'more'"),
        (json.dumps({"inputs": []}).encode(), "expected 1 to 2 photos"),
        (json.dumps({"inputs": [{"photo": TEXT}] * 3}).encode(), "found 3"),
        (json.dumps({"inputs": [{"picture": TEXT}]}).encode(), "inputs: expected"),
        (json.dumps({"dataframe_split": {"columns": ["photo"], "data": [[1, 2]]}}).encode(), "dataframe_split"),
        (json.dumps({"inputs": [{"photo": 5}]}).encode(), "row 0, photo: expected a file in Base64, found int"),
        (json.dumps({"inputs": [{"photo": "<>"}]}).encode(), "row 0, photo: expected a file in Base64"),
        (json.dumps({"inputs": [{"photo": "ü"}]}).encode(), "row 0, photo: expected a file in Base64"),
        (json.dumps({"inputs": [{"photo": TEXT}], "params": {"steps": 3}}).encode(), "params: expected an object"),
        (json.dumps({"inputs": [{"photo": TEXT}], "params": {"seed": 1.5}}).encode(), "params.seed"),
        (json.dumps({"inputs": [{"photo": TEXT}], "params": {"seed": True}}).encode(), "params.seed"),
        (json.dumps({"inputs": [{"photo": TEXT}], "params": {"strength": "1"}}).encode(), "params.strength"),
    ],
)
def test_everything_else_is_refused_with_a_reason(body: bytes, reason: str) -> None:
    with pytest.raises(Refused) as caught:
        parse_invocation(body, 2)
    assert reason in str(caught.value)


def test_damaged_requests_are_read_or_refused_and_nothing_else() -> None:
    dice = random.Random(0)
    body = json.dumps({"dataframe_split": {"columns": ["photo"], "data": [[TEXT]]}, "params": {"seed": 1}}).encode()
    for _ in range(2000):
        damaged = bytearray(body)
        for _ in range(dice.randint(1, 4)):
            damaged[dice.randrange(len(damaged))] = dice.randrange(256)
        try:
            assert parse_invocation(bytes(damaged), 8).photos
        except Refused as refused:
            assert str(refused)


def test_predictions_are_what_mlflow_clients_read() -> None:
    body = json.loads(predictions([EnhancedPicture(PHOTO, ".jpg", "words", "null", 1.0)]))
    assert body == {"predictions": [{"photo": TEXT, "text": "words", "verdict": "null"}]}
