"""The judge `mllm`: a multimodal model behind an OpenAI-compatible server says whether edits follow suggestions.

An unreachable judge, or one whose answer cannot be read even after a repair, stops the run. Neither a zero nor the
other judge stands in for it: both would be rewards that nobody gave. Every judgement is on disk before it is used.
"""

import asyncio
import hashlib
import logging
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import torch
from pydantic import Field
from torch import Tensor

from components.chat.answers import repair_messages
from components.chat.journal import Journal, KeyedEntry
from components.chat.pictures import digest, jpeg_url, reduced
from components.chat.replies import Completion
from components.chat.server import (
    ChatServer,
    ChatServerError,
    Effort,
    NoAnswer,
    RequestRefused,
    ServerSettings,
)
from components.reinforcement.judges.judge import EditCase
from components.reinforcement.judges.questions import (
    Reading,
    UnreadableAnswer,
    asked_for,
    longest_answer,
    messages,
    read_probabilities,
    response_format,
    wording,
)

log = logging.getLogger(__name__)

_ALTERNATIVES = 20
"""Likeliest tokens whose probabilities are asked for; the most that OpenAI and vLLM give by default."""
_NAME_LENGTH = 16
"""Leading characters of a question's key in the X-Request-Id of its requests."""


class MllmSettings(ServerSettings):
    """Which model is asked, how many questions at a time, and how its answer is read."""

    section: ClassVar[str] = "reinforce.rollouts.judge"

    model: str = Field(default="Qwen/Qwen2.5-VL-7B-Instruct", description="Model name, as the server knows it.")
    read_timeout: float = Field(default=60.0, gt=0, description="Longest silence of the server, seconds.")
    concurrency: int = Field(default=16, ge=1, description="Requests in flight, of this process.")
    probability: Reading = Field(
        default="token",
        description='"token": the model\'s own probability of "yes" (needs logprobs); "stated": a number it writes.',
    )
    structured: bool = Field(default=True, description="Hold answers to a JSON schema (needs response_format).")
    repairs: int = Field(default=1, ge=0, le=3, description="Times a model may rewrite an answer that cannot be read.")
    longest_side: int = Field(default=1024, ge=16, description="Pictures are sent no larger than this, pixels.")
    jpeg_quality: int = Field(default=95, ge=1, le=100, description="Of the pictures sent, libjpeg scale.")


class JudgeError(RuntimeError):
    """The judge gave no judgement; the message says why, what to do, and where those it gave are kept."""


class Judgement(KeyedEntry):
    """What the judge said of one edit."""

    model: str
    suggestions: tuple[str, ...] = Field(description="What the edit should have done, for people to read.")
    probabilities: tuple[float, ...] = Field(description="That each suggestion was followed.", min_length=1)
    input_tokens: int = Field(ge=0)
    output_tokens: int = Field(ge=0)
    requests: int = Field(ge=1, description="Sent for it, retries and repairs included.")

    @property
    def compliance(self) -> float:
        """r_comp in [0, 1]: the mean over the suggestions."""
        return sum(self.probabilities) / len(self.probabilities)


class _Question(NamedTuple):
    """An edit as it is asked about; both pictures (3, H, W) reduced, on the 8-bit grid."""

    key: str
    suggestions: tuple[str, ...]
    before: Tensor
    after: Tensor


class MllmJudge:
    """Asks the model of `MllmSettings` about edits and keeps every judgement in a journal.

    The same question (model, wording, pictures, suggestions) is never asked twice, so an iteration of stage III that is
    repeated after a kill gets the rewards it had, however the server samples.

    Args:
        settings: server, model and limits.
        journal: a file of this process alone; created when missing.
    """

    def __init__(self, settings: MllmSettings, journal: Path) -> None:
        self.settings = settings
        self.journal = Path(journal)
        self.asked = 0
        """Chat completions asked for so far, retries and repairs included."""
        self._checked = False

    def compliance(self, cases: Sequence[EditCase]) -> list[Tensor]:
        """See `components.reinforcement.judges.judge.Judge.compliance`.

        Raises:
            JudgeError: the server is down, refuses the key, the model or a question, or its answer cannot be read.
            JournalError: the journal is in use by another process or is no journal.
        """
        questions = [self._questions(case) for case in cases]
        with Journal(self.journal, Judgement) as journal:
            unanswered = {q.key: q for row in questions for q in row if journal.get(q.key) is None}
            if unanswered:
                asyncio.run(self._ask_all(list(unanswered.values()), journal))
            scores = [[journal.known(question.key).compliance for question in row] for row in questions]
        return [torch.tensor(row, device=case.edits.device) for row, case in zip(scores, cases, strict=True)]

    def _questions(self, case: EditCase) -> list[_Question]:
        settings, suggestions = self.settings, asked_for(case.verdict)
        before = reduced(case.source.cpu(), settings.longest_side)
        asking = (settings.model, settings.jpeg_quality, settings.probability, settings.structured, tuple(before.shape))
        parts = (wording(), repr(asking), repr(suggestions))
        shared = b"".join([*(hashlib.sha256(part.encode()).digest() for part in parts), digest(before)])
        afters = [reduced(edit, settings.longest_side) for edit in case.edits.cpu()]
        return [
            _Question(hashlib.sha256(shared + digest(after)).hexdigest(), suggestions, before, after)
            for after in afters
        ]

    async def _ask_all(self, questions: list[_Question], journal: Journal[Judgement]) -> None:
        waiting = iter(questions)
        try:
            async with ChatServer(self.settings, self.settings.concurrency) as server:
                try:
                    if not self._checked:
                        await server.check()
                        self._checked = True
                    async with asyncio.TaskGroup() as workers:
                        for _ in range(min(self.settings.concurrency, len(questions))):
                            workers.create_task(self._work(waiting, server, journal))
                finally:
                    self.asked += server.requests
        except BaseExceptionGroup as group:
            raise self._explained(group.exceptions[0], journal) from group
        except ChatServerError as error:
            raise self._explained(error, journal) from error

    def _explained(self, error: BaseException, journal: Journal[Judgement]) -> BaseException:
        settings = self.settings
        match error:
            case ChatServerError():
                reason = str(error)
            case NoAnswer():
                reason = (
                    f"{settings.base_url} did not answer in {settings.attempts} attempts, at last with {error}: check "
                    f"the server, or raise attempts or the time-outs in {settings.section}"
                )
            case RequestRefused():
                reason = (
                    f"{settings.base_url} refuses a question ({error}): check the server's limits; one that takes no "
                    f"response_format needs structured: false, one without logprobs probability: stated, both in "
                    f"{settings.section}"
                )
            case UnreadableAnswer():
                reason = (
                    f"an answer of {settings.model} cannot be read, {settings.repairs} repairs later: {error}; "
                    "serve another model, or hold it to the schema (structured: true)"
                )
            case _:
                return error
        return JudgeError(
            f"no judgement from the judge mllm: {reason}. {len(journal)} judgements are kept in {journal.path} and are "
            "not asked for again: the same command resumes from the last checkpoint"
        )

    async def _work(self, waiting: Iterator[_Question], server: ChatServer, journal: Journal[Judgement]) -> None:
        """Ask one question after another until there are none left."""
        for question in waiting:
            journal.append(await self._ask(question, server))

    async def _ask(self, question: _Question, server: ChatServer) -> Judgement:
        settings, count = self.settings, len(question.suggestions)
        before, after = [
            await asyncio.to_thread(jpeg_url, picture, settings.jpeg_quality)
            for picture in (question.before, question.after)
        ]
        conversation = messages(question.suggestions, before, after, settings.probability)
        jitter, effort, repairs = random.Random(question.key), Effort(), 0
        probabilities: tuple[float, ...] | None = None
        while probabilities is None:
            completion = await self._complete(conversation, count, question.key, server, jitter, effort)
            try:
                probabilities = await asyncio.to_thread(read_probabilities, completion, count, settings.probability)
            except UnreadableAnswer as error:
                log.info("%s: %s", question.key[:_NAME_LENGTH], error)
                if repairs == settings.repairs:
                    raise
                repairs += 1
                conversation += repair_messages(completion.text, error)
        return Judgement(
            key=question.key,
            model=settings.model,
            suggestions=question.suggestions,
            probabilities=probabilities,
            input_tokens=effort.input_tokens,
            output_tokens=effort.output_tokens,
            requests=effort.requests,
        )

    async def _complete(
        self,
        conversation: list[dict[str, Any]],
        count: int,
        key: str,
        server: ChatServer,
        jitter: random.Random,
        effort: Effort,
    ) -> Completion:
        settings = self.settings
        body = {
            "model": settings.model,
            "messages": conversation,
            "temperature": 0.0,
            "max_tokens": longest_answer(count),
        }
        if settings.structured:
            body["response_format"] = response_format(count, settings.probability)
        if settings.probability == "token":
            body |= {"logprobs": True, "top_logprobs": _ALTERNATIVES}
        return await server.complete(body, key[:_NAME_LENGTH], jitter, effort)
