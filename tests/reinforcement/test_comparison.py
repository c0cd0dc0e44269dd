"""Held-out scoring: re-derived from the Critic's and the Artist's own parts, and the same for the same policies."""

from pathlib import Path

import pytest
import torch

from components.metrics.full_reference import LPIPS_FILE, Lpips, ciede2000, ssim
from components.metrics.no_reference import piqe
from components.models.artist import Artist
from components.models.critic import Critic, ReasoningLatent
from components.models.lora import adapter_tensors
from components.models.sampling import sample_edits
from components.reinforcement import comparison
from components.reinforcement.comparison import ComparisonSettings, PolicyScores, log_policy, score_policy, score_stage
from components.reinforcement.judges.judge import EditCase, attribute_compliance
from components.reinforcement.judges.settings import JudgeSettings
from components.reinforcement.rewards.artist import Edited, artist_rewards
from components.reinforcement.rollouts import RolloutSettings
from components.training.batches import PairBatches
from tests.recording import RecordingTracker
from tests.stage_three import Inputs, read_by_hash, reading_by_hash

pytestmark = pytest.mark.slow

ROLLOUTS = RolloutSettings(max_new_tokens=5, sampling_steps=2)
SETTINGS = ComparisonSettings(draws=2, batch_size=2)
TERMS = ("compliance", "photometric", "perceptual", "total")


@pytest.fixture(scope="module")
def distance(inputs: Inputs) -> Lpips:
    return Lpips(inputs.base / LPIPS_FILE)


def stage(inputs: Inputs, distance: Lpips, settings: ComparisonSettings = SETTINGS) -> PolicyScores:
    return score_stage(
        inputs.base, inputs.critic_adapter, inputs.artist_adapter, inputs.pairs, "train", distance, ROLLOUTS, settings
    )


@torch.no_grad()
def test_scores_are_rewards_of_edits_under_greedy_verdicts(inputs: Inputs, distance: Lpips) -> None:
    critic = Critic.load(inputs.base / "critic", inputs.critic_adapter)
    artist = Artist.load(inputs.base / "artist", inputs.artist_adapter)
    batches = PairBatches(inputs.pairs, "train", ["enhancement"], artist)
    verdicts = [read_by_hash(f"verdict {number}") for number in range(5)] + [None]
    read: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(comparison, "parses", lambda text: (read.append(text), verdicts[len(read) - 1])[1])
        scores = score_policy(critic, artist, batches, distance, ROLLOUTS, SETTINGS)
    generator = torch.Generator().manual_seed(SETTINGS.seed)
    index = 0
    for batch in batches.in_order(2):
        rollout = critic.generate(batch.views, max_new_tokens=5)
        rows = torch.tensor([i for i in range(len(batch.pairs)) for _ in range(2)])
        latent = ReasoningLatent(rollout.latent.states_BLD[rows], rollout.latent.mask_BL[rows])
        edits = sample_edits(artist, batch.inputs[rows], latent, 2, generator)
        for i, (pair, text) in enumerate(zip(batch.pairs, rollout.texts, strict=True)):
            made, target = edits[2 * i : 2 * i + 2], batch.targets[i]
            assert scores.ids[index] == pair.id and scores.photos[index] == pair.photo_id
            error = sum(ciede2000(edit, target) for edit in made) / 2
            assert float(scores.unrewarded["colour_error"][index]) == pytest.approx(error, rel=1e-4)
            similarity = sum(ssim(edit, target) for edit in made) / 2
            assert float(scores.unrewarded["ssim"][index]) == pytest.approx(similarity, rel=1e-4)
            excess = [max(0.0, float(piqe(edit[None]) - piqe(target[None]))) for edit in made]
            assert float(scores.unrewarded["piqe_excess"][index]) == pytest.approx(sum(excess) / 2, abs=0.1)
            assert read[index] == text
            verdict = verdicts[index]
            for name in TERMS:
                expected = 0.0
                if verdict is not None:
                    followed = attribute_compliance(EditCase(batch.inputs[i], made, verdict), ROLLOUTS.artist)
                    rewards = artist_rewards(Edited(made, target, followed, distance), ROLLOUTS.artist)
                    expected = float(rewards[name].mean())
                assert float(scores.terms[name][index]) == pytest.approx(expected, abs=1e-5), name
            index += 1
    assert index == len(scores.ids) == 6
    assert verdicts.count(None) < 4, "the test needs verdicts that parse, too"


def test_the_same_policies_get_the_same_scores_and_others_get_others(inputs: Inputs, distance: Lpips) -> None:
    with reading_by_hash():
        first, again = stage(inputs, distance), stage(inputs, distance)
        other = stage(inputs, distance, ComparisonSettings(draws=2, batch_size=2, seed=2))
    for name in TERMS:
        assert torch.equal(first.terms[name], again.terms[name])
    assert torch.equal(first.picture, again.picture)
    for name, values in first.unrewarded.items():
        assert torch.equal(values, again.unrewarded[name])
    assert first.ids == other.ids
    assert not torch.equal(first.unrewarded["colour_error"], other.unrewarded["colour_error"])


def test_policies_are_compared_on_the_same_noise(inputs: Inputs, distance: Lpips) -> None:
    """A hair's breadth between two Artists stays a hair's breadth between their scores."""
    critic = Critic.load(inputs.base / "critic", inputs.critic_adapter)
    artist = Artist.load(inputs.base / "artist", inputs.artist_adapter)
    batches = PairBatches(inputs.pairs, "validation", ["enhancement"], artist)
    with reading_by_hash():
        before = score_policy(critic, artist, batches, distance, ROLLOUTS, SETTINGS)
        with torch.no_grad():
            for name, parameter in adapter_tensors(artist.transformer).items():
                if "lora_B" in name:
                    parameter.mul_(1.001)
        after = score_policy(critic, artist, batches, distance, ROLLOUTS, SETTINGS)
    difference = (after.unrewarded["colour_error"] - before.unrewarded["colour_error"]).abs().max()
    assert 0 < difference < 0.2


def test_a_critic_that_cannot_be_read_earns_nothing_but_its_colour_error_counts(
    inputs: Inputs, distance: Lpips
) -> None:
    scores = stage(inputs, distance)
    assert all((values == 0).all() for values in scores.terms.values())
    assert (scores.unrewarded["colour_error"] > 0).all()


def test_means_and_a_picture_are_reported() -> None:
    tracker, picture = RecordingTracker(), torch.zeros(3, 4, 4)
    terms = {name: torch.tensor([0.0, float(index)]) for index, name in enumerate(TERMS)}
    unrewarded = {"colour_error": torch.tensor([2.0, 4.0]), "ssim": torch.tensor([0.5, 1.0])}
    scores = PolicyScores(["a", "b"], ["p", "q"], terms, unrewarded, picture)
    means = log_policy(scores, tracker, "stage/test", 7)
    assert means == {
        "reward_compliance": 0.0,
        "reward_photometric": 0.5,
        "reward_perceptual": 1.0,
        "reward_total": 1.5,
        "colour_error": 3.0,
        "ssim": 0.75,
    }
    assert tracker.rows == [(7, {f"stage/test/{name}": value for name, value in means.items()})]
    assert tracker.pictures == [("stage/test/input_edit_truth", 7, picture)]


def test_an_adapter_folder_that_is_missing_is_named(inputs: Inputs, distance: Lpips, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="nowhere"):
        stage(inputs._replace(artist_adapter=tmp_path / "nowhere"), distance)


def test_a_judge_that_needs_a_journal_is_not_replaced_by_the_other(inputs: Inputs, distance: Lpips) -> None:
    rollouts = ROLLOUTS.model_copy(update={"judge": JudgeSettings(kind="mllm")})
    critic, artist = Critic.load(inputs.base / "critic"), Artist.load(inputs.base / "artist")
    batches = PairBatches(inputs.pairs, "train", ["enhancement"], artist)
    with pytest.raises(ValueError, match="journal"):
        score_policy(critic, artist, batches, distance, rollouts, SETTINGS)
