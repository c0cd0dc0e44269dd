"""Answers that a model may give to do harm: each is read or refused in one pass over it, and over no more than a limit.

At their sizes here, patterns that begin anew at every word would be at it from minutes to days.
"""

import random
from collections.abc import Callable

import pytest

from components.annotation.conflicts import WORDINGS, read_findings
from components.annotation.format import read_answer
from components.chat.answers import unfenced
from components.verdict.grammar import (
    MOST_CHARACTERS,
    GrammarError,
    direction_spans,
    parse,
    parses,
    read_suggestion,
    render,
)
from tests.serving.stubs import VERDICT

_TAGS = ("<think>", "</think>", "<edit_start>", "</edit_end>", "<answer>", "</answer>")
_LONG = MOST_CHARACTERS


@pytest.mark.parametrize(
    "text",
    [
        "```\n" + "\n" * 2_000_000,
        "```" + " " * 2_000_000 + "```",
        "```json\n" * 200_000,
        "`" * 2_000_000,
    ],
    ids=["newlines", "spaces", "fences", "ticks"],
)
def test_fences_are_taken_off_in_one_pass(text: str) -> None:
    assert len(unfenced(text)) <= len(text)
    with pytest.raises(GrammarError, match="at most 20,000 characters"):
        read_answer(text)


@pytest.mark.parametrize(
    ("fenced", "bare"),
    [
        ("```json\n{}\n```", "{}"),
        (" ```\n\n a \n``` ", "a"),
        ("```python\n{}\n```", "```python\n{}\n```"),
        ("```{}```", "```{}```"),
        ("{}", "{}"),
        ("```", "```"),
    ],
)
def test_a_fence_and_nothing_else_is_taken_off(fenced: str, bare: str) -> None:
    assert unfenced(fenced) == bare


@pytest.mark.parametrize(
    "text",
    [
        "<think>" * (_LONG // 7),
        " " * _LONG,
        "<think></think>" + " " * (_LONG - 100) + "<edit_start>",
        "<think>" + "\n" * (_LONG - 7),
        "".join(_TAGS) * (_LONG // 52),
        "<think>" + "1. a\n" * 3000 + "</think>",
    ],
    ids=["tags", "spaces", "gap", "newlines", "repeated", "items"],
)
def test_what_is_no_verdict_is_refused(text: str) -> None:
    assert parses(text[:_LONG]) is None
    with pytest.raises(GrammarError, match="at most 20,000 characters"):
        parse(text + " " * _LONG)


@pytest.mark.parametrize("word", ["remove ", "remove\n", "increase exposure by 1", "9", "1 ", "less exposure "])
def test_suggestions_are_read_in_one_pass(word: str) -> None:
    read_suggestion(word * (200_000 // len(word)))


def test_a_remedy_and_its_fault_are_of_one_line() -> None:
    assert read_suggestion("Please remove all of the noise").operation == "noise"
    assert read_suggestion("remove it\nnoise").operation is None
    assert read_suggestion("noise to remove").operation is None


@pytest.mark.parametrize("read", [lambda text: read_findings(text, "noise"), direction_spans], ids=["NegEx", "spans"])
@pytest.mark.parametrize("word", ["no noise ", "not ", "noise ", "too dark ", "not\n", "a" * 100])
def test_findings_are_read_within_the_limit(read: Callable[[str], object], word: str) -> None:
    read((word * _LONG)[:_LONG])


def test_the_nearest_negation_counts() -> None:
    """By comparison with every negation in turn, on random words."""
    dice = random.Random(0)
    words = ["no", "noise", "the", "of", "not", "clean", "in", "sky", "without", "grain"]
    for _ in range(500):
        clause = " ".join(dice.choices(words, k=12))
        found = read_findings(clause, "noise")
        affirmed = denied = False
        for pattern, bad in ((WORDINGS["noise"].defect, True), (WORDINGS["noise"].praise, False)):
            for term in pattern.finditer(clause):
                before = clause[: term.start()].split()
                negated = any(word in ("no", "not", "without") for word in before[-5:])
                affirmed |= bad != negated
                denied |= bad == negated
        assert (found.affirmed, found.denied) == (affirmed, denied), clause


def test_random_pieces_are_read_or_refused() -> None:
    dice = random.Random(1)
    pieces = [*_TAGS, *render(VERDICT).split("\n"), "1.", " ", "\n", "50", "remove the noise", "```", "{", '"']
    for _ in range(3000):
        text = "".join(dice.choices(pieces, k=dice.randint(1, 40)))
        try:
            read_answer(text)
        except GrammarError as error:
            assert len(str(error)) < 2000


def test_many_mistakes_are_told_in_few_words() -> None:
    with pytest.raises(GrammarError) as caught:
        read_answer("{" + ", ".join(f'"k{index}": 1' for index in range(1500)) + "}")
    assert len(str(caught.value)) < 2000
