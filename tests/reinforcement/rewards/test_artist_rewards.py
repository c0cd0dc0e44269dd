"""The Artist's rewards on edits whose effect is known, and the formulas against the measured attributes."""

import math

import pytest
import torch
from torch import Tensor

from components.photometry.attributes import measure
from components.photometry.operations import Operation, apply_operations
from components.reinforcement.judges.judge import EditCase, attribute_compliance
from components.reinforcement.rewards.artist import (
    ARTIST_COLUMNS,
    ARTIST_REWARDS,
    ArtistRewardSettings,
    Edited,
    artist_rewards,
    photometric,
)
from components.reinforcement.rewards.table import Reward, weighted
from components.training.divergence import DivergenceError
from components.verdict.grammar import Suggestion, Verdict, suggest

SETTINGS = ArtistRewardSettings(full_effect=0.5)


def verdict(*suggestions: Suggestion) -> Verdict:
    return Verdict(reasoning=("a", "b", "c", "d", "e"), suggestions=suggestions, score=50)


def edits_of(photo: Tensor, name: str, *amounts: float) -> Tensor:
    return torch.stack([apply_operations(photo, [Operation(name=name, amount=amount)]) for amount in amounts])


@pytest.mark.parametrize(
    ("name", "amount"),
    [("exposure", 0.6), ("exposure", -0.6), ("contrast", 0.4), ("saturation", -0.6), ("temperature", 40.0)],
)
def test_compliance_grows_with_the_share_of_the_suggestion_that_was_followed(
    photo: Tensor, name: str, amount: float
) -> None:
    suggestion = Suggestion(text="", operation=name, amount=amount)
    edits = edits_of(photo, name, -amount, 0.0, 0.25 * amount, 0.5 * amount, amount, 1.5 * amount)
    scores = attribute_compliance(EditCase(photo, edits, verdict(suggestion)), SETTINGS)
    torch.testing.assert_close(scores, torch.tensor([0.0, 0.0, 0.5, 1.0, 1.0, 1.0]), atol=0.06, rtol=0)


def test_compliance_is_the_mean_over_tone_suggestions_and_ignores_others(photo: Tensor) -> None:
    edits = edits_of(photo, "exposure", 0.6)
    both = verdict(suggest("exposure", 0.6), suggest("temperature", 40))
    torch.testing.assert_close(
        attribute_compliance(EditCase(photo, edits, both), SETTINGS), torch.tensor([0.5]), atol=0.02, rtol=0
    )
    mixed = verdict(suggest("exposure", 0.6), suggest("noise"), Suggestion(text="Crop it."))
    torch.testing.assert_close(attribute_compliance(EditCase(photo, edits, mixed), SETTINGS), torch.tensor([1.0]))


@pytest.mark.parametrize("suggestions", [(), (suggest("noise"),), (Suggestion(text="Crop it."),)])
def test_without_tone_suggestions_the_edit_must_leave_tone_alone(
    photo: Tensor, suggestions: tuple[Suggestion, ...]
) -> None:
    case = EditCase(photo, edits_of(photo, "exposure", 0.0, 0.3, 1.0), verdict(*suggestions))
    scores = attribute_compliance(case, SETTINGS)
    assert scores[0] > 0.999 and scores[0] > scores[1] > scores[2] > 0


def test_the_photometric_term_is_the_formula_on_measured_attributes(photo: Tensor) -> None:
    settings = ArtistRewardSettings(tolerance=0.7)
    edits = torch.cat([edits_of(photo, "exposure", 0.4), edits_of(photo, "saturation", -0.8), photo[None]])
    truth, found = measure(photo), measure(edits)
    deviations = {
        "exposure": (found.exposure - truth.exposure) / 0.5,
        "contrast": torch.log2(found.contrast / truth.contrast) / 0.35,
        "saturation": torch.log2(found.chroma / truth.chroma) / 0.5,
        "temperature": (found.temperature - truth.temperature) / 30,
    }
    expected = sum(torch.exp(-d.abs() / 0.7) for d in deviations.values()) / 4
    torch.testing.assert_close(
        photometric(Edited(edits, photo, torch.ones(3), lambda *_: torch.zeros(3)), settings), expected
    )
    assert expected[2] == 1


def test_the_reward_is_gated_by_compliance(photo: Tensor) -> None:
    settings = ArtistRewardSettings(photometric=0.3, perceptual=0.7, lpips_tolerance=0.2)
    source = apply_operations(photo, [Operation(name="exposure", amount=-0.8)])
    edits = torch.stack([photo, source, apply_operations(source, [Operation(name="exposure", amount=-0.5)])])
    distances = torch.tensor([0.0, 0.1, 0.4])
    seen: list[tuple[Tensor, Tensor]] = []

    def distance(pictures: Tensor, references: Tensor) -> Tensor:
        seen.append((pictures, references))
        return distances

    followed = attribute_compliance(EditCase(source, edits, verdict(suggest("exposure", 0.8))), settings)
    rewards = artist_rewards(Edited(edits, photo, followed, distance), settings)
    torch.testing.assert_close(rewards["perceptual"], torch.exp(-distances / 0.2))
    expected = rewards["compliance"] * (0.3 * rewards["photometric"] + 0.7 * rewards["perceptual"])
    torch.testing.assert_close(rewards["total"], expected)
    assert rewards["total"][0] == pytest.approx(1.0) and rewards["total"][1:].tolist() == [0, 0]
    ((pictures, references),) = seen
    assert torch.equal(pictures, edits) and torch.equal(references, torch.stack([photo] * 3))
    assert tuple(rewards) == ARTIST_COLUMNS == ("compliance", "photometric", "perceptual", "total")
    assert all((values >= 0).all() and (values <= 1).all() for values in rewards.values())


@pytest.mark.parametrize("broken", ["edit", "distance"])
def test_a_broken_measure_does_not_pass_for_a_bad_edit(photo: Tensor, broken: str) -> None:
    edits = torch.stack([photo, torch.full_like(photo, math.nan) if broken == "edit" else photo])
    distances = torch.tensor([0.1, math.nan if broken == "distance" else 0.1])
    said = {"edit": "compliance of 1, photometric of 1; 1 of the edits", "distance": "perceptual of 1; 0 of the edits"}
    followed = attribute_compliance(EditCase(photo, edits, verdict(suggest("exposure", 0.5))), SETTINGS)
    with pytest.raises(DivergenceError, match=f"not finite: {said[broken]}"):
        artist_rewards(Edited(edits, photo, followed, lambda *_: distances), SETTINGS)


def test_a_judge_may_say_how_far_the_suggestions_were_followed(photo: Tensor) -> None:
    edits, judged = torch.stack([photo, photo]), torch.tensor([0.25, 1.0])
    rewards = artist_rewards(Edited(edits, photo, judged, lambda *_: torch.zeros(2)), SETTINGS)
    assert torch.equal(rewards["compliance"], judged)
    torch.testing.assert_close(rewards["total"], judged)
    with pytest.raises(DivergenceError, match="compliance of 2"):
        artist_rewards(Edited(edits, photo, judged * math.nan, lambda *_: torch.zeros(2)), SETTINGS)


def test_a_reward_is_one_entry_of_the_table(photo: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its weight, its column and its part of r_PA follow from the entry alone."""
    sharpness = Reward(lambda edited, settings: torch.full((len(edited.edits),), 0.5), "r_sharp", weight=0.25)
    monkeypatch.setitem(ARTIST_REWARDS, "sharpness", sharpness)
    made = Edited(photo[None], photo, torch.ones(1), lambda *_: torch.zeros(1))
    settings = weighted(ARTIST_REWARDS)(photometric=0.5, perceptual=0.25)
    assert settings.model_dump() == {"photometric": 0.5, "perceptual": 0.25, "sharpness": 0.25}
    rewards = artist_rewards(made, SETTINGS.model_copy(update=settings.model_dump()))
    assert list(rewards) == ["compliance", "photometric", "perceptual", "sharpness", "total"]
    assert float(rewards["total"]) == pytest.approx(0.5 + 0.25 + 0.25 * 0.5)
