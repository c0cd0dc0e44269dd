"""One round of experience for stage III: photos in; verdicts, edits and every reward out.

`sample` lets the Critic look at each photo and at its better version and write a group of verdicts about each; the
verdicts about the photo condition the Artist's edits through H_c as captured while they were written. `reward` says
what each verdict and each edit is worth. Groups are by photo.
"""

from dataclasses import dataclass

import torch
from pydantic import Field
from torch import Tensor

from components.models.artist import Artist, Grid
from components.models.critic import Critic, CriticRollout, Prompts, ReasoningLatent
from components.models.lora import active_adapter
from components.models.sampling import decode_latents, sample_latents
from components.parallel.ranks import Share
from components.parallel.sharding import slices
from components.reinforcement.judges.judge import EditCase, Judge, judge_all
from components.reinforcement.judges.settings import JudgeSettings
from components.reinforcement.rewards.artist import (
    ARTIST_COLUMNS,
    ArtistRewardSettings,
    Edited,
    PerceptualDistance,
    artist_rewards,
)
from components.reinforcement.rewards.critic import CriticRewardSettings, Verdicts, critic_rewards
from components.strict import Strict
from components.training.batches import PairBatch
from components.verdict.grammar import Verdict, parses


class RolloutSettings(Strict):
    """How much experience a round gathers, and how it is rewarded."""

    photos: int = Field(default=4, gt=0, description="Photos per round, of all ranks together.")
    verdicts: int = Field(default=4, gt=1, description="Completions per photo: the Critic's group.")
    edits: int = Field(default=2, gt=0, description="Edits per verdict; verdicts x edits is the Artist's group.")
    temperature: float = Field(default=1.0, gt=0, description="Of the Critic's sampling.")
    max_new_tokens: int = Field(default=200, gt=0, description="Longest completion. Tokens.")
    sampling_steps: int = Field(default=6, gt=0, description="Euler steps per edit.")
    edit_batch: int | None = Field(
        default=None, gt=0, description="Edits that are drawn and decoded at once, to limit memory; all by default."
    )
    judge: JudgeSettings = Field(default_factory=JudgeSettings)
    critic: CriticRewardSettings = Field(default_factory=CriticRewardSettings)
    artist: ArtistRewardSettings = Field(default_factory=ArtistRewardSettings)


@dataclass(frozen=True)
class Samples:
    """What both policies made of P photos, before anything is said about its worth.

    Attributes:
        better: the photos' better versions, (3, h, w) each; the Critic looked at the photos and then at these.
        completions: of the Critic, `verdicts` in a row for each picture.
        verdicts: of the completions; None where one does not parse.
        source_BRC, clean_BSC, latent, grid: what each edit was made from, and its latents; G in a row for each photo.
        edits: (P * G, 3, H, W) in [0, 1].
    """

    better: list[Tensor]
    completions: CriticRollout
    verdicts: list[Verdict | None]
    source_BRC: Tensor
    clean_BSC: Tensor
    latent: ReasoningLatent
    grid: Grid
    edits: Tensor


@dataclass(frozen=True)
class CriticExperience:
    """Completions about N pictures (the photos, then their better versions), G in a row for each, with their rewards.

    Attributes:
        prompts: one for each completion.
        terms: values (N, G) of every reward, by name.
        rewards_NG: their weighted sum.
        share: which pictures of the whole round these are, where ranks have divided one.
    """

    prompts: Prompts
    rollout: CriticRollout
    terms: dict[str, Tensor]
    rewards_NG: Tensor
    share: Share


@dataclass(frozen=True)
class ArtistExperience:
    """Edits of P photos, G in a row for each, with what made them and their rewards.

    Attributes:
        terms: values (P * G,) of every reward, by name, and r_PA as "total"; 0 where not judged.
        rewards_B: r_PA.
        judged: (P * G,) False where the verdict did not parse, so that nothing says what the edit should have done.
        share: which edits of the whole round these are, where ranks have divided one.
    """

    source_BRC: Tensor
    clean_BSC: Tensor
    latent: ReasoningLatent
    grid: Grid
    terms: dict[str, Tensor]
    rewards_B: Tensor
    judged: Tensor
    share: Share


@dataclass(frozen=True)
class Round:
    """The experience of both modules from the same photos."""

    critic: CriticExperience
    artist: ArtistExperience


@torch.no_grad()
def sample(
    critic: Critic, artist: Artist, batch: PairBatch, settings: RolloutSettings, generator: torch.Generator
) -> Samples:
    """Let the Critic write about a batch of photos and the Artist's `old` policy edit them.

    Of several ranks each does so for its share of the photos; samples are those that the whole batch would get.
    """
    better = [pair.target() for pair in batch.pairs]
    completions = critic.generate(
        [*batch.views, *better],
        group=settings.verdicts,
        temperature=settings.temperature,
        max_new_tokens=settings.max_new_tokens,
        generator=generator,
        share=batch.share.twice(),
    )
    about_photos = completions.latent[: len(batch.views) * settings.verdicts]
    latent = ReasoningLatent(
        about_photos.states_BLD.repeat_interleave(settings.edits, 0),
        about_photos.mask_BL.repeat_interleave(settings.edits, 0),
    )
    inputs = batch.inputs.to(artist.device)
    grid = artist.grid(inputs)
    group_size = settings.verdicts * settings.edits
    encoded = [artist.encode(inputs[rows]) for rows in slices(len(inputs), settings.edit_batch)]
    source = torch.cat(encoded).repeat_interleave(group_size, 0)  # encoded once per photo
    with active_adapter(artist.transformer, "old"):
        clean = sample_latents(
            artist,
            source,
            latent,
            grid,
            settings.sampling_steps,
            generator,
            settings.edit_batch,
            batch.share.each(group_size),
        )
    edits = decode_latents(artist, clean, grid, settings.edit_batch)
    verdicts = [parses(text) for text in completions.texts]
    return Samples(better, completions, verdicts, source, clean, latent, grid, edits)


@torch.no_grad()
def reward(
    samples: Samples, batch: PairBatch, distance: PerceptualDistance, judge: Judge, settings: RolloutSettings
) -> Round:
    """What the samples of a batch earn; photos are ranked against those of all ranks.

    Args:
        judge: of r_comp.

    Raises:
        JudgeError: the judge gave no judgement.
        DivergenceError: a reward is not finite.
    """
    of_critic = _critic_experience(samples, batch, settings)
    return Round(of_critic, _artist_experience(samples, batch, distance, judge, settings))


def _critic_experience(samples: Samples, batch: PairBatch, settings: RolloutSettings) -> CriticExperience:
    better, share = samples.better, batch.share.twice()
    verdicts = Verdicts(samples.verdicts, [*batch.views, *better], [*better, *better], share)
    terms = critic_rewards(verdicts, settings.critic)
    prompts = samples.completions.prompts.repeat(settings.verdicts)
    return CriticExperience(prompts, samples.completions, terms, terms.pop("total"), share)


def _artist_experience(
    samples: Samples, batch: PairBatch, distance: PerceptualDistance, judge: Judge, settings: RolloutSettings
) -> ArtistExperience:
    batch = batch.to(samples.edits.device)
    by_verdict = samples.edits.split(settings.edits)
    photos = [index // settings.verdicts for index in range(len(by_verdict))]
    about_photos = samples.verdicts[: len(by_verdict)]
    cases = [
        EditCase(batch.inputs[photo], edits, verdict) if verdict else None
        for photo, edits, verdict in zip(photos, by_verdict, about_photos, strict=True)
    ]
    made = [
        None if followed is None else Edited(edits, batch.targets[photo], followed, distance)
        for photo, edits, followed in zip(photos, by_verdict, judge_all(judge, cases), strict=True)
    ]
    earned = [None if edited is None else artist_rewards(edited, settings.artist) for edited in made]
    nothing = torch.zeros(settings.edits)
    terms = {
        name: torch.cat([nothing if values is None else values[name].cpu() for values in earned])
        for name in ARTIST_COLUMNS
    }
    judged = torch.tensor([values is not None for values in earned]).repeat_interleave(settings.edits)
    made_from = samples.source_BRC, samples.clean_BSC, samples.latent, samples.grid
    share = batch.share.each(settings.verdicts * settings.edits)
    return ArtistExperience(*made_from, terms, terms["total"], judged, share)
