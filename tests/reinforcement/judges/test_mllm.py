"""The judge `mllm` against a real server that answers, stalls, cuts, garbles, rate-limits and breaks."""

import json
import socket
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from components.chat.journal import Journal
from components.reinforcement.judges.judge import AttributeJudge, EditCase, attribute_compliance, judge_all
from components.reinforcement.judges.mllm import JudgeError, Judgement, MllmJudge, MllmSettings
from components.reinforcement.judges.settings import JudgeSettings, make_judge
from components.reinforcement.rewards.artist import ArtistRewardSettings
from components.verdict.grammar import Suggestion, Verdict, suggest
from tests.chat.serving import CUT, GARBLED, HALF, ODD, STALL, TRICKLE, ModelServer, grey_of
from tests.conftest import make_photo

ONE, TWO = '{"1": "yes"}', '{"1": "no", "2": "yes"}'


def verdict(*suggestions: Suggestion) -> Verdict:
    return Verdict(reasoning=("a",) * 5, suggestions=suggestions, score=50.0)


BRIGHTEN, BOTH = verdict(suggest("exposure", 0.5)), verdict(suggest("exposure", 0.5), suggest("noise"))


def case(*levels: float, judged: Verdict = BRIGHTEN) -> EditCase:
    """Plain grey edits of these levels, 0 to 255."""
    return EditCase(make_photo(16, 24, seed=0), torch.stack([torch.full((3, 16, 24), x / 255) for x in levels]), judged)


def chance(picture: bytes) -> float:
    return round(grey_of(picture)) / 255


def serving(behave: Callable[[bytes, int], tuple[int, str]], **more: object) -> ModelServer:
    return ModelServer(behave, chance=chance, **more)


def judge(url: str, journal: Path, **more: object) -> MllmJudge:
    fields = {"base_url": url, "model": "m", "attempts": 3, "first_backoff": 0.01, "concurrency": 3}
    return MllmJudge(MllmSettings(**(fields | more)), journal)


def test_compliance_is_the_mean_probability_of_yes_over_the_suggestions(tmp_path: Path) -> None:
    cases = [case(0, 51, 255), case(102, judged=BOTH)]
    texts = {102: TWO}
    with serving(lambda picture, before: (200, texts.get(round(grey_of(picture)), ONE))).running() as server:
        first, second = judge(server.base_url, tmp_path / "j").compliance(cases)
    torch.testing.assert_close(first, torch.tensor([0.0, 0.2, 1.0]))
    torch.testing.assert_close(second, torch.tensor([0.4]))
    assert first.dtype == torch.float32 and all(count == 1 for count in server.asked.values())
    assert {body["temperature"] for body in server.bodies} == {0.0}
    assert all(body["logprobs"] and body["top_logprobs"] == 20 for body in server.bodies)
    (asked,) = (body for body in server.bodies if '"2"' in body["messages"][1]["content"][2]["text"])
    assert asked["response_format"]["json_schema"]["schema"]["required"] == ["1", "2"]
    assert "2. Remove the noise." in asked["messages"][1]["content"][2]["text"]


def test_no_cases_need_no_server(tmp_path: Path) -> None:
    assert judge("http://127.0.0.1:9/v1", tmp_path / "j").compliance([]) == []


def test_nothing_is_asked_twice_and_only_what_is_new_is_asked(tmp_path: Path) -> None:
    with serving(lambda picture, before: (200, ONE)).running() as server:
        found = judge(server.base_url, tmp_path / "j").compliance([case(10, 20, 10)])
        assert len(server.requests) == 2, "the same edit twice is one question"
        again = judge(server.base_url, tmp_path / "j")
        torch.testing.assert_close(again.compliance([case(10, 20, 10)]), found, rtol=0, atol=0)
        assert again.asked == 0 and len(server.requests) == 2
        again.compliance([case(11), case(10)])
        again.compliance([case(10, judged=verdict(suggest("exposure", 0.6)))])
        assert len(server.requests) == 4
        judge(server.base_url, tmp_path / "j", model="n").compliance([case(10)])
        judge(server.base_url, tmp_path / "j", longest_side=16).compliance([case(10)])
        assert len(server.requests) == 6, "another model, or other pictures, make another question"
    gone = judge(server.base_url, tmp_path / "j")
    torch.testing.assert_close(gone.compliance([case(10, 20, 10)]), found, rtol=0, atol=0)


def test_requests_in_flight_are_limited_and_used(tmp_path: Path) -> None:
    three_came = threading.Event()

    def behave(picture: bytes, before: int) -> tuple[int, str]:
        if len(server.requests) >= 3:
            three_came.set()
        three_came.wait(60)
        return 200, ONE

    with serving(behave).running() as server:
        (scores,) = judge(server.base_url, tmp_path / "j", read_timeout=120.0).compliance([case(*range(0, 100, 10))])
    assert server.peak == 3 and len(scores) == 10


@pytest.mark.parametrize("trouble", [STALL, CUT, GARBLED, ODD, TRICKLE, "429", "500"])
def test_a_trouble_that_passes_changes_nothing(trouble: str, tmp_path: Path) -> None:
    status = int(trouble) if trouble.isdigit() else 200
    with serving(lambda picture, before: (200, ONE) if before else (status, trouble)).running() as server:
        asking = judge(server.base_url, tmp_path / "j", read_timeout=0.3, answer_timeout=0.5)
        (scores,) = asking.compliance([case(51)])
    torch.testing.assert_close(scores, torch.tensor([0.2]))
    assert asking.asked == 2


def test_an_answer_that_cannot_be_read_is_repaired_once(tmp_path: Path) -> None:
    with serving(lambda picture, before: (200, ONE if before else '{"1": "perhaps"}')).running() as server:
        (scores,) = judge(server.base_url, tmp_path / "j").compliance([case(51)])
    torch.testing.assert_close(scores, torch.tensor([0.2]))
    said, complaint = server.bodies[1]["messages"][2:]
    assert said == {"role": "assistant", "content": '{"1": "perhaps"}'} and "cannot be read" in complaint["content"]


@pytest.mark.parametrize(
    ("status", "text", "asked", "message"),
    [
        (200, STALL, 3, "did not answer in 3 attempts"),
        (200, CUT, 3, "did not answer in 3 attempts"),
        (200, GARBLED, 3, "not a chat completion"),
        (500, "broken", 3, "HTTP 500.*broken"),
        (429, "slow down", 3, "HTTP 429"),
        (200, "I would rather not say.", 2, "cannot be read, 1 repairs later"),
        (200, HALF, 2, "cut off"),
        (400, "logprobs is not supported", 1, "probability: stated"),
        (401, "who are you", 1, "OPENAI_API_KEY"),
        (404, "no such model", 1, "check base_url, model"),
    ],
)
def test_a_judge_that_gives_no_judgement_stops_the_run(
    status: int, text: str, asked: int, message: str, tmp_path: Path
) -> None:
    with serving(lambda picture, before: (status, text)).running() as server:
        asking = judge(server.base_url, tmp_path / "j", read_timeout=0.2)
        with pytest.raises(JudgeError, match=message) as caught:
            asking.compliance([case(51)])
    assert server.base_url in str(caught.value) or "cannot be read" in str(caught.value)
    assert str(tmp_path / "j") in str(caught.value)
    assert asking.asked == asked
    with Journal(tmp_path / "j", Judgement) as journal:
        assert len(journal) == 0, "and leaves no judgement behind"


def test_a_judge_that_is_not_there_is_named_with_what_to_do(tmp_path: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound and not listening: connections are refused
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/v1"
        with pytest.raises(JudgeError, match=r"vllm serve m.*base_url in reinforce\.rollouts\.judge") as caught:
            judge(url, tmp_path / "j").compliance([case(51)])
    assert url in str(caught.value)


def test_what_was_judged_before_the_judge_broke_is_kept(tmp_path: Path) -> None:
    def behave(picture: bytes, before: int) -> tuple[int, str]:
        return (500, "broken") if len(server.asked) > 2 and not mended else (200, ONE)

    mended = False
    with serving(behave).running() as server:
        with pytest.raises(JudgeError, match="2 judgements are kept"):
            judge(server.base_url, tmp_path / "j", concurrency=1).compliance([case(10, 20, 30, 40)])
        asked, mended = len(server.requests), True
        (scores,) = judge(server.base_url, tmp_path / "j").compliance([case(10, 20, 30, 40)])
        assert len(server.requests) == asked + 2
    torch.testing.assert_close(scores, torch.tensor([10.0, 20.0, 30.0, 40.0]) / 255)


def test_a_server_without_probabilities_is_told_apart_and_can_state_them(tmp_path: Path) -> None:
    silent = ModelServer(lambda picture, before: (200, ONE))
    with silent.running(), pytest.raises(JudgeError, match="probability: stated"):
        judge(silent.base_url, tmp_path / "j").compliance([case(51)])
    with ModelServer(lambda picture, before: (200, json.dumps({"1": 0.25}))).running() as server:
        asking = judge(server.base_url, tmp_path / "j", probability="stated", structured=False)
        torch.testing.assert_close(asking.compliance([case(51)]), [torch.tensor([0.25])])
    assert not {"response_format", "logprobs"} & server.bodies[0].keys()


def test_the_key_is_sent_and_kept_out_of_the_journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JUDGE_KEY", "secret-7")
    with serving(lambda picture, before: (200, ONE)).running() as server:
        judge(server.base_url, tmp_path / "j", api_key_variable="JUDGE_KEY").compliance([case(51)])
    assert server.headers[0]["authorization"] == "Bearer secret-7"
    assert "secret-7" not in (tmp_path / "j").read_text()


def test_the_judge_is_a_matter_of_configuration(tmp_path: Path) -> None:
    rewards = ArtistRewardSettings(full_effect=0.25)
    measured = make_judge(JudgeSettings(), rewards, None)
    assert isinstance(measured, AttributeJudge)
    asked = case(10, 200)
    torch.testing.assert_close(measured.compliance([asked]), [attribute_compliance(asked, rewards)])
    chosen = JudgeSettings(kind="mllm", model="m")
    assert make_judge(chosen, rewards, tmp_path / "j").settings is chosen
    assert JudgeSettings().base_url.startswith("http://localhost:"), "nothing leaves the machine by default"
    with pytest.raises(ValueError, match="journal"):
        make_judge(chosen, rewards, None)


def test_where_no_verdict_parsed_there_is_no_score() -> None:
    seen: list[int] = []

    class Counting:
        def compliance(self, cases: list[EditCase]) -> list[Tensor]:
            seen.append(len(cases))
            return [torch.tensor([float(item.edits.mean())]) for item in cases]

    scores = judge_all(Counting(), [None, case(51), None, case(102)])
    assert [score and round(float(score), 3) for score in scores] == [None, 0.2, None, 0.4] and seen == [2]
