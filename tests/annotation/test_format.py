"""Both forms of an answer: the schema that is sent, what is read, what is refused, and how a repair is asked for."""

import json
import re

import jsonschema
import pytest

from components.annotation.format import GRAMMAR_INSTRUCTIONS, JSON_INSTRUCTIONS, read_answer, rejoin, response_format
from components.chat.answers import repair_messages
from components.verdict.grammar import GrammarError, parse, render

SECTIONS = ("quality", "colour_and_light", "composition", "aesthetic_impression", "suggestions")
GOOD = {
    "reasoning": {name: f"About {name}." for name in SECTIONS},
    "suggestions": ["Increase exposure by 0.5 EV.", "Remove the noise."],
    "score": 42,
}


def changed(**more: object) -> str:
    return json.dumps(GOOD | more)


def test_the_schema_sent_is_a_strict_one_that_the_example_meets() -> None:
    sent = response_format()
    assert sent["type"] == "json_schema" and sent["json_schema"]["strict"] is True
    schema = sent["json_schema"]["schema"]
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(GOOD, schema)
    jsonschema.validate(
        json.loads(JSON_INSTRUCTIONS[JSON_INSTRUCTIONS.index("{") : JSON_INSTRUCTIONS.rindex("}") + 1]), schema
    )
    for part in (schema, *schema["$defs"].values()):
        assert part["additionalProperties"] is False and set(part["required"]) == set(part["properties"])
    assert list(schema["properties"]) == ["reasoning", "suggestions", "score"], "thought before judgement"
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(GOOD | {"score": 101}, schema)


def test_instructions_contain_an_example_in_the_grammar_that_says_the_same() -> None:
    start, end = GRAMMAR_INSTRUCTIONS.index("<think>"), GRAMMAR_INSTRUCTIONS.index("</answer>") + len("</answer>")
    example = parse(GRAMMAR_INSTRUCTIONS[start:end])
    assert read_answer(JSON_INSTRUCTIONS[JSON_INSTRUCTIONS.index("{") : JSON_INSTRUCTIONS.rindex("}") + 1]) == example


def test_json_becomes_the_verdict_that_the_grammar_would_give() -> None:
    verdict = read_answer(json.dumps(GOOD))
    assert verdict.reasoning == tuple(GOOD["reasoning"].values()) and verdict.score == 42
    assert [(s.operation, s.amount) for s in verdict.suggestions] == [("exposure", 0.5), ("noise", None)]
    assert read_answer(render(verdict)) == verdict
    assert read_answer(f"```json\n{json.dumps(GOOD, indent=1)}\n```\n") == verdict
    assert read_answer(f"```\n{render(verdict)}\n```") == verdict
    assert read_answer(changed(suggestions=[])).suggestions == ()
    spread = GOOD["reasoning"] | {"quality": "Sharp.\n2. Not a section."}
    assert read_answer(changed(reasoning=spread)).reasoning[0] == "Sharp. 2. Not a section."


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "expected <think>"),
        ("I like it!", "expected <think>"),
        (json.dumps(GOOD)[:-5], "JSON"),
        (changed(score=101), "score"),
        (changed(score="42"), "score"),
        (changed(mood="good"), "mood"),
        (changed(suggestions="Remove the noise."), "suggestions"),
        (changed(reasoning=dict.fromkeys(SECTIONS[:4], "x")), "reasoning.suggestions"),
        (changed(reasoning=GOOD["reasoning"] | {"quality": " \n"}), "reasoning.quality"),
        (changed(reasoning=GOOD["reasoning"] | {"quality": "a </think> b"}), "tag|order"),
        ("{" * 20_000, "JSON"),
    ],
)
def test_what_cannot_be_read_is_refused_with_the_place(text: str, complaint: str) -> None:
    with pytest.raises(GrammarError, match=complaint):
        read_answer(text)


def test_reasoning_that_was_taken_out_belongs_to_the_grammar_and_not_to_an_object() -> None:
    whole = render(read_answer(json.dumps(GOOD)))
    thought, _, rest = whole.removeprefix("<think>").partition("</think>")
    assert rejoin(rest, thought) == whole and rejoin(whole, thought) == whole and rejoin(whole, "") == whole
    assert rejoin(json.dumps(GOOD), "Let me see.") == json.dumps(GOOD)


def test_a_repair_shows_the_answer_and_what_is_wrong_with_it() -> None:
    answer, request = repair_messages("x" * 10_000, GrammarError("expected a number"))
    assert answer["role"] == "assistant" and set(answer["content"]) == {"x"} and len(answer["content"]) < 5000
    assert request["role"] == "user" and "expected a number" in request["content"]
    assert repair_messages("", GrammarError("nothing"))[0]["content"].strip()


@pytest.mark.parametrize("instructions", [GRAMMAR_INSTRUCTIONS, JSON_INSTRUCTIONS])
def test_instructions_are_plain_words(instructions: str) -> None:
    """No name of a class, which a renaming may put in the place of a word."""
    assert "Answer " in instructions and not re.findall(r"[A-Z][a-z]+[A-Z]\w*", instructions)
