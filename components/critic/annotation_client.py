"""The annotator that asks a large vision-language model behind any OpenAI-compatible server, such as vLLM.

Built for tens of thousands of photos: a fixed number of requests in flight, bounded retries with backoff, answers
checked against the Critic's grammar, and a journal on disk, so that a run that was killed goes on where it stopped
without asking for any answer twice.
"""

import asyncio
import base64
import hashlib
import json
import logging
import os
import random
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import IO

import openai
from pydantic import Field

from components.critic.annotation import AnnotationRequest, Answer
from components.critic.grammar import NOTHING, RESTORATIONS, SECTIONS, GrammarError, Verdict, parse, render, suggest
from components.critic.prompt import SYSTEM
from components.images import to_png_bytes
from components.strict import Strict

log = logging.getLogger(__name__)

_REFUSED = (400, 413, 415, 422)  # the server has judged this one request; another attempt would end the same

INSTRUCTIONS = (
    f"You are judging a photograph as an experienced photo editor. Look for technical defects "
    f"({', '.join(RESTORATIONS.values())}) and for faults of exposure, contrast, saturation and white balance, with "
    "their severity. Answer in exactly this format and write nothing before or after it:\n\n"
    + render(
        Verdict(
            reasoning=(
                "technical quality and every defect with its severity",
                "exposure, contrast, saturation and white balance, each too low, fine or too high",
                "framing, balance and where the eye is led",
                "the impression as a whole",
                "what should be done first and why",
            ),
            suggestions=(suggest("noise"), suggest("exposure", 0.7), suggest("temperature", -40.0)),
            score=62.0,
        )
    )
    + f"\n\nKeep the tags and the five numbered sections ({', '.join(SECTIONS)}). Suggest only feasible edits for the "
    "most severe problems, one a line, with an amount in EV for exposure, in percent for contrast and saturation and "
    f'in mired for white balance; if nothing needs doing, write "1. {NOTHING}". The answer is the quality of the photo '
    "from 0 (worst) to 100."
)


class ClientSettings(Strict):
    """Where the model is served and how hard to ask."""

    base_url: str = Field(default="http://localhost:8000/v1", description="Root of the OpenAI-compatible API.")
    model: str = Field(default="Qwen/Qwen2.5-VL-72B-Instruct", description="Model name, as the server knows it.")
    api_key_variable: str = Field(
        default="OPENAI_API_KEY", description="Environment variable that holds the key; unset for servers without one."
    )
    concurrency: int = Field(default=16, ge=1, description="Requests in flight.")
    attempts: int = Field(default=5, ge=1, description="Times a photo is asked about before it is given up.")
    timeout: float = Field(default=120.0, gt=0, description="Seconds for one answer.")
    first_backoff: float = Field(default=1.0, ge=0, description="Seconds before the second attempt; doubles after it.")
    longest_backoff: float = Field(default=60.0, ge=0, description="Longest pause, also when the server asks for more.")
    temperature: float = Field(default=0.7, ge=0, le=2, description="Of sampling; above 0 a retry can differ.")
    max_tokens: int = Field(default=1024, ge=1, description="Longest answer.")
    max_unanswered: float = Field(
        default=0.01, ge=0, le=1, description="Largest share of requests that the server may fail to answer."
    )


class AnnotationServerError(RuntimeError):
    """The server cannot be used or left too much unanswered; answers so far are in the journal."""


class OpenAICompatibleAnnotator:
    """Asks the model of `ClientSettings` and keeps every final answer in a journal.

    Args:
        settings: server, model and limits.
        journal: JSON Lines file, created when missing; one line for each final answer. A line that a kill cut short
            is dropped when the journal is opened again.
    """

    def __init__(self, settings: ClientSettings, journal: Path) -> None:
        self.name = settings.model
        self.settings = settings
        self.journal = Path(journal)
        self.asked = 0
        """Requests sent to the server so far, retries included."""

    def annotate(self, requests: Iterable[AnnotationRequest], receive: Callable[[Answer], None]) -> None:
        """See `components.critic.annotation.Annotator.annotate`.

        An answer that stays outside the grammar after all attempts, or that the server refuses to give, is final and
        comes back with its reason. Requests that got no answer at all come back with reason "no answer" and are asked
        again by the next run.

        Raises:
            AnnotationServerError: authentication failed, the model is unknown, the server stopped answering, or more
                than `max_unanswered` of the requests got no answer.
        """
        asyncio.run(self._annotate(requests, receive))

    async def _annotate(self, requests: Iterable[AnnotationRequest], receive: Callable[[Answer], None]) -> None:
        known = _open_journal(self.journal)
        settings = self.settings
        client = openai.AsyncOpenAI(
            base_url=settings.base_url,
            api_key=os.environ.get(settings.api_key_variable) or "none",
            timeout=settings.timeout,
            max_retries=0,
        )
        slots = asyncio.Semaphore(settings.concurrency)
        outcomes: list[bool] = []
        pending: set[asyncio.Task] = set()
        iterator = iter(requests)
        with self.journal.open("a", encoding="utf-8") as journal:

            async def ask(request: AnnotationRequest, png: bytes, key: str) -> None:
                try:
                    answer = await self._answer(client, request, png)
                    if answer.reason != "no answer":
                        _record(journal, key, answer)
                    outcomes.append(answer.reason != "no answer")
                    receive(answer)
                finally:
                    slots.release()

            async with client:
                try:
                    while (request := await asyncio.to_thread(next, iterator, None)) is not None:
                        png = to_png_bytes(request.view)
                        key = self._key(request.id, png)
                        if key in known:
                            outcomes.append(True)
                            receive(_restore(request.id, known[key]))
                            continue
                        await slots.acquire()
                        _reap(pending)
                        self._check_alive(outcomes)
                        pending.add(asyncio.create_task(ask(request, png, key)))
                    await asyncio.gather(*pending)
                except BaseException:
                    for task in pending:
                        task.cancel()
                    await asyncio.gather(*pending, return_exceptions=True)
                    raise
        unanswered = outcomes.count(False)
        if unanswered > settings.max_unanswered * len(outcomes):
            raise AnnotationServerError(
                f"{unanswered} of {len(outcomes)} photos got no answer from {settings.base_url} in "
                f"{settings.attempts} attempts each; the other answers are in {self.journal}: run again for the rest"
            )

    def _check_alive(self, outcomes: list[bool]) -> None:
        """Stop early when the last answers all failed: a server that is down is not asked 80,000 times."""
        recent = outcomes[-2 * self.settings.concurrency :]
        if len(recent) == 2 * self.settings.concurrency and not any(recent):
            raise AnnotationServerError(
                f"{self.settings.base_url} has not answered the last {len(recent)} photos; answers so far are kept in "
                f"{self.journal}: check the server and run again"
            )

    async def _answer(self, client: openai.AsyncOpenAI, request: AnnotationRequest, png: bytes) -> Answer:
        """Ask until an answer parses, is refused, or the attempts are used up."""
        tokens = [0, 0]
        reason = "no answer"
        backoff = self.settings.first_backoff
        jitter = random.Random(request.id)
        for attempt in range(self.settings.attempts):
            pause = 0.0
            try:
                self.asked += 1
                text = await self._ask(client, png, tokens)
                return Answer(request.id, parse(text), None, *tokens)
            except GrammarError as error:
                reason = "not in the grammar"
                log.info("%s, attempt %d: %s", request.id, attempt + 1, error)
            except (openai.APIConnectionError, openai.RateLimitError, openai.InternalServerError) as error:
                pause = max(backoff * (0.5 + jitter.random()), _retry_after(error))
                log.info("%s, attempt %d: %r, waiting %.1f s", request.id, attempt + 1, error, pause)
            except openai.APIStatusError as error:
                if error.status_code in _REFUSED:
                    return Answer(request.id, None, f"refused by the server: {error.status_code}", *tokens)
                raise AnnotationServerError(
                    f"{self.settings.base_url} refuses to answer as {self.settings.model}: {error}; check base_url, "
                    f"model and the key in {self.settings.api_key_variable}"
                ) from error
            if attempt + 1 < self.settings.attempts:
                await asyncio.sleep(min(pause, self.settings.longest_backoff))
                backoff *= 2
        return Answer(request.id, None, reason, *tokens)

    async def _ask(self, client: openai.AsyncOpenAI, png: bytes, tokens: list[int]) -> str:
        """One request. Raises `GrammarError` when the answer has no text or was cut off."""
        url = f"data:image/png;base64,{base64.b64encode(png).decode()}"
        content = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": INSTRUCTIONS}]
        completion = await client.chat.completions.create(
            model=self.settings.model,
            messages=[{"role": "system", "content": SYSTEM}, {"role": "user", "content": content}],
            temperature=self.settings.temperature,
            max_tokens=self.settings.max_tokens,
        )
        if completion.usage:
            tokens[0] += completion.usage.prompt_tokens
            tokens[1] += completion.usage.completion_tokens
        if not completion.choices or not completion.choices[0].message.content:
            raise GrammarError("expected a text, found none")
        if completion.choices[0].finish_reason == "length":
            raise GrammarError(f"the answer was cut off at {self.settings.max_tokens} tokens: raise max_tokens")
        return completion.choices[0].message.content

    def _key(self, request_id: str, png: bytes) -> str:
        """What an answer depends on: another photo, model or instruction is another question."""
        parts = (request_id.encode(), self.settings.model.encode(), INSTRUCTIONS.encode(), png)
        return hashlib.sha256(b"\0".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()


def _open_journal(path: Path) -> dict[str, dict]:
    """Answers by key; cuts off a last line that was not written completely."""
    path.parent.mkdir(parents=True, exist_ok=True)
    known: dict[str, dict] = {}
    complete = 0
    if not path.exists():
        return known
    with path.open("rb+") as file:
        for line in file:
            if not line.endswith(b"\n"):
                break
            try:
                entry = json.loads(line)
                known[entry["key"]] = entry
            except (ValueError, KeyError, TypeError) as error:
                raise ValueError(f"{path}: expected one JSON object a line, found {line[:60]!r}; remove it") from error
            complete += len(line)
        file.truncate(complete)
    return known


def _record(journal: IO[str], key: str, answer: Answer) -> None:
    """Append a final answer and force it to the disk before anybody relies on it."""
    entry = {
        "key": key,
        "id": answer.id,
        "text": render(answer.verdict) if answer.verdict else None,
        "reason": answer.reason,
        "input_tokens": answer.input_tokens,
        "output_tokens": answer.output_tokens,
    }
    journal.write(json.dumps(entry) + "\n")
    journal.flush()
    os.fsync(journal.fileno())


def _restore(request_id: str, entry: dict) -> Answer:
    verdict = parse(entry["text"]) if entry["text"] else None
    return Answer(request_id, verdict, entry["reason"], entry["input_tokens"], entry["output_tokens"])


def _reap(pending: set[asyncio.Task]) -> None:
    """Forget finished tasks; a task that failed raises its error here."""
    for task in [task for task in pending if task.done()]:
        pending.discard(task)
        task.result()


def _retry_after(error: openai.APIError) -> float:
    """Seconds that a 429 or 503 asks to wait, or 0."""
    response = getattr(error, "response", None)
    try:
        return max(0.0, float(response.headers.get("retry-after", 0))) if response is not None else 0.0
    except ValueError:
        return 0.0
