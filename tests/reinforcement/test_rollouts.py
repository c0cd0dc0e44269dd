"""One round of experience, re-derived part by part: who said what, who painted it, and what each of them earned."""

import pytest
import torch
from torch import Tensor

from components.metrics.full_reference import LPIPS_FILE, Lpips, ciede2000
from components.models.artist import Artist
from components.models.critic import Critic
from components.models.lora import adapter_tensors, copy_adapter
from components.models.sampling import sample_latents
from components.reinforcement import rollouts
from components.reinforcement.judges.judge import EditCase, attribute_compliance
from components.reinforcement.rewards.artist import Edited, artist_rewards
from components.reinforcement.rewards.critic import fidelity, improvement
from components.reinforcement.rollouts import Round
from components.training.batches import PairBatch, PairBatches
from tests.stage_three import SETTINGS, Inputs, gather, read_by_hash, reading_by_hash

pytestmark = pytest.mark.slow

ROLLOUTS = SETTINGS.rollouts
PHOTOS, VERDICTS, EDITS = ROLLOUTS.photos, ROLLOUTS.verdicts, ROLLOUTS.edits


@pytest.fixture(scope="module")
def critic(inputs: Inputs) -> Critic:
    return Critic.load(inputs.base / "critic", inputs.critic_adapter)


@pytest.fixture(scope="module")
def artist(inputs: Inputs) -> Artist:
    """Its adapters `default`, `old` and `reference` all differ."""
    loaded = Artist.load(inputs.base / "artist", inputs.artist_adapter)
    for factor, name in ((1.5, "old"), (-1.0, "reference")):
        copy_adapter(loaded.transformer, name, inputs.artist_adapter)
        with torch.no_grad():
            for parameter in adapter_tensors(loaded.transformer, name).values():
                parameter.mul_(factor)
    return loaded


@pytest.fixture(scope="module")
def distance(inputs: Inputs) -> Lpips:
    return Lpips(inputs.base / LPIPS_FILE)


@pytest.fixture(scope="module")
def batch(inputs: Inputs, artist: Artist) -> PairBatch:
    """Pairs of different photos."""
    batches = PairBatches(inputs.pairs, "train", ["enhancement"], artist)
    drawn = (batches.draw(PHOTOS, torch.Generator().manual_seed(seed)) for seed in range(20))
    return next(candidate for candidate in drawn if len({pair.photo_id for pair in candidate.pairs}) == PHOTOS)


@pytest.fixture(scope="module")
def experience(critic: Critic, artist: Artist, batch: PairBatch, distance: Lpips) -> Round:
    with reading_by_hash():
        return gather(critic, artist, batch, distance, ROLLOUTS, torch.Generator().manual_seed(4))


def test_verdicts_are_about_the_photos_and_then_their_better_versions(
    critic: Critic, batch: PairBatch, experience: Round
) -> None:
    pictures = [*batch.views, *(pair.target() for pair in batch.pairs)]
    expected = critic.generate(
        pictures, VERDICTS, ROLLOUTS.temperature, ROLLOUTS.max_new_tokens, torch.Generator().manual_seed(4)
    )
    assert experience.critic.rollout.texts == expected.texts
    mask = expected.token_mask_BT
    log_p, _ = critic.log_probabilities(experience.critic.prompts, expected.tokens_BT, mask)
    reported = experience.critic.rollout.log_probabilities_BT
    torch.testing.assert_close(reported[mask], log_p.detach()[mask], atol=1e-4, rtol=1e-4)


def test_the_critic_earns_what_its_own_picture_and_target_say(batch: PairBatch, experience: Round) -> None:
    better = [pair.target() for pair in batch.pairs]
    pictures, targets = [*batch.views, *better], [*better, *better]
    verdicts = [read_by_hash(text) for text in experience.critic.rollout.texts]
    groups = [verdicts[i : i + VERDICTS] for i in range(0, len(verdicts), VERDICTS)]
    terms = experience.critic.terms
    for row, (group, picture, target) in enumerate(zip(groups, pictures, targets, strict=True)):
        for column, verdict in enumerate(group):
            assert float(terms["format"][row, column]) == (verdict is not None)
            expected = improvement(verdict, picture, target) if verdict else 0.0
            assert float(terms["suggestion"][row, column]) == pytest.approx(expected, abs=1e-5)
    scores = [torch.tensor([v.score if v else torch.nan for v in group]) for group in groups]
    quality = torch.tensor([-ciede2000(picture, target) for picture, target in zip(pictures, targets, strict=True)])
    ranking = fidelity(scores, quality, ROLLOUTS.critic.variance_floor)
    torch.testing.assert_close(terms["ranking"], torch.stack(ranking), atol=1e-4, rtol=1e-4)


def test_edits_are_made_by_the_old_policy_from_what_was_said_about_the_photo(
    critic: Critic, artist: Artist, batch: PairBatch, distance: Lpips, experience: Round
) -> None:
    painted: list[tuple[str, int]] = []

    def watching(model: Artist, *arguments) -> Tensor:
        painted.append((model.transformer.active_adapter, arguments[3]))
        return sample_latents(model, *arguments)

    with reading_by_hash(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(rollouts, "sample_latents", watching)
        again = gather(critic, artist, batch, distance, ROLLOUTS, torch.Generator().manual_seed(4))
    assert painted == [("old", ROLLOUTS.sampling_steps)]
    assert artist.transformer.active_adapter == "default"
    edits = experience.artist
    assert torch.equal(again.artist.clean_BSC, edits.clean_BSC), "the same generator gives the same edits"
    rows = torch.arange(PHOTOS * VERDICTS).repeat_interleave(EDITS)
    assert torch.equal(edits.latent.mask_BL, experience.critic.rollout.latent.mask_BL[rows])
    assert torch.equal(edits.latent.states_BLD, experience.critic.rollout.latent.states_BLD[rows])
    sources = artist.encode(batch.inputs)
    assert torch.equal(edits.source_BRC, sources.repeat_interleave(VERDICTS * EDITS, 0))
    assert len({tuple(row.flatten().tolist()) for row in edits.clean_BSC}) == PHOTOS * VERDICTS * EDITS


def test_the_artist_earns_what_its_photo_target_and_verdict_say(
    artist: Artist, batch: PairBatch, distance: Lpips, experience: Round
) -> None:
    edits = experience.artist
    pictures = artist.decode(edits.clean_BSC, edits.grid)
    for index, text in enumerate(experience.critic.rollout.texts[: PHOTOS * VERDICTS]):
        rows, photo, verdict = slice(index * EDITS, (index + 1) * EDITS), index // VERDICTS, read_by_hash(text)
        assert (edits.judged[rows] == (verdict is not None)).all()
        if verdict is None:
            assert all((values[rows] == 0).all() for values in edits.terms.values())
            continue
        followed = attribute_compliance(EditCase(batch.inputs[photo], pictures[rows], verdict), ROLLOUTS.artist)
        made = Edited(pictures[rows], batch.targets[photo], followed, distance)
        expected = artist_rewards(made, ROLLOUTS.artist)
        for name, values in edits.terms.items():
            torch.testing.assert_close(values[rows], expected[name], atol=1e-4, rtol=1e-4)
    assert torch.equal(edits.rewards_B, edits.terms["total"])


def test_how_many_edits_are_made_at_once_does_not_change_them(
    critic: Critic, artist: Artist, batch: PairBatch, distance: Lpips, experience: Round
) -> None:
    seen: list[int] = []
    decode = Artist.decode

    def counting(self: Artist, latents: Tensor, *arguments) -> Tensor:
        seen.append(len(latents))
        return decode(self, latents, *arguments)

    settings = ROLLOUTS.model_copy(update={"edit_batch": 3})
    with reading_by_hash(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(Artist, "decode", counting)
        found = gather(critic, artist, batch, distance, settings, torch.Generator().manual_seed(4)).artist
    edits = PHOTOS * VERDICTS * EDITS
    assert sum(seen) == edits > max(seen) == 3
    torch.testing.assert_close(found.clean_BSC, experience.artist.clean_BSC, atol=1e-5, rtol=1e-5)
    for name, values in found.terms.items():
        torch.testing.assert_close(values, experience.artist.terms[name], atol=1e-4, rtol=1e-4)


def test_another_judge_gates_the_reward_and_is_asked_once_about_all_edits(
    critic: Critic, artist: Artist, batch: PairBatch, distance: Lpips, experience: Round
) -> None:
    asked: list[list[EditCase]] = []

    class Doubtful:
        def compliance(self, cases: list[EditCase]) -> list[Tensor]:
            asked.append(cases)
            return [torch.full((len(case.edits),), 0.25) for case in cases]

    generator = torch.Generator().manual_seed(4)
    with reading_by_hash():
        found = gather(critic, artist, batch, distance, ROLLOUTS, generator, Doubtful()).artist
    before = experience.artist
    assert torch.equal(found.terms["compliance"], 0.25 * before.judged)
    for name in ("photometric", "perceptual"):
        assert torch.equal(found.terms[name], before.terms[name])
    ungated = ROLLOUTS.artist.photometric * before.terms["photometric"]
    ungated += ROLLOUTS.artist.perceptual * before.terms["perceptual"]
    torch.testing.assert_close(found.rewards_B, 0.25 * ungated)
    (cases,) = asked
    verdicts = [read_by_hash(text) for text in experience.critic.rollout.texts[: PHOTOS * VERDICTS]]
    assert [case.verdict for case in cases] == [verdict for verdict in verdicts if verdict]
    sources = [batch.inputs[i // VERDICTS] for i, verdict in enumerate(verdicts) if verdict]
    assert all(torch.equal(case.source, source) for case, source in zip(cases, sources, strict=True))
    assert {len(case.edits) for case in cases} == {EDITS}
