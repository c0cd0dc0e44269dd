"""The journal of annotation: every final answer about a photo, so that a killed run asks for none of them again."""

from collections.abc import Iterable
from pathlib import Path

from pydantic import Field

from components.annotation.annotators import AnnotatorAnswer
from components.chat.journal import Journal, JournalError, KeyedEntry
from components.verdict.grammar import GrammarError, parse, render


class JournalEntry(KeyedEntry):
    """A final answer: the model's verdict, or the reason why there will be none."""

    id: str = Field(description="Of the request, for people; the key is what counts.")
    model: str
    text: str | None = Field(description="The verdict in the Critic's grammar.")
    reason: str | None = Field(description="Why there is none.")
    input_tokens: int = Field(ge=0)
    output_tokens: int = Field(ge=0)
    requests: int = Field(ge=0)
    repaired: bool

    @classmethod
    def of(cls, key: str, model: str, answer: AnnotatorAnswer) -> "JournalEntry":
        """The entry for an answer of ``model`` to the question ``key``."""
        return cls(
            key=key,
            id=answer.id,
            model=model,
            text=render(answer.verdict) if answer.verdict else None,
            reason=answer.reason,
            input_tokens=answer.input_tokens,
            output_tokens=answer.output_tokens,
            requests=answer.requests,
            repaired=answer.repaired,
        )

    def answer(self, request_id: str) -> AnnotatorAnswer:
        """The answer again, as restored.

        Raises:
            GrammarError: the text is not in the grammar of this version.
        """
        return AnnotatorAnswer(
            id=request_id,
            verdict=parse(self.text) if self.text is not None else None,
            reason=self.reason,
            input_tokens=self.input_tokens,
            output_tokens=self.output_tokens,
            requests=self.requests,
            repaired=self.repaired,
            restored=True,
        )


class AnnotationJournal(Journal[JournalEntry]):
    """Final answers by question, on disk; see `components.chat.journal.Journal`."""

    def __init__(self, path: Path, others: Iterable[Path] = ()) -> None:
        super().__init__(path, JournalEntry, others)

    def answer(self, key: str, request_id: str) -> AnnotatorAnswer | None:
        """The recorded answer to a question, or None when there is none yet.

        Raises:
            JournalError: the entry was written by another version of the grammar.
        """
        entry = self.get(key)
        if entry is None:
            return None
        try:
            return entry.answer(request_id)
        except GrammarError as error:
            raise JournalError(f"{self.path}: the answer for {entry.id} cannot be read: {error}; remove it") from error
