"""Annotation and judging by `transformers serve`, started here with tiny Qwen2.5-VL models on the processor."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import torch
from tokenizers import AddedToken
from transformers import AutoProcessor, Qwen2_5_VLForConditionalGeneration

from components.annotation.annotators import AnnotationRequest, AnnotatorAnswer
from components.annotation.client import ClientSettings, OpenAICompatibleAnnotator
from components.reinforcement.judges.judge import EditCase
from components.reinforcement.judges.mllm import JudgeError, MllmJudge, MllmSettings
from components.verdict.grammar import Verdict, parse, render, suggest
from tests.conftest import make_photo

pytestmark = pytest.mark.slow

VERDICT = render(Verdict(reasoning=("some noise",) * 5, suggestions=(suggest("exposure", 0.5),), score=42.0))
_PATIENCE = 600.0
"""Seconds that a busy machine may take to import the libraries or to load a model."""
_ATTEMPTS = 4
"""Requests that one call may cost: a server that is busy loading a model drops connections it takes for idle."""
_BUSY = {"attempts": _ATTEMPTS, "read_timeout": _PATIENCE}


@pytest.fixture(scope="module")
def speaking(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model that writes one verdict."""
    return write_speaking(base, tmp_path_factory.mktemp("speaking"), VERDICT)


def write_speaking(base: Path, folder: Path, text: str) -> Path:
    """The tiny Critic with weights that make it write one text: a table of which token follows which.

    The text is one token of the vocabulary. Attention and MLP add nothing to the residual stream, so what the head
    sees is the embedding of the last token, and it maps the prompt's last token to the text, the text to the end.
    """
    processor = AutoProcessor.from_pretrained(base / "critic")
    tokenizer = processor.tokenizer
    tokenizer.add_tokens([AddedToken(text, normalized=False, special=False)])
    said, end = tokenizer.convert_tokens_to_ids([text, "<|im_end|>"])
    (last,) = tokenizer("\n")["input_ids"]
    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(base / "critic")
    model.resize_token_embeddings(len(tokenizer))
    width = model.config.text_config.hidden_size
    with torch.no_grad():
        embeddings = model.get_input_embeddings().weight
        head = torch.nn.Linear(width, len(tokenizer), bias=False)
        head.weight.zero_()
        for token, follower, channel in ((last, said, 0), (said, end, 1)):
            embeddings[token] = torch.eye(width)[channel]
            head.weight[follower, channel] = 20.0
        for layer in model.model.language_model.layers:
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
    model.set_output_embeddings(head)
    model.config.tie_word_embeddings = model.config.text_config.tie_word_embeddings = False
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Root of the API of a running `transformers serve`."""
    folder = tmp_path_factory.mktemp("serve")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    program = Path(sys.executable).with_name("transformers")
    command = [str(program), "serve", "--host", "127.0.0.1", "--port", str(port), "--device", "cpu"]
    environment = {**os.environ, "HF_HOME": str(folder), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)
    try:
        deadline = time.monotonic() + _PATIENCE
        while not _healthy(port):
            assert process.poll() is None and time.monotonic() < deadline, (folder / "log").read_text()
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _healthy(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/health", timeout=5).status_code == 200
    except httpx.TransportError:
        return False


def collect(url: str, model: Path, journal: Path, **more: object) -> list[AnnotatorAnswer]:
    settings = ClientSettings(base_url=url, model=str(model), concurrency=2, **_BUSY, **more)
    views = [make_photo(56, 84, seed=index) for index in range(3)]
    answers: list[AnnotatorAnswer] = []
    requests = (AnnotationRequest(f"photo-{index}", view, view) for index, view in enumerate(views))
    OpenAICompatibleAnnotator(settings, journal).annotate(requests, answers.append)
    return sorted(answers, key=lambda answer: answer.id)


def test_verdicts_come_through_a_real_server(server: str, speaking: Path, tmp_path: Path) -> None:
    answers = collect(server, speaking, tmp_path / "j")
    assert [answer.id for answer in answers] == ["photo-0", "photo-1", "photo-2"]
    assert all(answer.verdict == parse(VERDICT) for answer in answers), answers
    assert all(1 <= answer.requests <= _ATTEMPTS and not answer.repaired for answer in answers), answers
    assert all(answer.input_tokens > 200 and answer.output_tokens in (1, 2) for answer in answers), answers
    again = collect(server, speaking, tmp_path / "j")
    assert all(answer.restored and answer.verdict == parse(VERDICT) for answer in again)


def test_what_an_untrained_model_writes_is_repaired_once_and_then_dropped(
    server: str, base: Path, tmp_path: Path
) -> None:
    answers = collect(server, base / "critic", tmp_path / "j", max_tokens=6)
    assert len(answers) == 3
    for answer in answers:
        assert answer.verdict is None and answer.reason.startswith("not in the grammar: ")
        assert 2 <= answer.requests <= 2 * _ATTEMPTS and answer.repaired and 2 <= answer.output_tokens <= 12


def test_a_judge_behind_a_real_server_states_how_far_edits_follow(server: str, base: Path, tmp_path: Path) -> None:
    words = write_speaking(base, tmp_path / "words", '{"1": "yes", "2": "no"}')
    numbers = write_speaking(base, tmp_path / "numbers", '{"1": 0.25, "2": 0.75}')
    asked = Verdict(reasoning=("a",) * 5, suggestions=(suggest("exposure", 0.5), suggest("noise")), score=42.0)
    photo = make_photo(56, 84, seed=0)
    case = EditCase(photo, torch.stack([photo, photo.flip(-1)]), asked)
    settings = MllmSettings(base_url=server, model=str(words), concurrency=2, **_BUSY)
    with pytest.raises(JudgeError, match=r"no probabilities of tokens.*probability: stated"):
        MllmJudge(settings, tmp_path / "j").compliance([case])  # this server leaves logprobs out
    stating = settings.model_copy(update={"model": str(numbers), "structured": False, "probability": "stated"})
    judge = MllmJudge(stating, tmp_path / "j")
    assert [scores.tolist() for scores in judge.compliance([case])] == [[0.5, 0.5]] and judge.asked == 2
