"""The Critic's update where ranks differ in what they have to learn from."""

import pytest
import torch

from components.metrics.full_reference import LPIPS_FILE, Lpips
from components.models.artist import Artist
from components.models.critic import Critic
from components.reinforcement import critic_update
from components.reinforcement.coordinated import load_modules
from components.reinforcement.critic_update import CriticUpdate
from components.training.batches import PairBatches
from tests.stage_three import SETTINGS, Inputs, gather


@pytest.fixture(scope="module")
def modules(inputs: Inputs) -> tuple[Critic, Artist]:
    return load_modules(inputs.base, inputs.critic_adapter, inputs.artist_adapter, SETTINGS)


def test_a_rank_with_nothing_to_learn_from_shares_the_steps_of_those_that_have(
    inputs: Inputs, modules: tuple[Critic, Artist], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It must come to the collectives of the optimiser step, or the others would wait for it for ever."""
    critic, artist = modules
    generator = torch.Generator().manual_seed(0)
    batch = PairBatches(inputs.pairs, "train", ["enhancement"], artist).draw(SETTINGS.rollouts.photos, generator)
    distance = Lpips(inputs.base / LPIPS_FILE)
    completions = gather(critic, artist, batch, distance, SETTINGS.rollouts, generator).critic
    update, none = CriticUpdate(critic, SETTINGS), torch.zeros(len(completions.rollout.texts), dtype=torch.bool)
    stepped: list[int] = []
    monkeypatch.setattr(update.optimiser, "update", lambda step: (stepped.append(step), {})[1])
    advantages = torch.zeros(len(none))
    assert update.learn(completions, advantages, none, 3) == {} and stepped == []
    monkeypatch.setattr(critic_update, "all_reduce", lambda values: {name: value + 1 for name, value in values.items()})
    assert update.learn(completions, advantages, none, 3)["loss"] == 1 and stepped == [3]
