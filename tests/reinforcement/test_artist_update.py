"""The Artist's update: what an edit is compared with, what its advantage is divided by, at which levels it trains."""

import pytest
import torch
from pydantic import ValidationError

from components.models.artist import Artist
from components.models.flow import inference_sigmas
from components.parallel.ranks import Share
from components.reinforcement.artist_update import ArtistUpdate
from components.reinforcement.coordinated import load_modules
from components.reinforcement.grpo import group_advantages
from components.reinforcement.nft import NftSettings
from components.reinforcement.rollouts import ArtistExperience, RolloutSettings
from components.reinforcement.settings import ReinforceSettings
from tests.stage_three import SETTINGS, Inputs

ROLLOUTS = RolloutSettings(photos=2, verdicts=2, edits=3, sampling_steps=6)


@pytest.fixture(scope="module")
def artist(inputs: Inputs) -> Artist:
    return load_modules(inputs.base, inputs.critic_adapter, inputs.artist_adapter, SETTINGS)[1]


def update(artist: Artist, **changes: object) -> ArtistUpdate:
    settings = ReinforceSettings(iterations=2, rollouts=ROLLOUTS, **changes)
    return ArtistUpdate(artist, settings, torch.Generator().manual_seed(0))


def experience(rewards: torch.Tensor, judged: torch.Tensor | None = None) -> ArtistExperience:
    """Edits of which nothing but the rewards matters."""
    judged = torch.ones(len(rewards), dtype=torch.bool) if judged is None else judged
    return ArtistExperience(
        None, None, None, None, {}, rewards, judged, Share(tuple(range(len(rewards))), len(rewards))
    )


REWARDS = torch.tensor([0.1, 0.2, 0.3, 0.7, 0.8, 0.9, 0.5, 0.5, 0.8, 0.2, 0.4, 0.3])


def test_by_photo_the_worth_of_the_verdict_is_part_of_the_advantage(artist: Artist) -> None:
    advantages, informative = update(artist).advantages(experience(REWARDS))
    expected = group_advantages(REWARDS.view(2, 6)).flatten()
    torch.testing.assert_close(advantages, expected)
    assert (informative == 1).all()
    assert (advantages[:3] < 0).all() and (advantages[3:6] > 0).all()


def test_by_verdict_it_is_not(artist: Artist) -> None:
    advantages, _ = update(artist, artist_baseline="verdict").advantages(experience(REWARDS))
    torch.testing.assert_close(advantages, group_advantages(REWARDS.view(4, 3)).flatten())
    torch.testing.assert_close(advantages[:3], advantages[3:6], rtol=0, atol=1e-4)


def test_the_scale_of_the_round_is_one_for_all_groups(artist: Artist) -> None:
    changes = {"artist_baseline": "verdict", "advantage_scale": "round"}
    advantages, _ = update(artist, **changes).advantages(experience(REWARDS))
    centred = REWARDS.view(4, 3) - REWARDS.view(4, 3).mean(1, keepdim=True)
    deviation = (centred.square().sum() / (12 - 4)).sqrt()
    torch.testing.assert_close(advantages, (centred / (deviation + 1e-4)).flatten())


def test_groups_that_teach_nothing_are_left_out_and_count_for_no_scale(artist: Artist) -> None:
    rewards, judged = REWARDS.clone(), torch.ones(12, dtype=torch.bool)
    rewards[:3] = 0.4
    judged[3:5] = False  # one edit is left of this verdict
    changes = {"artist_baseline": "verdict", "advantage_scale": "round"}
    advantages, informative = update(artist, **changes).advantages(experience(rewards, judged))
    assert informative.tolist() == [0] * 6 + [1] * 6
    assert (advantages[:6] == 0).all()
    centred = rewards[6:].view(2, 3) - rewards[6:].view(2, 3).mean(1, keepdim=True)
    deviation = (centred.square().sum() / (6 - 2)).sqrt()
    torch.testing.assert_close(advantages[6:], (centred / (deviation + 1e-4)).flatten())


def test_an_edit_trains_at_each_of_the_samplers_levels_at_most_once(artist: Artist) -> None:
    learning = update(artist, nft=NftSettings(levels="sampler", timesteps=5))
    levels = torch.stack(learning._levels(40, tokens=64))
    sampler = inference_sigmas(artist.scheduler, 6, 64)[:-1]
    assert levels.shape == (5, 40)
    assert torch.isin(levels, sampler).all()
    assert all(len(set(edit.tolist())) == 5 for edit in levels.unbind(1))
    assert len(set(levels.flatten().tolist())) == 6
    assert update(artist)._levels(40, tokens=64) == [None, None]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"artist_baseline": "verdict", "rollouts": RolloutSettings(edits=1)}, "rollouts.edits is 1"),
        ({"nft": NftSettings(levels="sampler", timesteps=7), "rollouts": ROLLOUTS}, "nft.timesteps is 7"),
    ],
)
def test_settings_that_compare_nothing_are_refused(changes: dict[str, object], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        ReinforceSettings(iterations=1, **changes)
