"""Stage III's update beside Edit-R1's as restated: the same gradient from the same noise, for less work."""

from dataclasses import replace

import pytest
import torch

from benchmarks.edit_r1 import counting, edit_r1_gradients
from benchmarks.nft import NftTrial
from benchmarks.training import generate_then_forward
from components.models.artist import Artist
from components.models.critic import Critic
from components.models.lora import adapter_tensors
from components.reinforcement.coordinated import ReinforceSettings
from components.reinforcement.nft import NftSettings
from components.reinforcement.rollouts import RolloutSettings
from tests.conftest import make_photo
from tests.stage_three import Inputs, reading_by_hash

pytestmark = pytest.mark.slow

LEVELS, SHARE = 2, 0.5
SETTINGS = ReinforceSettings(
    iterations=2,
    rollouts=RolloutSettings(photos=3, verdicts=4, edits=2, max_new_tokens=5, sampling_steps=1),
    artist_learning_rate=1e-2,
    artist_updates=1,
    micro_batch=5,
    nft=NftSettings(timesteps=LEVELS, kl=0.1, decay_rate=0.4),
    reference_share=SHARE,
    smallest_deviation=0.05,
)


@pytest.fixture(scope="module")
def trial(inputs: Inputs) -> NftTrial:
    """Of three groups of eight edits, the second earns one and the same reward and two of the third are not judged."""
    with reading_by_hash():
        made = NftTrial(tuple(inputs), SETTINGS)
    rewards, judged = torch.rand(24, generator=torch.Generator().manual_seed(1)), torch.ones(24, dtype=torch.bool)
    rewards[8:16] = 0.25
    judged[[17, 20]] = False
    made.use(replace(made.edits, rewards_B=rewards, judged=judged))
    return made


def gradients(trial: NftTrial) -> torch.Tensor:
    parameters = adapter_tensors(trial.artist.transformer).values()
    return torch.cat([torch.zeros_like(p).flatten() if p.grad is None else p.grad.flatten() for p in parameters])


def test_both_loops_find_the_same_gradient_and_ours_does_less(trial: NftTrial) -> None:
    kept, everything = int(trial.valid.sum()), len(trial.valid)
    assert (kept, everything) == (14, 24) and trial.masked == pytest.approx(10 / 24)
    measured = sum(len(one.rows) for one in trial.passes() if one.kl and trial.valid[one.rows].all())
    assert measured > 0
    for trails in (False, True):
        if trails:
            trial.let_old_trail()
        found = trial.compare(repeats=1)
        assert found.published.gradients.abs().max() > 1e-4
        assert found.difference < 1e-6 * float(found.published.gradients.abs().max()) + 1e-7
        torch.testing.assert_close(found.keeping.gradients, found.published.gradients)
        assert found.ours.equivalents == (3 + trails) * kept * LEVELS + measured
        assert found.published.equivalents == 6 * everything * LEVELS
        assert found.keeping.equivalents == 5 * everything * LEVELS


def test_as_in_a_run_each_loop_masks_by_its_own_rule_and_both_compute_activations_again(trial: NftTrial) -> None:
    edits, settings = trial.edits, trial.settings
    alike = torch.where(torch.arange(24) < 8, 0.5 + 0.02 * (edits.rewards_B - 0.5), edits.rewards_B)
    trial.settings = trial.update.settings = settings.model_copy(update={"smallest_deviation": 0.001})
    trial.use(replace(edits, rewards_B=alike))
    assert trial.valid[:8].all() and not trial.theirs[:8].any(), "the first group differs by less than Edit-R1 asks"
    assert torch.equal(trial.valid[8:], trial.theirs[8:])
    kept, trails = int(trial.valid.sum()), not trial.update.old_is_current
    measured = sum(len(one.rows) for one in trial.passes() if one.kl and trial.valid[one.rows].all())
    found = trial.compare(settings.nft, repeats=1, recompute=True)
    assert found.ours.equivalents == (4 + trails) * kept * LEVELS + measured
    assert found.published.equivalents == 6 * 24 * LEVELS
    trial.settings = trial.update.settings = settings
    trial.use(edits)


def test_without_a_divergence_ours_never_asks_the_reference(trial: NftTrial) -> None:
    trails = not trial.update.old_is_current
    found = trial.compare(SETTINGS.nft.model_copy(update={"kl": 0.0}), repeats=1)
    assert found.ours.equivalents == (3 + trails) * int(trial.valid.sum()) * LEVELS
    assert found.difference < 1e-6


def test_a_masked_edit_costs_edit_r1_its_passes_and_gives_it_no_gradient(trial: NftTrial) -> None:
    artist, passes = trial.artist, trial.passes()
    found = []
    for chosen in (passes, [one for one in passes if trial.valid[one.rows].all()]):
        artist.transformer.zero_grad()
        with counting(artist.transformer) as work:
            edit_r1_gradients(artist, trial.edits, trial.advantages, trial.valid, chosen, SETTINGS.nft)
        found.append((work.equivalents, gradients(trial)))
    (all_work, all_gradients), (kept_work, kept_gradients) = found
    assert all_work > kept_work
    torch.testing.assert_close(all_gradients, kept_gradients)


def test_edit_r1_makes_one_update_an_iteration(inputs: Inputs) -> None:
    with pytest.raises(ValueError, match="expected one update"):
        NftTrial(tuple(inputs), SETTINGS.model_copy(update={"artist_updates": 2}))


@torch.no_grad()
def test_work_is_counted_by_samples_and_gradients(inputs: Inputs) -> None:
    artist = Artist.load(inputs.base / "artist", inputs.artist_adapter, trainable=True)
    tokens = torch.zeros(3, 8, 32)
    arguments = {
        "hidden_states": tokens,
        "encoder_hidden_states": torch.zeros(3, 2, 32),
        "timestep": torch.zeros(3),
        "img_shapes": [[(1, 2, 2), (1, 2, 2)]] * 3,
    }
    with counting(artist.transformer) as work:
        artist.transformer(**arguments)
        assert work.equivalents == 3
        with torch.enable_grad():
            artist.transformer(**arguments)
        assert work.equivalents == 3 + 9
        artist.checkpoint_gradients()
        with torch.enable_grad():
            artist.transformer(**arguments)
        assert work.equivalents == 3 + 9 + 12
    artist.transformer(**arguments)
    assert work.equivalents == 24


def test_generate_then_forward_writes_what_the_critic_writes_and_finds_its_latent(inputs: Inputs) -> None:
    critic = Critic.load(inputs.base / "critic", inputs.critic_adapter)
    views = [make_photo(48, 72, seed=0), make_photo(72, 48, seed=1)]
    written = critic.generate(views, group=2, max_new_tokens=6)
    tokens, mask, latent = generate_then_forward(critic, views, 2, written.tokens_BT.shape[1])
    assert torch.equal(mask, written.token_mask_BT) and torch.equal(tokens[mask], written.tokens_BT[mask])
    assert torch.equal(latent.mask_BL, written.latent.mask_BL)
    torch.testing.assert_close(latent.states_BLD, written.latent.states_BLD, atol=1e-5, rtol=1e-4)
