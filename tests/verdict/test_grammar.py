"""The grammar: what is rendered is parsed back, what breaks a rule is named, and free text is understood."""

import math

import pytest
import torch

from components.photometry.operations import KINDS, TONE, Operation
from components.verdict.grammar import (
    NOTHING,
    RESTORATIONS,
    SECTIONS,
    GrammarError,
    Suggestion,
    Verdict,
    direction_spans,
    finding,
    parse,
    parses,
    read_suggestion,
    render,
    score_spans,
    suggest,
)

THINK = "<think>\n1. a\n2. b\n3. c\n4. d\n5. e\n</think>"
EDITS = "<edit_start>\n1. Increase exposure by 0.5 EV.\n</edit_end>"
ANSWER = "<answer> 60 </answer>"
RELEASED = """<think>
1. Overall quality: the photo is noticeably dark, with moderate noise in the shadows.
The sky keeps its detail.
2. Colour and light: a cold cast lies over the picture: faces look pale.
3. Composition: the subject stands on the left third.
4. Aesthetic impression: calm.
5. Suggestions: brighten, then warm.
</think>
<edit_start>
1. Brighten the photo strongly.
2. Warm the white balance by 25 mired.
3. Crop the left edge.
</edit_end>
<answer>41.5</answer>
"""


def test_a_verdict_survives_rendering_and_parsing() -> None:
    generator = torch.Generator().manual_seed(0)
    operations = [*TONE, *RESTORATIONS]
    for _ in range(200):
        chosen = torch.randperm(len(operations), generator=generator)[: int(torch.randint(5, (), generator=generator))]
        amounts = torch.randn(len(operations), generator=generator).tolist()
        suggestions = tuple(
            suggest(operations[i], amounts[i] * (40 if operations[i] == "temperature" else 1)) for i in chosen.tolist()
        )
        score = round(float(torch.rand((), generator=generator)) * 100, 1)
        reasoning = tuple(f"finding {i}: it is so; 12 of 30." for i in range(5))
        verdict = Verdict(reasoning=reasoning, suggestions=suggestions, score=score)
        assert parse(render(verdict)) == verdict


def test_the_released_format_is_read() -> None:
    verdict = parse(RELEASED)
    assert verdict.score == 41.5
    assert verdict.reasoning[0].endswith("noise in the shadows. The sky keeps its detail.")
    assert verdict.reasoning[1] == "a cold cast lies over the picture: faces look pale."
    assert [s.operation for s in verdict.suggestions] == ["exposure", "temperature", None]
    assert verdict.suggestions[1].amount == 25
    assert len(verdict.reasoning) == len(SECTIONS)


def test_no_suggestions_are_written_as_leaving_the_photo_alone() -> None:
    verdict = Verdict(reasoning=("a", "b", "c", "d", "e"), suggestions=(), score=100)
    assert NOTHING in render(verdict)
    assert parse(render(verdict)) == verdict


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("", "<think>"),
        (THINK + ANSWER, "in this order"),
        (THINK + EDITS, "in this order"),
        (EDITS + THINK + ANSWER, "in this order"),
        (THINK + ANSWER + EDITS, "in this order"),
        (THINK + EDITS.replace("</edit_end>", "</edit_start>") + ANSWER, "in this order"),
        ("Sure! " + THINK + EDITS + ANSWER, "in this order"),
        (THINK + EDITS + ANSWER + " Done.", "in this order"),
        (THINK + THINK + EDITS + ANSWER, "once"),
        (THINK + EDITS + EDITS + ANSWER, "once"),
        (THINK + EDITS + ANSWER + ANSWER, "once"),
        (THINK + "<edit_start>1. <answer>50</answer></edit_end>" + ANSWER, "once"),
        (THINK.replace("5. e\n", "") + EDITS + ANSWER, "found 4"),
        (THINK.replace("5. e", "5. e\n6. f") + EDITS + ANSWER, "found 6"),
        (THINK.replace("3. c", "7. c") + EDITS + ANSWER, "found 2"),
        (THINK.replace("1. a", "a") + EDITS + ANSWER, "begin with '1.'"),
        ("<think></think>" + EDITS + ANSWER, "found 0"),
        (THINK + "<edit_start>brighten it</edit_end>" + ANSWER, "begin with '1.'"),
        (THINK + "<edit_start>\n</edit_end>" + ANSWER, "at least one"),
        (THINK + EDITS + "<answer>sixty</answer>", "found 'sixty'"),
        (THINK + EDITS + "<answer></answer>", "found ''"),
        (THINK + EDITS + "<answer>100.1</answer>", "0 to 100"),
        (THINK + EDITS + "<answer>-1</answer>", "0 to 100"),
        (THINK + EDITS + "<answer>nan</answer>", "0 to 100"),
        (THINK + EDITS + "<answer>inf</answer>", "0 to 100"),
    ],
)
def test_a_broken_rule_is_named(text: str, rule: str) -> None:
    with pytest.raises(GrammarError, match=rule.replace("<", r"\<")):
        parse(text)
    assert parses(text) is None


@pytest.mark.parametrize("score", ["0", "100", " 60 ", "59.5"])
def test_scores_of_the_whole_range_are_accepted(score: str) -> None:
    assert parse(THINK + EDITS + f"<answer>{score}</answer>").score == float(score)


@pytest.mark.parametrize(
    ("operation", "amount", "step"),
    [("exposure", 0.84, 0.05), ("contrast", 0.62, 0.06), ("saturation", -0.9, 0.14), ("temperature", -43.0, 5.0)],
)
def test_canonical_suggestions_carry_their_amount_to_the_precision_they_are_written_in(
    operation: str, amount: float, step: float
) -> None:
    suggestion = suggest(operation, amount)
    assert suggestion.operation == operation
    assert suggestion.amount == pytest.approx(amount, abs=step)
    assert suggest(operation, -amount).amount * amount < 0
    assert read_suggestion(suggestion.text) == suggestion


def test_amounts_in_percent_are_ratios() -> None:
    assert read_suggestion("Increase contrast by 50%.").amount == pytest.approx(math.log2(1.5))
    assert read_suggestion("Decrease saturation by 50 percent.").amount == pytest.approx(-1.0)
    assert read_suggestion("Decrease saturation by 90%.").amount == pytest.approx(math.log2(0.1))


def test_the_smallest_change_is_still_written_as_a_change() -> None:
    for operation in TONE:
        for sign in (-1, 1):
            assert suggest(operation, sign * 1e-3).amount * sign > 0


def test_absurd_numbers_stay_within_what_the_operation_allows() -> None:
    for text, operation in (
        ("9" * 400 + " EV", "exposure"),
        ("9" * 400 + "%", "contrast"),
        ("99999 mired", "temperature"),
    ):
        for verb in ("Increase", "Reduce"):
            suggestion = read_suggestion(f"{verb} the {operation} by {text}.")
            assert suggestion.operation == operation
            assert KINDS[operation].low <= suggestion.amount <= KINDS[operation].high
            Operation(name=operation, amount=suggestion.amount)
    numbered = THINK.replace("2. b", "2. b\n" + "1" * 5000 + ". b")
    assert parse(numbered + EDITS + ANSWER).reasoning[1].startswith("b 111")


@pytest.mark.parametrize("operation", TONE)
def test_a_tone_edit_without_an_amount_is_refused(operation: str) -> None:
    with pytest.raises(ValueError, match=f"a suggestion about {operation} needs an amount, found none"):
        suggest(operation)


def test_restorations_have_no_amount() -> None:
    for operation in RESTORATIONS:
        assert suggest(operation) == Suggestion(text=suggest(operation).text, operation=operation, amount=None)


def test_an_unknown_operation_has_no_sentence() -> None:
    with pytest.raises(ValueError, match="sharpen"):
        suggest("sharpen", 1.0)


@pytest.mark.parametrize(
    ("text", "operation", "sign"),
    [
        ("Brighten the image to lift the shadows.", "exposure", 1),
        ("Slightly darken the frame.", "exposure", -1),
        ("Raise the overall brightness by 1 stop", "exposure", 1),
        ("Lower the exposure a little", "exposure", -1),
        ("Boost contrast for more punch", "contrast", 1),
        ("Soften the contrast", "contrast", -1),
        ("Tone down the saturation", "saturation", -1),
        ("Enhance colour vibrance", "saturation", 1),
        ("Use a warmer white balance", "temperature", 1),
        ("Cool down the colors", "temperature", -1),
        ("Reduce the color temperature", "temperature", -1),
        ("Remove the motion blur from the car.", "motion_blur", 0),
        ("Reduce noise in the sky", "noise", 0),
        ("Correct the haze over the hills", "haze", 0),
        ("Crop tighter around the subject", None, 0),
        ("Increase and decrease the exposure", None, 0),
        ("Look at the exposure", None, 0),
    ],
)
def test_free_text_is_understood(text: str, operation: str | None, sign: int) -> None:
    suggestion = read_suggestion(text)
    assert suggestion.text == text
    assert suggestion.operation == operation
    assert (suggestion.amount is None) if sign == 0 else (suggestion.amount * sign > 0)


def test_adverbs_scale_an_amount_that_has_no_number() -> None:
    slight, plain, strong = (
        read_suggestion(f"{words} exposure").amount for words in ("Slightly increase", "Increase", "Strongly increase")
    )
    assert 0 < slight < plain < strong
    assert read_suggestion("Increase exposure by 2 stops").amount == 2.0
    assert read_suggestion("Increase exposure by 30 mired").amount == plain  # a number in another unit says nothing


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Underexposed by a stop; the contrast is rather low.", ["Underexposed", "low"]),
        (
            "Exposure too low, contrast fine, saturation too high, white balance too warm.",
            ["low", "high", "warm"],
        ),
        ("A slightly warm white balance and low contrast.", ["warm", "low"]),
        ("The photo is a bit dark and has a bluish cast.", ["dark", "bluish"]),
        ("Colours look dull. Washed-out sky, blown-out lamps.", ["dull", "Washed-out", "blown-out"]),
        ("Not too dark, no bluish cast; it isn't overexposed.", []),
        ("Low light, high noise, warm evening light, high quality.", []),
        ("<think> too dark </think> <edit_start> 1. too low: Increase exposure by 1 EV. </edit_end>", ["dark"]),
    ],
)
def test_words_for_a_direction_are_found_in_free_wording(text: str, words: list[str]) -> None:
    assert [text[start:end] for start, end in direction_spans(text)] == words


def test_in_terse_findings_only_the_words_before_a_degree_are_directions() -> None:
    """The offline annotator's impressions ("dark and flat") and casts name no direction that could be passed over."""
    view = "lightness 20 from 3 to 50; exposure low severe; contrast fine.\n2. cast 3 red 9 yellow; saturation {}; {}."
    text = view.format(finding("saturation", 1.0, "moderate"), f"temperature {finding('temperature', 0, 'slight')}")
    text += "\n4. too dark and flat."
    assert [text[start:end] for start, end in direction_spans(text)] == ["low", "high"]
    fine = view.replace("low severe", "fine").format("fine", "temperature fine") + "\n4. too dark."
    assert direction_spans(fine) == []


@pytest.mark.parametrize("score", [0.0, 7.0, 41.5, 100.0])
def test_all_digits_of_a_score_are_found(score: float) -> None:
    text = render(Verdict(reasoning=("a", "b", "c", "d", "9"), suggestions=(), score=score))
    assert [text[start:end] for start, end in score_spans(text)] == [f"{score:g}"]
