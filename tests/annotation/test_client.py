"""The annotation client against a real server that answers well, garbles, stalls, cuts, rate-limits and breaks."""

import io
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image
from pydantic import ValidationError

from components.annotation.annotators import AnnotationRequest, AnnotatorAnswer
from components.annotation.client import ChatServerError, ClientSettings, OpenAICompatibleAnnotator
from components.annotation.format import GRAMMAR_INSTRUCTIONS, JSON_INSTRUCTIONS, response_format
from components.verdict.grammar import Verdict, parse, render, suggest
from tests.annotation.test_format import GOOD as GOOD_JSON
from tests.chat.serving import CUT, GARBLED, HALF, ODD, STALL, TRICKLE, ModelServer, grey_of

GOOD = render(Verdict(reasoning=("noise",) * 5, suggestions=(suggest("exposure", 0.5),), score=42.0))
COUNT = 8
STEP = 16
"""Grey levels between two pictures."""


def requests(count: int = COUNT) -> Iterator[AnnotationRequest]:
    """Pictures that differ in their grey level."""
    for index in range(count):
        view = torch.full((3, 16, 24), (STEP * index % 256) / 255)
        yield AnnotationRequest(f"photo-{index}", view, view)


def client(server_url: str, journal: Path, **more: object) -> OpenAICompatibleAnnotator:
    fields = {
        "base_url": server_url,
        "model": "m",
        "concurrency": 3,
        "attempts": 8,
        "read_timeout": 10.0,
        "first_backoff": 0.01,
        "longest_backoff": 0.05,
    }
    return OpenAICompatibleAnnotator(ClientSettings(**(fields | more)), journal)


def collect(annotator: OpenAICompatibleAnnotator, count: int = COUNT) -> dict[str, AnnotatorAnswer]:
    answers: list[AnnotatorAnswer] = []
    annotator.annotate(requests(count), answers.append)
    assert len(answers) == len({answer.id for answer in answers}), "one answer for each request"
    return {answer.id: answer for answer in answers}


def always(status: int, text: str) -> ModelServer:
    return ModelServer(lambda picture, before: (status, text))


def test_a_good_server_is_asked_once_a_photo_within_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", "secret-7")
    three_came = threading.Event()

    def behave(picture: bytes, before: int) -> tuple[int, str]:
        if len(server.requests) >= 3:
            three_came.set()
        three_came.wait(60)
        return 200, GOOD

    with ModelServer(behave).running() as server:
        annotator = client(server.base_url, tmp_path / "journal.jsonl", api_key_variable="MY_KEY", read_timeout=120.0)
        answers = collect(annotator)
    assert {answer.verdict for answer in answers.values()} == {parse(GOOD)} and len(answers) == COUNT
    assert set(server.asked.values()) == {1} and annotator.asked == COUNT
    assert server.peak == 3
    took = {(answer.input_tokens, answer.output_tokens, answer.requests) for answer in answers.values()}
    assert took == {(100, 10, 1)} and not any(answer.repaired or answer.restored for answer in answers.values())
    assert {round(grey_of(picture) / STEP) for picture in server.asked} == set(range(COUNT))
    assert all(headers["authorization"] == "Bearer secret-7" for headers in server.headers)
    assert len({headers["x-request-id"] for headers in server.headers}) == COUNT
    assert "secret-7" not in (tmp_path / "journal.jsonl").read_text()


def test_the_picture_is_sent_as_a_jpeg_no_larger_than_asked_for(tmp_path: Path) -> None:
    with always(200, GOOD).running() as server:
        for side, quality in ((1024, 95), (18, 95), (18, 30)):
            collect(client(server.base_url, tmp_path / "j", longest_side=side, jpeg_quality=quality), count=1)
    pictures = [Image.open(io.BytesIO(picture)) for picture in server.asked]
    assert [picture.format for picture in pictures] == ["JPEG"] * 3
    assert [picture.size for picture in pictures] == [(24, 16), (18, 12), (18, 12)]
    assert sum(pictures[2].quantization[0]) > sum(pictures[1].quantization[0])


def test_a_schema_is_asked_for_where_the_server_takes_one(tmp_path: Path) -> None:
    with always(200, json.dumps(GOOD_JSON)).running() as server:
        answers = collect(client(server.base_url, tmp_path / "j"))
        assert all(body["response_format"] == response_format() for body in server.bodies)
        assert {body["messages"][1]["content"][1]["text"] for body in server.bodies} == {JSON_INSTRUCTIONS}
        assert {answer.verdict.score for answer in answers.values()} == {42.0}
        restored = collect(client(server.base_url, tmp_path / "j"))
        assert {answer.verdict for answer in restored.values()} == {answer.verdict for answer in answers.values()}
        collect(client(server.base_url, tmp_path / "k", structured="never"))
        assert "response_format" not in server.bodies[-1]
        assert server.bodies[-1]["messages"][1]["content"][1]["text"] == GRAMMAR_INSTRUCTIONS


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
def test_a_server_may_take_the_reasoning_out_of_the_text(tmp_path: Path, field: str) -> None:
    with ModelServer(lambda picture, before: (200, GOOD), thinking=field).running() as server:
        answers = collect(client(server.base_url, tmp_path / "j"), count=2)
    assert all(answer.verdict == parse(GOOD) and not answer.repaired for answer in answers.values())


class SchemalessServer(ModelServer):
    """Refuses every request that names a schema."""

    def reply(self, handler: object, request: object) -> None:
        self.behave = lambda picture, before: (400, "bad field") if "response_format" in request.body else (200, GOOD)
        super().reply(handler, request)


def test_a_server_that_refuses_schemas_is_asked_for_the_grammar(tmp_path: Path) -> None:
    with SchemalessServer(lambda picture, before: (200, GOOD)).running() as server:
        answers = collect(client(server.base_url, tmp_path / "j", concurrency=1))
        assert all(answer.verdict == parse(GOOD) for answer in answers.values())
        assert sum("response_format" in body for body in server.bodies) == 1, "found out once"
        with pytest.raises(ChatServerError, match="bad field"):
            collect(client(server.base_url, tmp_path / "k", structured="always"))


@pytest.mark.parametrize(
    "trouble", [(500, "broken"), (503, "loading"), (429, "slow down"), (200, CUT), (200, GARBLED), (200, ODD)]
)
def test_trouble_is_retried_until_the_answer_comes(tmp_path: Path, trouble: tuple[int, str]) -> None:
    with ModelServer(lambda picture, before: trouble if before < 2 else (200, GOOD)).running() as server:
        answers = collect(client(server.base_url, tmp_path / "j"), count=3)
    assert all(answer.verdict == parse(GOOD) and answer.requests == 3 for answer in answers.values())
    assert set(server.asked.values()) == {3}


@pytest.mark.parametrize(("trouble", "limit"), [(STALL, {"read_timeout": 0.3}), (TRICKLE, {"answer_timeout": 0.4})])
def test_a_server_that_does_not_get_done_is_given_up_and_asked_again(
    tmp_path: Path, trouble: str, limit: dict[str, float]
) -> None:
    with ModelServer(lambda picture, before: (200, GOOD if before else trouble)).running() as server:
        answers = collect(client(server.base_url, tmp_path / "j", **limit), count=3)
    assert all(answer.verdict == parse(GOOD) for answer in answers.values())
    assert set(server.asked.values()) == {2}


@pytest.mark.parametrize("bad", ["I like it!", GOOD.replace("</think>", ""), HALF, "", json.dumps(GOOD_JSON)[:-4]])
def test_an_answer_that_cannot_be_read_is_repaired_once(tmp_path: Path, bad: str) -> None:
    with ModelServer(lambda picture, before: (200, GOOD if before else bad)).running() as server:
        answers = collect(client(server.base_url, tmp_path / "j"), count=2)
    assert all(answer.verdict == parse(GOOD) and answer.repaired for answer in answers.values())
    assert {(answer.requests, answer.input_tokens, answer.output_tokens) for answer in answers.values()} == {
        (2, 200, 20)
    }
    repairs = [body["messages"] for body in server.bodies if len(body["messages"]) > 2]
    assert len(repairs) == 2
    for messages in repairs:
        assert [message["role"] for message in messages] == ["system", "user", "assistant", "user"]
        assert messages[2]["content"] == (bad or "(nothing)") and "cannot be read" in messages[3]["content"]


def test_an_answer_that_stays_unreadable_is_final(tmp_path: Path) -> None:
    with always(200, "I like it!").running() as server:
        answers = collect(client(server.base_url, tmp_path / "j"), count=2)
        assert all(answer.reason.startswith("not in the grammar: expected <think>") for answer in answers.values())
        assert set(server.asked.values()) == {2}
        again = collect(client(server.base_url, tmp_path / "j"), count=2)
        assert set(server.asked.values()) == {2}, "not asked twice"
        assert {answer.reason for answer in again.values()} == {answer.reason for answer in answers.values()}
        collect(client(server.base_url, tmp_path / "k", repairs=0), count=2)
        assert set(server.asked.values()) == {3}


def test_a_refused_photo_is_reported_and_the_others_go_on(tmp_path: Path) -> None:
    def behave(picture: bytes, before: int) -> tuple[int, str]:
        return (400, "bad image") if grey_of(picture) < 1 else (200, GOOD)

    with ModelServer(behave).running() as server:
        answers = collect(client(server.base_url, tmp_path / "j", structured="never"))
        assert answers["photo-0"].reason.startswith("refused by the server: 400: ")
        assert sum(answer.verdict is not None for answer in answers.values()) == COUNT - 1
        assert set(server.asked.values()) == {1}
        collect(client(server.base_url, tmp_path / "j", structured="never"))
    assert set(server.asked.values()) == {1}, "a refusal is final once the server has answered about others"


def test_a_server_that_refuses_everything_is_a_mistake_and_no_answer(tmp_path: Path) -> None:
    with always(400, "max_tokens is too large").running() as server:
        with pytest.raises(ChatServerError, match=r"refused .*max_tokens is too large"):
            collect(client(server.base_url, tmp_path / "j"), count=500)
        assert len(server.asked) <= 16, "and not asked about all photos"
        with pytest.raises(ChatServerError, match="refused 2"):
            collect(client(server.base_url, tmp_path / "j"), count=2)
    assert (tmp_path / "j").read_text() == ""


def test_unanswered_photos_are_an_error_and_asked_again_next_time(tmp_path: Path) -> None:
    broken = threading.Event()
    broken.set()

    def behave(picture: bytes, before: int) -> tuple[int, str]:
        return (500, "broken") if broken.is_set() and grey_of(picture) < 1 else (200, GOOD)

    with ModelServer(behave).running() as server:
        with pytest.raises(ChatServerError, match=f"1 of {COUNT} photos got no answer"):
            collect(client(server.base_url, tmp_path / "j", attempts=2))
        lenient = collect(client(server.base_url, tmp_path / "j", attempts=2, max_unanswered=0.2))
        assert lenient["photo-0"].reason.startswith("no answer: HTTP 500")
        assert sum(answer.restored for answer in lenient.values()) == COUNT - 1
        broken.clear()
        answers = collect(client(server.base_url, tmp_path / "j"))
    assert all(answer.verdict for answer in answers.values()) and len(answers) == COUNT
    assert sorted(server.asked.values()) == [1] * (COUNT - 1) + [5]


def test_a_server_that_breaks_down_is_given_up_early(tmp_path: Path) -> None:
    with always(500, "broken").running() as server, pytest.raises(ChatServerError, match="check the server"):
        collect(client(server.base_url, tmp_path / "j", attempts=2), count=15)
    assert len(server.asked) <= 9
    assert (tmp_path / "j").read_text() == ""


def test_the_journal_serves_the_same_question_only(tmp_path: Path) -> None:
    with always(200, GOOD).running() as server:
        url = server.base_url
        collect(client(url, tmp_path / "j"))
        for more in ({"model": "another"}, {"temperature": 0.0}, {"longest_side": 20}):
            before = len(server.requests)
            collect(client(url, tmp_path / "j", **more))
            assert len(server.requests) == before + COUNT, more
        before = len(server.requests)
        collect(client(url, tmp_path / "j", concurrency=1, attempts=1, input_price=9.0))
        assert len(server.requests) == before
    answers = collect(client(url, tmp_path / "j"))  # the server is gone and not needed
    assert all(answer.restored and answer.verdict == parse(GOOD) for answer in answers.values())


def test_an_error_of_the_caller_stops_the_run_as_it_is(tmp_path: Path) -> None:
    def failing() -> Iterator[AnnotationRequest]:
        yield from requests(2)
        raise OSError("unreadable photo")

    with always(200, GOOD).running() as server:
        annotator = client(server.base_url, tmp_path / "j")
        with pytest.raises(OSError, match="unreadable photo"):
            annotator.annotate(failing(), lambda answer: None)
        with pytest.raises(KeyError, match="unexpected"):
            annotator.annotate(requests(), lambda answer: {}[f"unexpected {answer.id}"])


def test_settings_are_checked_and_cost_is_counted_per_million_tokens() -> None:
    settings = ClientSettings(input_price=0.5, output_price=2.0, currency="EUR")
    assert settings.cost(3_000_000, 250_000) == pytest.approx(2.0)
    for field, value in (
        ("api_key_variable", "sk-proj-123"),
        ("base_url", "localhost:8000"),
        ("base_url", "http://user:pass@host/v1"),
        ("currency", "euro"),
        ("structured", "perhaps"),
    ):
        with pytest.raises(ValidationError, match=field):
            ClientSettings(**{field: value})
