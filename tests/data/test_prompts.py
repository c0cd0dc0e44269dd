"""Instructions say the edit to be done, so the Critic's own reading of them must be the inverse of the fault."""

import pytest
import torch

from components.critic.grammar import RESTORATIONS
from components.data.damage import BOKEH_LEVELS
from components.data.prompts import PHRASES, edit_phrase, instruction
from components.data.seeding import generator_for
from components.photometry.operations import DEGRADATIONS, TONE, Operation

UP = {
    "exposure": ("increase", "brighten", "brighter", "lift", "raise"),
    "contrast": ("increase", "raise", "more", "add"),
    "saturation": ("increase", "more", "boost", "strengthen"),
    "temperature": ("warm the", "warmer", "towards warm", "cold cast"),
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
        assert sentence[0].isupper() and sentence.endswith(".") and sentence.count(".") == 2  # one of them in 1.0 EV
        assert sentence.index("1.0 EV") < max(sentence.find(word) for word in ("nois", "grain"))


def test_an_enhancement_names_no_edit() -> None:
    generator = torch.Generator().manual_seed(0)
    text = instruction("enhancement", (Operation(name="exposure", amount=-1.0),), generator)
    assert "EV" not in text and text.endswith(".")
