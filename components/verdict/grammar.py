"""The grammar of what the Critic writes: parse it, render it, and read an operation out of a suggestion.

    <think> five numbered sections </think>
    <edit_start> numbered suggestions </edit_end>
    <answer> a number from 0 to 100 </answer>

The odd pair `<edit_start>` ... `</edit_end>` is that of the released model.
"""

import math
import re
from collections.abc import Callable

from pydantic import Field

from components.photometry.operations import KINDS, TONE
from components.strict import Strict

SECTIONS = ("Quality", "Colour and light", "Composition", "Aesthetic impression", "Suggestions")

RESTORATIONS = {
    "motion_blur": "motion blur",
    "defocus_blur": "defocus blur",
    "noise": "noise",
    "jpeg": "compression artefacts",
    "haze": "haze",
    "low_light": "low light",
    "bokeh": "background blur",
}

DIRECTIONS = {
    "exposure": ("low", "high"),
    "contrast": ("low", "high"),
    "saturation": ("low", "high"),
    "temperature": ("cold", "warm"),
}
"""What a terse finding calls too little and too much of each attribute."""
DEGREES = ("slight", "moderate", "severe")
FINE = "fine"
_TERSE = rf"(?:{FINE}|(?:low|high|cold|warm) (?:{'|'.join(DEGREES)}))"
_ALL_TERSE = re.compile(
    rf"\bexposure {_TERSE}; contrast {_TERSE}\..*\bsaturation {_TERSE}; temperature {_TERSE}\.", re.DOTALL
)
_TERSE_DIRECTION = rf"\b(?:low|high|cold|warm)\b(?= (?:{'|'.join(DEGREES)})\b)"
_FAULTY = (
    r"(?:low|high|weak|strong|dark|dim|bright|light|warm|cold|cool|flat|harsh|dull|pale|vivid|intense|saturated|"
    r"colou?rful|muted|excessive|insufficient|lacking|poor|red(?:dish)?|yellow(?:ish)?|orange|blue|bluish)"
)
_ADVERB = (
    r"(?:too|overly|excessively|slightly|somewhat|rather|quite|a (?:bit|little|touch)|moderately|noticeably|"
    r"clearly|strongly|severely|badly|far too|much too)"
)
_ATTRIBUTE = (
    r"(?:exposure|brightness|contrast|saturation|chroma|vibrance|white balance|(?:colou?r )?temperature|colou?rs)"
)
_FREE_DIRECTION = "|".join(
    (
        _TERSE_DIRECTION,
        r"\b(?:under|over)[- ]?(?:expos|saturat)\w*|\bdesaturat\w*|\bwashed[- ]out\b|\bblown[- ]out\b",
        rf"(?<=\btoo ){_FAULTY}\b",
        rf"\b{_ADVERB} (?P<graded>{_FAULTY})\b",
        rf"\b{_ATTRIBUTE} (?:(?:is|are|looks?|seems?|appears?|remains?) )?(?:{_ADVERB} )?(?P<said>{_FAULTY})\b",
        rf"\b(?P<before>low|high|weak|excessive|insufficient|poor|reduced|exaggerated|flat|harsh) {_ATTRIBUTE}\b",
        r"\b(?P<cast>warm|cold|cool|yellow(?:ish)?|orange|reddish|bluish|blue) (?:colou?r )?(?:cast|tint)\b",
    )
)
_DIRECTION = re.compile(_FREE_DIRECTION, re.IGNORECASE)
_NOT = re.compile(r"(?:\b(?:no|not|never|neither|nor|without|hardly)|n't)\b(?:\W+\w+){0,3}\W*$", re.IGNORECASE)
_FEW_WORDS = 200
"""Characters before a direction in which a negation of it is looked for."""
_SCORE = re.compile(r"(?<=<answer> )\d+(?:\.\d+)?(?= </answer>)")
_UP = r"increase|raise|boost|brighten|lift|enhance|strengthen|add|more|higher"
_DOWN = r"decrease|reduce|lower|darken|cut|soften|weaken|tone down|less"
_NOUNS = {
    "exposure": r"exposure|brightness|brighten|darken",
    "contrast": r"contrast",
    "saturation": r"saturation|chroma|vibrance|colou?rfulness",
    "temperature": r"white balance|colou?r temperature|temperature|warm\w*|cool\w*",
}
_DEFAULT_AMOUNT = {"exposure": 0.7, "contrast": 0.4, "saturation": 0.6, "temperature": 40.0}
_DEGREE = {"slight": 0.5, "moderate": 1.0, "strong": 1.7, "significant": 1.7, "severe": 1.7}
_NUMBER = re.compile(r"(?<![\d.])(\d{1,9}(?:\.\d{1,9})?)\s{0,9}(EV|stops?|%|percent|mired)", re.IGNORECASE)
_REMEDY = re.compile(r"\b(?:remove|reduce|correct|fix|eliminate)\b")
_TAGS = ["<think>", "</think>", "<edit_start>", "</edit_end>", "<answer>", "</answer>"]
MOST_CHARACTERS = 20_000
"""Of a completion that is read; the longest that anybody wrote has a tenth."""
_TAG = re.compile(r"</?(?:think|edit_start|edit_end|answer)>")
NOTHING = "Leave the photo as it is."


class GrammarError(ValueError):
    """A completion that is not in the Critic's grammar; the message says which rule it breaks."""


class Suggestion(Strict):
    """One edit that the Critic asks for.

    Attributes:
        text: the sentence, as written.
        operation: name in `components.photometry.operations`, or None when the sentence asks for something else.
        amount: what should be done to the photo, in the unit of that operation; None for restorations, which
            are removed altogether.
    """

    text: str
    operation: str | None = None
    amount: float | None = None


class Verdict(Strict):
    """What the Critic says of a photo: five sections of reasoning, suggestions, and a score from 0 to 100."""

    reasoning: tuple[str, ...]
    suggestions: tuple[Suggestion, ...]
    score: float = Field(ge=0, le=100)


def suggest(operation: str, amount: float | None = None) -> Suggestion:
    """The canonical sentence for an edit.

    Args:
        operation: a tone operation or a restoration.
        amount: what to do, in the unit of the operation (EV, log2 slope, log2 scale, mired); rounded as written:
            to 0.1 EV, 10% and 10 mired. None for restorations.
    """
    if operation in RESTORATIONS:
        return Suggestion(text=f"Remove the {RESTORATIONS[operation]}.", operation=operation)
    if operation not in TONE:
        raise ValueError(f"no suggestion is known for {operation!r}: expected one of {(*TONE, *RESTORATIONS)}")
    if amount is None:
        raise ValueError(f"a suggestion about {operation} needs an amount, found none")
    if operation == "exposure":
        text = f"{'Increase' if amount > 0 else 'Decrease'} exposure by {max(0.1, abs(amount)):.1f} EV."
    elif operation == "temperature":
        mired = max(10, round(abs(amount) / 10) * 10)
        text = f"{'Warm' if amount > 0 else 'Cool'} the white balance by {mired} mired."
    else:
        percent = max(10, round(abs(2**amount - 1) * 10) * 10)
        text = f"{'Increase' if amount > 0 else 'Decrease'} {operation} by {percent}%."
    return read_suggestion(text)


def read_suggestion(text: str) -> Suggestion:
    """Understand one suggestion: canonical or free text, as a larger model writes it.

    The direction comes from the verb, the amount from a number with a unit or else from an adverb ("slightly",
    "strongly"), and is held within what the operation allows. A sentence that names no known operation is kept with
    `operation=None`.
    """
    lowered = text.lower()
    remedies = [(line, verb.end()) for line in lowered.split("\n") if (verb := _REMEDY.search(line))]
    for operation, words in RESTORATIONS.items():
        named = re.compile(rf"\b{words.rstrip('s')}")
        if any(named.search(line, after) for line, after in remedies):
            return Suggestion(text=text, operation=operation)
    for operation, nouns in _NOUNS.items():
        if not re.search(rf"\b(?:{nouns})\b", lowered):
            continue
        if operation == "temperature":
            warm, cool = (
                re.search(r"\b(warm|raise|increase)", lowered),
                re.search(r"\b(cool|lower|decrease|reduce)", lowered),
            )
            sign = (warm is not None) - (cool is not None)
        else:
            up, down = re.search(rf"\b(?:{_UP})", lowered), re.search(rf"\b(?:{_DOWN})", lowered)
            sign = (up is not None) - (down is not None)
        if sign:
            magnitude = min(_magnitude(operation, sign, text), KINDS[operation].high)
            return Suggestion(text=text, operation=operation, amount=sign * magnitude)
    return Suggestion(text=text)


def _magnitude(operation: str, sign: int, text: str) -> float:
    if (number := _NUMBER.search(text)) is not None:
        value, unit = float(number[1]), number[2].lower()
        if unit in ("%", "percent") and operation in ("contrast", "saturation"):
            return abs(math.log2(max(0.05, 1 + sign * value / 100)))
        if (unit == "ev" or unit.startswith("stop")) and operation == "exposure":
            return value
        if unit == "mired" and operation == "temperature":
            return value
    degree = next((scale for word, scale in _DEGREE.items() if word in text.lower()), 1.0)
    return _DEFAULT_AMOUNT[operation] * degree


def finding(attribute: str, amount: float, degree: str) -> str:
    """A terse finding: direction and degree of a fault of an attribute, such as "low severe"; "fine" for 0."""
    return f"{DIRECTIONS[attribute][amount > 0]} {degree}" if amount else FINE


def direction_spans(text: str) -> list[tuple[int, int]]:
    """Where a completion names the direction of a fault of tone, as spans of characters.

    Of the offline annotator's terse findings these are the words before the degree ("low severe"). In free wording, as
    a large model has it, they are looked for in the reasoning: "underexposed", "too dark", "the contrast is rather
    low", "a bluish cast"; not where such words are negated.
    """
    if _ALL_TERSE.search(text):
        return [match.span() for match in re.finditer(_TERSE_DIRECTION, text)]
    reasoning = text.partition("</think>")[0]
    spans = []
    for match in _DIRECTION.finditer(reasoning):
        start, end = match.span(match.lastgroup or 0)
        before = reasoning[max(0, start - _FEW_WORDS) : start]
        clause = re.split(r"[.;:!?,]", before)[-1]
        if not _NOT.search(clause):
            spans.append((start, end))
    return spans


def score_spans(text: str) -> list[tuple[int, int]]:
    """Where a completion spells the score, as `render` writes it."""
    return [match.span() for match in _SCORE.finditer(text)]


def render(verdict: Verdict) -> str:
    """Write a verdict in the grammar; the inverse of `parse`."""
    sections = zip(SECTIONS, verdict.reasoning, strict=True)
    think = "\n".join(f"{i}. {title}: {text}" for i, (title, text) in enumerate(sections, start=1))
    edits = "\n".join(f"{i}. {s.text}" for i, s in enumerate(verdict.suggestions, start=1)) or f"1. {NOTHING}"
    return f"<think>\n{think}\n</think>\n<edit_start>\n{edits}\n</edit_end>\n<answer> {verdict.score:g} </answer>"


def parse(text: str) -> Verdict:
    """Read a verdict.

    Raises:
        GrammarError: a part is missing, out of order or repeated; there are not five numbered sections; a suggestion
            is not numbered; the score is not a number from 0 to 100; the text is longer than `MOST_CHARACTERS`.
    """
    thought, edited, scored = _parts(text)
    think = _numbered(thought, "<think>")
    if len(think) != len(SECTIONS):
        raise GrammarError(f"expected {len(SECTIONS)} numbered sections in <think>, found {len(think)}")
    reasoning = tuple(_without_title(section) for section in think)
    edits = _numbered(edited, "<edit_start>")
    if not edits:
        raise GrammarError("expected at least one numbered suggestion in <edit_start>")
    suggestions = tuple(read_suggestion(edit) for edit in edits if edit != NOTHING)
    try:
        score = float(scored)
    except ValueError:
        raise GrammarError(f"expected a number in <answer>, found {scored.strip()[:40]!r}") from None
    if not 0 <= score <= 100:
        raise GrammarError(f"expected a score from 0 to 100, found {score:g}")
    return Verdict(reasoning=reasoning, suggestions=suggestions, score=score)


def _parts(text: str) -> tuple[str, str, str]:
    """What stands in <think>, between <edit_start> and </edit_end>, and in <answer>; in one pass over the text."""
    if len(text) > MOST_CHARACTERS:
        raise GrammarError(f"expected at most {MOST_CHARACTERS:,} characters, found {len(text):,}")
    tags = list(_TAG.finditer(text))
    names = [tag[0] for tag in tags]
    if len(names) > len(_TAGS) and set(_TAGS) <= set(names) and [names[0], names[-1]] == [_TAGS[0], _TAGS[-1]]:
        raise GrammarError("expected every tag once, found one again inside a part")
    places = [0, *(place for tag in tags for place in tag.span()), len(text)]
    pieces = [text[start:end] for start, end in zip(places[::2], places[1::2], strict=True)]
    if names != _TAGS or "".join(pieces[::2]).strip():
        raise GrammarError("expected <think>...</think> <edit_start>...</edit_end> <answer>...</answer>, in this order")
    return pieces[1], pieces[3], pieces[5]


def parses(text: str, read: Callable[[str], Verdict] = parse) -> Verdict | None:
    """The verdict, or None when the text is not in the grammar."""
    try:
        return read(text)
    except GrammarError:
        return None


def _numbered(block: str, where: str) -> list[str]:
    """Items "1. ...", "2. ..." of a block; a line without a number continues the item before it."""
    items: list[str] = []
    for line in filter(None, (line.strip() for line in block.splitlines())):
        number = re.match(r"(\d{1,3})[.)]\s*(.*)", line)
        if number and int(number[1]) == len(items) + 1:
            items.append(number[2])
        elif items:
            items[-1] += f" {line}"
        else:
            raise GrammarError(f"expected {where} to begin with '1.', found {line[:40]!r}")
    return items


def _without_title(section: str) -> str:
    title, colon, rest = section.partition(":")
    return rest.strip() if colon and title.strip() in SECTIONS else section
