"""The annotator that asks a large vision-language model behind any OpenAI-compatible server, such as vLLM.

Built for tens of thousands of photos: a fixed number of requests in flight, bounded retries with backoff, answers
validated against a schema or the Critic's grammar and repaired once, and a journal on disk, so that a run that was
killed goes on where it stopped without asking for any recorded answer again.
"""

import asyncio
import hashlib
import logging
import random
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

from pydantic import Field
from torch import Tensor

from components.annotation.annotators import AnnotationRequest, AnnotatorAnswer
from components.annotation.format import opening_messages, read_answer, rejoin, response_format, wording
from components.annotation.journal import AnnotationJournal, JournalEntry
from components.chat.answers import repair_messages
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
from components.verdict.grammar import GrammarError, Verdict
from components.verdict.prompt import SYSTEM

log = logging.getLogger(__name__)

NO_ANSWER, REFUSED, UNREADABLE = "no answer", "refused by the server", "not in the grammar"
"""Kinds of reasons for an answer without a verdict; all but the first are final."""
NAME_LENGTH = 16
"""Leading characters of a question's key in the X-Request-Id of its requests."""


class ClientSettings(ServerSettings):
    """Which server is asked, how hard, in which form, and what it costs."""

    section: ClassVar[str] = "annotate.client"

    concurrency: int = Field(default=16, ge=1, description="Requests in flight.")
    structured: Literal["auto", "always", "never"] = Field(
        default="auto",
        description='JSON schema as response_format; "auto" does without it when the server refuses it.',
    )
    repairs: int = Field(default=1, ge=0, le=3, description="Times a model may rewrite an answer that cannot be read.")
    longest_side: int = Field(default=1024, ge=16, description="Pictures are sent no larger than this, pixels.")
    jpeg_quality: int = Field(default=95, ge=1, le=100, description="Of the pictures sent, libjpeg scale.")
    temperature: float = Field(default=0.7, ge=0, le=2, description="Of sampling.")
    max_tokens: int = Field(default=1024, ge=1, description="Longest answer.")
    input_price: float = Field(default=0.0, ge=0, description="Per million tokens read, in the currency.")
    output_price: float = Field(default=0.0, ge=0, description="Per million tokens written, in the currency.")
    currency: str = Field(default="USD", pattern="^[A-Z]{3}$", description="ISO 4217 code of the prices.")
    max_unanswered: float = Field(
        default=0.01, ge=0, le=1, description="Largest share of photos that the server may fail to answer."
    )

    def cost(self, input_tokens: int, output_tokens: int) -> float:
        """Price of tokens, in the currency."""
        return (self.input_price * input_tokens + self.output_price * output_tokens) / 1e6


class OpenAICompatibleAnnotator:
    """Asks the model of `ClientSettings` and keeps every final answer in a journal.

    Args:
        settings: server, model and limits.
        journal: see `components.annotation.journal`; created when missing.
        others: further journals whose answers are not asked for again; only read.
    """

    def __init__(self, settings: ClientSettings, journal: Path, others: Iterable[Path] = ()) -> None:
        self.name = settings.model
        self.settings = settings
        self.journal = Path(journal)
        self.others = tuple(others)
        self.asked = 0
        """Chat completions that the last run asked for, retries and repairs included."""

    def annotate(self, requests: Iterable[AnnotationRequest], receive: Callable[[AnnotatorAnswer], None]) -> None:
        """See `components.annotation.annotators.Annotator.annotate`.

        An answer that cannot be read even after the repair, or that the server refuses to give, is final and comes back
        with its reason. A photo that got no answer at all comes back with reason "no answer" and is asked about again
        by the next run. When every answer is in the journal, the server is not needed.

        Raises:
            ChatServerError: the server is down, refuses the key, the model or every photo, has stopped answering,
                or more than `max_unanswered` of the photos got no answer.
            JournalError: the journal is in use by another process or is no journal.
        """
        asyncio.run(self._annotate(requests, receive))

    async def _annotate(
        self, requests: Iterable[AnnotationRequest], receive: Callable[[AnnotatorAnswer], None]
    ) -> None:
        settings = self.settings
        with AnnotationJournal(self.journal, self.others) as journal:
            async with ChatServer(settings, settings.concurrency) as server:
                run = _Run(settings, journal, server, requests, receive)
                try:
                    async with asyncio.TaskGroup() as workers:
                        for _ in range(settings.concurrency):
                            workers.create_task(run.work())
                except BaseExceptionGroup as group:
                    raise group.exceptions[0] from group
                finally:
                    self.asked = server.requests
            run.finish()


class _Run:
    """One run over all requests, shared by its workers."""

    def __init__(
        self,
        settings: ClientSettings,
        journal: AnnotationJournal,
        server: ChatServer,
        requests: Iterable[AnnotationRequest],
        receive: Callable[[AnnotatorAnswer], None],
    ) -> None:
        self.settings = settings
        self.journal = journal
        self.server = server
        self.receive = receive
        self._requests = iter(requests)
        self._turn = asyncio.Lock()
        self._checking = asyncio.Lock()
        self._checked = False
        self._structured = settings.structured != "never"
        self._accepts_format = settings.structured == "always"
        self._answers = False
        """Whether the server has answered about any photo; before, its refusals may be about the settings."""
        self._refusals: list[JournalEntry] = []
        self._window = 2 * settings.concurrency
        self._recent: deque[str | None] = deque(maxlen=self._window)
        self._photos = 0
        self._unanswered = 0

    async def work(self) -> None:
        """Take requests until there are none left."""
        while (question := await self._next()) is not None:
            self._photos += 1
            if known := self.journal.answer(question.key, question.id):
                self.receive(known)
                continue
            await self._make_sure_of_the_server()
            self._conclude(question.key, await self._ask(question))

    def finish(self) -> None:
        """Judge the run as a whole, when all requests are done."""
        if self._refusals:
            raise ChatServerError(
                f"{self.settings.base_url} has answered about no photo and refused {len(self._refusals)}, the first "
                f"with {self._refusals[0].reason!r}: check model, max_tokens, longest_side and the server's own limits"
            )
        if self._unanswered > self.settings.max_unanswered * self._photos:
            raise ChatServerError(
                f"{self._unanswered} of {self._photos} photos got no answer from {self.settings.base_url} in "
                f"{self.settings.attempts} attempts each; the other answers are in {self.journal.path}: run again for "
                "the rest"
            )

    async def _next(self) -> "_Question | None":
        """The next question, one at a time, made in a thread so that requests in flight are not held up."""
        async with self._turn:
            return await asyncio.to_thread(self._take)

    def _take(self) -> "_Question | None":
        request = next(self._requests, None)
        return None if request is None else _Question.of(request, self.settings)

    async def _make_sure_of_the_server(self) -> None:
        async with self._checking:
            if not self._checked:
                await self.server.check()
                self._checked = True

    def _conclude(self, key: str, answer: AnnotatorAnswer) -> None:
        """Record a final answer, hand it on, and stop the run when the server seems to be lost."""
        kind = answer.reason and answer.reason.partition(":")[0]
        entry = JournalEntry.of(key, self.settings.model, answer)
        if kind == NO_ANSWER:
            self._unanswered += 1
        elif kind == REFUSED and not self._answers:
            self._refusals.append(entry)  # final only once the server has shown that it answers about some photo
        else:
            self._answers = True
            for waiting in (*self._refusals, entry):
                self.journal.append(waiting)
            self._refusals.clear()
        self.receive(answer)
        self._recent.append(kind)
        if len(self._recent) < self._window:
            return
        if all(recent == NO_ANSWER for recent in self._recent):
            raise ChatServerError(
                f"{self.settings.base_url} has not answered about the last {len(self._recent)} photos; answers so far "
                f"are kept in {self.journal.path}: check the server and run again"
            )
        if not self._answers and all(self._recent):
            self.finish()

    async def _ask(self, question: "_Question") -> AnnotatorAnswer:
        """Ask until an answer can be read, is refused, or the repairs are used up."""
        conversation = _Conversation(jpeg_url(question.view, self.settings.jpeg_quality), question.key)
        verdict = reason = None
        repairs = 0
        while verdict is None:
            try:
                completion = await self._complete(conversation)
            except NoAnswer as error:
                reason = f"{NO_ANSWER}: {error}"
                break
            except RequestRefused as refusal:
                reason = reason or f"{REFUSED}: {refusal}"  # a refused repair leaves the answer unreadable
                break
            text = rejoin(completion.text, completion.thought)
            try:
                verdict, reason = await asyncio.to_thread(self._read, text, completion.cut_off), None
            except GrammarError as error:
                reason = f"{UNREADABLE}: {error}"
                log.info("%s: %s", question.id, reason)
                if repairs == self.settings.repairs:
                    break
                repairs += 1
                conversation.follow_up += repair_messages(text, error)
        effort = conversation.effort
        return AnnotatorAnswer(
            question.id,
            verdict,
            reason,
            effort.input_tokens,
            effort.output_tokens,
            requests=effort.requests,
            repaired=repairs > 0,
        )

    def _read(self, text: str, cut_off: bool) -> Verdict:
        """Raises `GrammarError` when the answer was cut off or cannot be read."""
        if cut_off:
            raise GrammarError(f"it was cut off at {self.settings.max_tokens} tokens")
        return read_answer(text)

    async def _complete(self, conversation: "_Conversation") -> Completion:
        """One completion, held to the schema if the server can do that.

        In the mode "auto", a refusal is tried again without the schema as long as none has come back with it; when that
        succeeds, the schema was what the server refused, and it is not sent again in this run.
        """
        if not self._structured:
            return await self._send(conversation, structured=False)
        try:
            completion = await self._send(conversation, structured=True)
            self._accepts_format = True
            return completion
        except RequestRefused:
            if self._accepts_format:
                raise
            completion = await self._send(conversation, structured=False)
            if self._structured and not self._accepts_format:
                self._structured = False
                log.warning("%s takes no JSON schema: asking for the grammar instead", self.settings.base_url)
            return completion

    async def _send(self, conversation: "_Conversation", structured: bool) -> Completion:
        body = {
            "model": self.settings.model,
            "messages": [*opening_messages(SYSTEM, conversation.picture_url, structured), *conversation.follow_up],
            "temperature": self.settings.temperature,
            "max_tokens": self.settings.max_tokens,
        }
        if structured:
            body["response_format"] = response_format()
        return await self.server.complete(body, conversation.name, conversation.jitter, conversation.effort)


class _Question(NamedTuple):
    """A photo as it is asked about."""

    id: str
    view: Tensor
    """(3, H, W), no larger than `longest_side`, on the 8-bit grid."""
    key: str
    """SHA-256 of what an answer depends on: another picture, model, wording or way of asking is another question."""

    @classmethod
    def of(cls, request: AnnotationRequest, settings: ClientSettings) -> "_Question":
        view = reduced(request.view, settings.longest_side)
        asking = (settings.model, settings.jpeg_quality, settings.temperature)
        parts = (request.id, SYSTEM, wording(), repr(asking), repr(tuple(view.shape)))
        digests = [hashlib.sha256(part.encode()).digest() for part in parts]
        return cls(request.id, view, hashlib.sha256(b"".join([*digests, digest(view)])).hexdigest())


class _Conversation:
    """What is said about one picture, and what it has taken."""

    def __init__(self, picture_url: str, key: str) -> None:
        self.picture_url = picture_url
        self.name = key[:NAME_LENGTH]
        self.jitter = random.Random(key)
        self.effort = Effort()
        self.follow_up: list[dict[str, Any]] = []
