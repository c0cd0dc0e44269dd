"""The Critic's rewards: fidelity against scipy, suggestions against pictures whose faults are known, and edge cases."""

import math

import pytest
import torch
from scipy.stats import norm
from torch import Tensor

from components.parallel.ranks import everything
from components.photometry.attributes import measure
from components.photometry.operations import TONE, Operation, apply_operations
from components.reinforcement.rewards.attributes import ATTRIBUTE_SCALE, apply_suggestions, attribute_distance
from components.reinforcement.rewards.critic import (
    CRITIC_REWARDS,
    CriticRewardSettings,
    Verdicts,
    critic_rewards,
    fidelity,
    improvement,
)
from components.training.divergence import DivergenceError
from components.verdict.grammar import Suggestion, Verdict, read_suggestion, suggest
from tests.conftest import make_photo

NAN = math.nan
FLOOR = 9.0


def verdict(*suggestions: Suggestion) -> Verdict:
    return Verdict(reasoning=("a", "b", "c", "d", "e"), suggestions=suggestions, score=50)


def rewards_of(*said: Verdict | None) -> dict[str, Tensor]:
    """Of verdicts about one grey picture that is its own target."""
    grey = torch.full((3, 16, 16), 0.5)
    return critic_rewards(Verdicts(said, [grey], [grey], everything(1)), CriticRewardSettings())


def test_format_wants_edits_that_can_be_carried_out() -> None:
    right, unknown = suggest("exposure", 0.5), Suggestion(text="Crop it.")
    said = (None, verdict(), verdict(right, suggest("noise")), verdict(right, unknown))
    assert rewards_of(*said)["format"].tolist() == [[0, 1, 1, 0.5]]


def test_what_does_not_parse_earns_nothing_and_the_whole_is_the_weighted_sum() -> None:
    rewards = rewards_of(None, verdict(), verdict(suggest("exposure", 3.0)))
    assert list(rewards) == [*CRITIC_REWARDS, "total"]
    assert all(float(values[0, 0]) == 0 for values in rewards.values())
    expected = 0.2 * rewards["format"] + 0.4 * rewards["ranking"] + 0.4 * rewards["suggestion"]
    torch.testing.assert_close(rewards["total"], expected)
    quiet, loud = rewards["suggestion"][0, 1:]
    assert quiet == pytest.approx(0.5, abs=1e-3) and loud < quiet


@pytest.mark.parametrize("name", TONE)
def test_distance_counts_attributes_in_visible_units(photo: Tensor, name: str) -> None:
    edited = apply_operations(photo, [Operation(name=name, amount=ATTRIBUTE_SCALE[name])])
    before, after = measure(photo), measure(edited)
    expected = math.sqrt(
        (float(after.exposure - before.exposure) / 0.5) ** 2
        + (float(torch.log2(after.contrast / before.contrast)) / 0.35) ** 2
        + (float(torch.log2(after.chroma / before.chroma)) / 0.5) ** 2
        + (float(after.temperature - before.temperature) / 30) ** 2
    )
    assert attribute_distance(edited, photo) == pytest.approx(expected, rel=1e-4)
    assert attribute_distance(photo, photo) == 0


@pytest.mark.parametrize(("name", "amount"), [("exposure", 0.8), ("contrast", -0.5), ("temperature", 50.0)])
def test_the_right_suggestion_is_rewarded_and_the_wrong_one_punished(photo: Tensor, name: str, amount: float) -> None:
    faulty = apply_operations(photo, [Operation(name=name, amount=amount)])
    right = improvement(verdict(suggest(name, -amount)), faulty, photo)
    half = improvement(verdict(suggest(name, -amount / 2)), faulty, photo)
    nothing = improvement(verdict(), faulty, photo)
    wrong = improvement(verdict(suggest(name, amount)), faulty, photo)
    assert right > 0.9 and nothing == pytest.approx(0.5, abs=1e-3)
    assert right > half > nothing > wrong >= 0


def test_a_photo_with_nothing_to_mend_rewards_leaving_it_alone(photo: Tensor) -> None:
    leave = improvement(verdict(), photo, photo)
    assert leave == pytest.approx(0.5, abs=1e-3)
    for suggestion in (suggest("exposure", 0.1), suggest("exposure", 1.0), suggest("temperature", 60)):
        assert 0 <= improvement(verdict(suggestion), photo, photo) < leave


@pytest.mark.parametrize(
    "words", ["{} exposure by 9999 EV", "{} saturation by 9999999%", "{} temperature by 99999 mired"]
)
@pytest.mark.parametrize("times", [1, 40])
def test_absurd_suggestions_earn_nothing(photo: Tensor, words: str, times: int) -> None:
    """They must not reach infinity either, where every comparison goes their way."""
    faulty = apply_operations(photo, [Operation(name="exposure", amount=-0.5)])
    for verb in ("Increase", "Decrease"):
        suggestions = [read_suggestion(words.format(verb))] * times
        assert improvement(verdict(*suggestions), faulty, photo) == 0


def test_faults_that_do_not_commute_are_undone_in_reverse(photo: Tensor) -> None:
    """Colours are strengthened after the cast is lifted: the other way round the truth would earn less than silence."""
    faults = [Operation(name="saturation", amount=-1.0), Operation(name="temperature", amount=60.0)]
    faulty = apply_operations(photo, faults)
    truth = verdict(suggest("saturation", 1.0), suggest("temperature", -60.0))
    assert improvement(truth, faulty, photo) > 0.95
    torch.testing.assert_close(apply_suggestions(truth, faulty), photo, atol=0.01, rtol=0)


def test_only_tone_suggestions_are_carried_out(photo: Tensor) -> None:
    plain = apply_suggestions(verdict(suggest("exposure", 0.5)), photo)
    mixed = verdict(suggest("noise"), Suggestion(text="Crop it."), suggest("exposure", 0.3), suggest("exposure", 0.2))
    torch.testing.assert_close(apply_suggestions(mixed, photo), plain)
    torch.testing.assert_close(apply_suggestions(verdict(), photo), photo, atol=1e-5, rtol=1e-5)


def derived_fidelity(scores: list[list[float]], quality: list[float]) -> list[list[float]]:
    """Thurstone probability and fidelity in float64, completion by completion."""
    rewards = []
    for i, group in enumerate(scores):
        rewards.append([])
        for score in group:
            terms = []
            for j, other in enumerate(scores):
                others = [s for s in other if not math.isnan(s)]
                own = [s for s in group if not math.isnan(s)]
                if i == j or not others or math.isnan(score):
                    continue
                mean = sum(others) / len(others)
                variance = sum((s - mean) ** 2 for s in others) / len(others)
                own_mean = sum(own) / len(own)
                own_variance = sum((s - own_mean) ** 2 for s in own) / len(own)
                p = norm.cdf((score - mean) / math.sqrt(variance + own_variance + FLOOR))
                gap = quality[i] - quality[j]
                truth = 0.5 if abs(gap) <= 1.0 else float(gap > 0)
                terms.append(math.sqrt(p * truth) + math.sqrt((1 - p) * (1 - truth)))
            rewards[-1].append(sum(terms) / len(terms) if terms else 0.0)
    return rewards


def test_ranking_is_the_fidelity_of_thurstones_model() -> None:
    scores = [[40.0, 55.0, NAN, 48.0], [70.0, 72.0, 64.0, 90.0], [NAN, NAN, 30.0, NAN], [55.0, 52.0, 58.0, 50.0]]
    quality = [-8.0, 0.0, -12.0, -0.5]
    found = fidelity([torch.tensor(group) for group in scores], torch.tensor(quality), FLOOR)
    for group, expected in zip(found, derived_fidelity(scores, quality), strict=True):
        torch.testing.assert_close(group, torch.tensor(expected), atol=1e-5, rtol=1e-5)


def test_the_right_order_earns_more_than_the_wrong_one_whichever_comes_first() -> None:
    low, high = torch.tensor([30.0, 35.0]), torch.tensor([70.0, 75.0])
    for quality in (torch.tensor([-10.0, 0.0]), torch.tensor([0.0, -10.0])):
        right = fidelity([low, high] if quality[0] < quality[1] else [high, low], quality, FLOOR)
        wrong = fidelity([high, low] if quality[0] < quality[1] else [low, high], quality, FLOOR)
        assert min(r.min() for r in right) > 0.95 and max(w.max() for w in wrong) < 0.1


def test_saying_better_of_everything_is_no_way_to_win() -> None:
    """The same score everywhere is right about ties only; a blind habit cannot beat looking."""
    quality = torch.tensor([-10.0, 0.0, 0.0])
    blind = fidelity([torch.tensor([50.0, 50.0])] * 3, quality, FLOOR)
    seeing = fidelity([torch.tensor([20.0, 20.0])] + [torch.tensor([80.0, 80.0])] * 2, quality, FLOOR)
    assert all((s > b).all() for s, b in zip(seeing, blind, strict=True))


def test_a_tie_rewards_equal_scores() -> None:
    quality = torch.tensor([0.0, -0.9])
    equal = fidelity([torch.tensor([50.0]), torch.tensor([50.0])], quality, FLOOR)
    apart = fidelity([torch.tensor([80.0]), torch.tensor([20.0])], quality, FLOOR)
    assert equal[0] == pytest.approx(1.0) and apart[0] < 0.8


def test_one_photo_cannot_be_ranked() -> None:
    (rewards,) = fidelity([torch.tensor([10.0, 90.0, NAN])], torch.tensor([0.0]), FLOOR)
    assert rewards.tolist() == [0, 0, 0]


def test_where_nothing_parses_nothing_is_earned() -> None:
    for groups in ([[NAN, NAN], [NAN, NAN]], [[NAN, NAN], [60.0, 40.0]]):
        found = fidelity([torch.tensor(g) for g in groups], torch.tensor([-5.0, 0.0]), FLOOR)
        assert all((reward == 0).all() for reward in found), "there is nothing to compare with"


@pytest.mark.parametrize("scores", [[0.0, 0.0], [100.0, 0.0], [0.0, NAN]])
def test_rewards_stay_finite_and_in_range_at_the_extremes(scores: list[float]) -> None:
    groups = [torch.tensor(scores), torch.tensor([100.0, 100.0]), torch.tensor([NAN, 50.0])]
    for quality in (torch.zeros(3), torch.tensor([-100.0, 0.0, 100.0])):
        for reward in fidelity(groups, quality, 1e-6):
            assert reward.isfinite().all() and (reward >= 0).all() and (reward <= 1).all()


def test_a_broken_picture_or_measure_is_no_reward(photo: Tensor) -> None:
    broken = torch.full_like(photo, NAN)
    for picture, target in ((broken, photo), (photo, broken)):
        with pytest.raises(DivergenceError, match="NaN"):
            improvement(verdict(suggest("exposure", 0.5)), picture, target)
    with pytest.raises(DivergenceError, match="true quality of 1 of 2"):
        fidelity([torch.tensor([50.0])] * 2, torch.tensor([-1.0, NAN]), FLOOR)


def test_rewards_of_a_clipped_or_black_picture_are_finite() -> None:
    photo = make_photo()
    for picture in (torch.zeros_like(photo), torch.ones_like(photo)):
        reward = improvement(verdict(suggest("exposure", 1.0), suggest("saturation", 1.0)), picture, photo)
        assert 0 <= reward <= 1
