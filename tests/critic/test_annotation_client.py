"""The annotation client against a real server that answers well, garbles, stalls, cuts, rate-limits and breaks."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from components.critic.annotation import AnnotationRequest, Answer
from components.critic.annotation_client import (
    INSTRUCTIONS,
    AnnotationServerError,
    ClientSettings,
    OpenAICompatibleAnnotator,
)
from components.critic.grammar import Verdict, parse, render, suggest
from components.images import from_png_bytes
from tests.critic.serving import CUT, HALF, STALL, ModelServer

GOOD = render(Verdict(reasoning=("noise",) * 5, suggestions=(suggest("exposure", 0.5),), score=42.0))
COUNT = 8


def requests(count: int = COUNT) -> Iterator[AnnotationRequest]:
    """Pictures that differ in their grey level."""
    for index in range(count):
        view = torch.full((3, 4, 4), index / 255)
        yield AnnotationRequest(f"photo-{index}", view, view)


def client(server_url: str, journal: Path, **more: object) -> OpenAICompatibleAnnotator:
    fields = {
        "base_url": server_url,
        "model": "m",
        "concurrency": 3,
        "attempts": 6,
        "timeout": 10.0,
        "first_backoff": 0.01,
        "longest_backoff": 0.1,
    }
    return OpenAICompatibleAnnotator(ClientSettings(**(fields | more)), journal)


def collect(annotator: OpenAICompatibleAnnotator, count: int = COUNT) -> dict[str, Answer]:
    answers: list[Answer] = []
    annotator.annotate(requests(count), answers.append)
    assert len(answers) == len({answer.id for answer in answers}), "one answer for each request"
    return {answer.id: answer for answer in answers}


def test_instructions_contain_an_example_in_the_grammar() -> None:
    assert parse(INSTRUCTIONS[INSTRUCTIONS.index("<think>") : INSTRUCTIONS.index("</answer>") + len("</answer>")])


def test_a_good_server_is_asked_once_a_photo_within_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", "secret-7")
    with ModelServer(lambda picture, before: (200, GOOD), delay=0.05).running() as server:
        annotator = client(server.base_url, tmp_path / "journal.jsonl", api_key_variable="MY_KEY")
        answers = collect(annotator)
    assert {answer.verdict for answer in answers.values()} == {parse(GOOD)} and len(answers) == COUNT
    assert set(server.asked.values()) == {1} and annotator.asked == COUNT
    assert server.peak == 3
    assert {(answer.input_tokens, answer.output_tokens) for answer in answers.values()} == {(100, 10)}
    body = server.bodies[0]
    assert body["path"] == "/v1/chat/completions" and body["model"] == "m"
    assert body["messages"][1]["content"][1]["text"] == INSTRUCTIONS
    shown = {round(float(from_png_bytes(picture).mean()) * 255) for picture in server.asked}
    assert shown == set(range(COUNT))
    assert all(headers["authorization"] == "Bearer secret-7" for headers in server.headers)
    assert "secret-7" not in (tmp_path / "journal.jsonl").read_text()


def test_every_kind_of_trouble_is_retried_until_the_answer_comes(tmp_path: Path) -> None:
    trouble = [(500, "broken"), (429, "slow down"), (200, STALL), (200, CUT), (200, "I like it!")]

    def behave(picture: bytes, before: int) -> tuple[int, str]:
        return trouble[before] if before < len(trouble) else (200, GOOD)

    with ModelServer(behave).running() as server:
        answers = collect(client(server.base_url, tmp_path / "j", timeout=0.5), count=3)
    assert all(answer.verdict == parse(GOOD) for answer in answers.values())
    assert set(server.asked.values()) == {6}
    assert {answer.input_tokens for answer in answers.values()} == {200}, "tokens of the garbled answer count too"


def test_garbled_and_cut_off_answers_are_final_after_the_attempts(tmp_path: Path) -> None:
    def behave(picture: bytes, before: int) -> tuple[int, str]:
        return 200, HALF if before % 2 else GOOD.replace("</think>", "")

    with ModelServer(behave).running() as server:
        answers = collect(client(server.base_url, tmp_path / "j", attempts=4), count=2)
        assert {answer.reason for answer in answers.values()} == {"not in the grammar"}
        assert set(server.asked.values()) == {4}
        again = collect(client(server.base_url, tmp_path / "j", attempts=4), count=2)
        assert again == answers and set(server.asked.values()) == {4}, "not asked twice"


def test_a_refused_photo_is_reported_and_the_others_go_on(tmp_path: Path) -> None:
    def behave(picture: bytes, before: int) -> tuple[int, str]:
        return (400, "bad image") if float(from_png_bytes(picture).mean()) == 0 else (200, GOOD)

    with ModelServer(behave).running() as server:
        answers = collect(client(server.base_url, tmp_path / "j"))
    assert answers["photo-0"].reason == "refused by the server: 400"
    assert sum(answer.verdict is not None for answer in answers.values()) == COUNT - 1
    assert set(server.asked.values()) == {1}


def test_a_wrong_key_stops_at_once_and_says_where_it_is_set(tmp_path: Path) -> None:
    with (
        ModelServer(lambda picture, before: (401, "who are you?")).running() as server,
        pytest.raises(AnnotationServerError, match="OPENAI_API_KEY"),
    ):
        collect(client(server.base_url, tmp_path / "j"), count=50)
    assert sum(server.asked.values()) <= 6


def test_a_server_that_is_down_is_given_up_early(tmp_path: Path) -> None:
    with ModelServer(lambda picture, before: (200, GOOD)).running() as server:
        url = server.base_url
    annotator = client(url, tmp_path / "j", attempts=2)
    with pytest.raises(AnnotationServerError, match="check the server"):
        collect(annotator, count=1000)
    assert annotator.asked < 40
    assert (tmp_path / "j").read_text() == ""


def test_unanswered_photos_are_an_error_and_asked_again_next_time(tmp_path: Path) -> None:
    broken = threading.Event()
    broken.set()

    def behave(picture: bytes, before: int) -> tuple[int, str]:
        if broken.is_set() and float(from_png_bytes(picture).mean()) == 0:
            return 500, "broken"
        return 200, GOOD

    with ModelServer(behave).running() as server:
        with pytest.raises(AnnotationServerError, match=f"1 of {COUNT} photos got no answer"):
            collect(client(server.base_url, tmp_path / "j", attempts=2))
        lenient = collect(client(server.base_url, tmp_path / "j", attempts=2, max_unanswered=0.2))
        assert [answer.id for answer in lenient.values() if answer.reason == "no answer"] == ["photo-0"]
        broken.clear()
        answers = collect(client(server.base_url, tmp_path / "j"))
    assert all(answer.verdict for answer in answers.values()) and len(answers) == COUNT
    assert sorted(server.asked.values()) == [1] * (COUNT - 1) + [5]


def test_the_journal_serves_the_same_question_only(tmp_path: Path) -> None:
    with ModelServer(lambda picture, before: (200, GOOD)).running() as server:
        collect(client(server.base_url, tmp_path / "j"))
        collect(client(server.base_url, tmp_path / "j"))
        assert sum(server.asked.values()) == COUNT
        collect(client(server.base_url, tmp_path / "j", model="another"))
        assert sum(server.asked.values()) == 2 * COUNT
        lines = (tmp_path / "j").read_bytes().splitlines(keepends=True)
        (tmp_path / "j").write_bytes(b"".join(lines[:-1]) + lines[-1][:20])
        collect(client(server.base_url, tmp_path / "j", model="another"))
        assert sum(server.asked.values()) == 2 * COUNT + 1
    assert len((tmp_path / "j").read_bytes().splitlines()) == 2 * COUNT


def test_a_foreign_file_is_not_taken_for_a_journal(tmp_path: Path) -> None:
    (tmp_path / "j").write_text("dear diary\n")
    with pytest.raises(ValueError, match="JSON object a line"):
        collect(client("http://127.0.0.1:9/v1", tmp_path / "j"))


def test_killed_runs_lose_no_answer_and_ask_for_none_twice(tmp_path: Path) -> None:
    """kill -9 three times at different moments; afterwards every photo has exactly one answer."""
    journal, count = tmp_path / "journal.jsonl", 24
    program = (
        "import sys; from pathlib import Path\n"
        "from tests.critic.test_annotation_client import client, requests\n"
        "client(sys.argv[1], Path(sys.argv[2])).annotate(requests(int(sys.argv[3])), lambda answer: None)\n"
    )
    with ModelServer(lambda picture, before: (200, GOOD), delay=0.1).running() as server:
        finished: dict[str, bytes] = {}
        for wanted in (2, 9, 15):
            command = [sys.executable, "-c", program, server.base_url, str(journal), str(count)]
            process = subprocess.Popen(command, cwd=Path(__file__).parents[2])
            deadline = time.monotonic() + 120
            while len(_lines(journal)) < wanted and process.poll() is None and time.monotonic() < deadline:
                time.sleep(0.005)
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
            done = {json.loads(line)["id"]: line for line in _lines(journal)}
            assert len(done) >= wanted and finished.items() <= done.items()
            finished = done
        before = sum(server.asked.values())
        answers = collect(client(server.base_url, journal), count)
        assert sum(server.asked.values()) == before + count - len(finished)
    assert len(answers) == count and all(answer.verdict == parse(GOOD) for answer in answers.values())
    identifiers = [json.loads(line)["id"] for line in _lines(journal)]
    assert len(identifiers) == len(set(identifiers)) == count
    assert sum(server.asked.values()) <= count + 3 * 3, "only what was in flight at a kill is asked again"


def _lines(journal: Path) -> list[bytes]:
    """Complete lines of the journal so far."""
    content = journal.read_bytes() if journal.exists() else b""
    return [line for line in content.splitlines(keepends=True) if line.endswith(b"\n")]
