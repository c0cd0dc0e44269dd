"""Instructions say the edit to be done, so the Critic's own reading of them must be the inverse of the fault."""

import pytest
import torch

from components.data.degradations import BOKEH_LEVELS
from components.data.prompts import PHRASES, edit_phrase, instruction, variants
from components.photometry.operations import DEGRADATIONS, TONE, Operation
from components.seeding import generator_for
from components.verdict.grammar import RESTORATIONS, read_suggestion

UP = {
    "exposure": ("increase", "brighten", "brighter", "lift", "raise"),
    "contrast": ("increase", "raise", "more contrast", "add", "punchier"),
    "saturation": ("increase", "more", "boost", "strengthen", "enhance"),
    "temperature": ("warm the", "warmer", "towards warm"),
}


@pytest.mark.parametrize("name", TONE)
@pytest.mark.parametrize("amount", [0.75, -0.75])
def test_tone_edits_undo_the_fault(name: str, amount: float) -> None:
    fault = Operation(name=name, amount=amount * (50 if name == "temperature" else 1))
    phrases = {edit_phrase(fault, variant) for variant in range(12)}
    assert len(phrases) >= 4
    for phrase in phrases:
        assert any(word in phrase for word in UP[name]) == (amount < 0)


def test_amounts_are_those_of_the_inverse() -> None:
    assert "0.8 EV" in edit_phrase(Operation(name="exposure", amount=-0.8), 0)
    assert "40 mired" in edit_phrase(Operation(name="temperature", amount=41.0), 0)
    assert "100%" in edit_phrase(Operation(name="saturation", amount=-1.0), 0)
    assert "50%" in edit_phrase(Operation(name="saturation", amount=1.0), 0)


@pytest.mark.parametrize("name", DEGRADATIONS)
def test_every_degradation_has_paraphrases(name: str) -> None:
    operation = Operation(name=name, amount=70.0 if name == "jpeg" else 0.06)
    phrases = {edit_phrase(operation, variant) for variant in range(12)}
    assert len(phrases) == len(PHRASES[name]) >= 4 and name in RESTORATIONS
    assert not any("{" in phrase for phrase in phrases)


def test_depth_of_field_levels_are_told_apart() -> None:
    words = [edit_phrase(Operation(name="bokeh", amount=level), 0) for level in BOKEH_LEVELS.values()]
    assert [word.split()[-1] for word in words] == ["slightly", "moderately", "strongly"]


def test_several_edits_make_one_sentence_in_the_order_that_undoes_them() -> None:
    operations = (Operation(name="noise", amount=0.05), Operation(name="exposure", amount=-1.0))
    sentences = {instruction("multi_edit", operations, generator_for(0, index)) for index in range(40)}
    assert len(sentences) > 20
    for sentence in sentences:
        assert sentence[0].isupper() and sentence.endswith(".")
        said = min(sentence.lower().find(word) % 999 for word in ("expos", "bright"))
        assert 0 <= said < max(sentence.find(word) for word in ("nois", "grain"))


def test_an_enhancement_names_no_edit() -> None:
    generator = torch.Generator().manual_seed(0)
    text = instruction("enhancement", (Operation(name="exposure", amount=-1.0),), generator)
    assert "EV" not in text and text.endswith(".")


CANONICAL = {
    "exposure": ("increase the exposure by {value}", "decrease the exposure by {value}"),
    "contrast": ("increase the contrast by {value}", "decrease the contrast by {value}"),
    "saturation": ("increase the saturation by {value}", "decrease the saturation by {value}"),
    "temperature": ("warm the white balance by {value}", "cool the white balance by {value}"),
}


@pytest.mark.parametrize("name", TONE)
@pytest.mark.parametrize("amount", [0.6, -0.6])
def test_the_critics_grammar_never_reads_the_opposite_and_mostly_the_edit(name: str, amount: float) -> None:
    fault = Operation(name=name, amount=amount * (50 if name == "temperature" else 1))
    phrases = PHRASES[f"{name}{'-' if amount > 0 else '+'}"]
    understood = 0
    for variant in range(len(phrases)):
        read = read_suggestion(f"{edit_phrase(fault, variant).capitalize()}.")
        if read.operation == name:
            understood += 1
            assert read.amount * amount < 0, read
            if "{value}" in phrases[variant]:
                assert abs(read.amount) == pytest.approx(abs(fault.amount), rel=0.35), read
        else:
            assert read.operation is None, read
    assert understood >= len(phrases) // 2
    assert CANONICAL[name][amount > 0] == phrases[0]


def test_variants_differ_and_are_the_same_for_the_same_seed() -> None:
    operations = (Operation(name="haze", amount=1.0), Operation(name="contrast", amount=-0.4))
    first = variants("multi_edit", operations, seed=5, count=12)
    assert len(set(first)) == 12 and first == variants("multi_edit", operations, seed=5, count=12)
    assert first[:4] == variants("multi_edit", operations, seed=5, count=4)
    assert first != variants("multi_edit", operations, seed=6, count=12)
    assert 1 <= len(variants("enhancement", (), seed=0, count=50)) <= len(PHRASES["enhancement"])


def test_nothing_known_of_a_kind_that_names_its_edits_is_an_error() -> None:
    with pytest.raises(ValueError, match="operations of a pair of the kind 'restoration', found none"):
        instruction("restoration", (), generator_for(0))


def test_a_look_is_named_and_a_rendered_background_is_blurred() -> None:
    look = Operation(name="look", amount=1.0, asset=f"{'0' * 64}.cube")
    assert "velvia" in instruction("look", (look,), generator_for(2), ("look=velvia",))
    text = instruction("depth_of_field", (Operation(name="defocus_blur", amount=0.06),), generator_for(3))
    assert "strongly" in text and any(word in text.lower() for word in ("background", "behind"))
