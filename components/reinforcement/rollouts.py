"""One round of experience for stage III: photos in; verdicts, edits and every reward out.

The Critic looks at each photo and at its better version and writes a group of verdicts about each. The verdicts about
the photo condition the Artist's edits through H_c as captured while they were written. Groups are by photo.
"""

from dataclasses import dataclass, fields

import torch
from pydantic import Field
from torch import Tensor

from components.models.artist import Artist, Grid
from components.models.critic import Critic, CriticRollout, Prompts, ReasoningLatent
from components.models.lora import active_adapter
from components.models.sampling import decode_latents, sample_latents
from components.parallel.micro_batches import slices
from components.parallel.ranks import Share
from components.photometry.colour import delta_e_2000, srgb_to_lab
from components.reinforcement.artist_rewards import (
    ArtistRewards,
    ArtistRewardSettings,
    PerceptualDistance,
    artist_rewards,
)
from components.reinforcement.critic_rewards import (
    CriticRewardSettings,
    format_reward,
    ranking_rewards,
    suggestion_reward,
)
from components.reinforcement.judges.judge import Case, Judge, judge_all
from components.reinforcement.judges.settings import JudgeSettings, make_judge
from components.strict import Strict
from components.training.batches import PairBatch
from components.verdict.grammar import Verdict, parses


class RolloutSettings(Strict):
    """How much experience a round gathers, and how it is rewarded."""

    photos: int = Field(default=4, gt=0, description="photos a round")
    verdicts: int = Field(default=4, gt=1, description="completions a photo, the Critic's group")
    edits: int = Field(default=2, gt=0, description="edits a verdict; verdicts x edits is the Artist's group")
    temperature: float = Field(default=1.0, gt=0, description="of the Critic's sampling")
    max_new_tokens: int = Field(default=200, gt=0)
    sampling_steps: int = Field(default=6, gt=0, description="Euler steps of an edit")
    edit_batch: int | None = Field(
        default=None, gt=0, description="edits that are drawn, and decoded, at once; all by default; a matter of memory"
    )
    judge: JudgeSettings = Field(default_factory=JudgeSettings)
    critic: CriticRewardSettings = Field(default_factory=CriticRewardSettings)
    artist: ArtistRewardSettings = Field(default_factory=ArtistRewardSettings)


@dataclass(frozen=True)
class CriticExperience:
    """Completions about N pictures (the photos, then their better versions), grouped, with their rewards.

    Attributes:
        share: which pictures of the whole round these are, where ranks have divided one.
    """

    prompts: Prompts
    rollout: CriticRollout
    terms: dict[str, Tensor]  # each (N, G)
    rewards_NG: Tensor
    share: Share


@dataclass(frozen=True)
class ArtistExperience:
    """Edits of P photos, G in a row for each, with what made them and their reward terms.

    Attributes:
        judged: (P * G,) False where the verdict did not parse, so that nothing says what the edit should have done.
        share: which edits of the whole round these are, where ranks have divided one.
    """

    source_BRC: Tensor
    clean_BSC: Tensor
    latent: ReasoningLatent
    grid: Grid
    terms: dict[str, Tensor]  # each (P * G,); 0 where not judged
    rewards_B: Tensor
    judged: Tensor
    share: Share


@dataclass(frozen=True)
class Round:
    """The experience of both modules from the same photos."""

    critic: CriticExperience
    artist: ArtistExperience


@torch.no_grad()
def gather(
    critic: Critic,
    artist: Artist,
    batch: PairBatch,
    distance: PerceptualDistance,
    settings: RolloutSettings,
    generator: torch.Generator,
    judge: Judge | None = None,
) -> Round:
    """Let the Critic judge and the Artist's `old` policy edit a batch of photos, and reward both.

    Of several ranks each gathers the experience of its share of the photos; photos are ranked against those of all.

    Args:
        judge: of r_comp; by default the one that the settings name, if it needs no journal.

    Raises:
        JudgeError: the judge gave no judgement.
        DivergenceError: a reward is not finite.
    """
    judge = judge or make_judge(settings.judge, settings.artist, journal=None)
    better = [pair.target() for pair in batch.pairs]
    pictures = [*batch.views, *better]
    rollout = critic.generate(
        pictures,
        group=settings.verdicts,
        temperature=settings.temperature,
        max_new_tokens=settings.max_new_tokens,
        generator=generator,
        share=batch.share.twice(),
    )
    verdicts = [parses(text) for text in rollout.texts]
    terms = _critic_terms(verdicts, batch, better, settings)
    weights = settings.critic
    rewards = sum(values * getattr(weights, name) for name, values in terms.items())
    judged = CriticExperience(rollout.prompts.repeat(settings.verdicts), rollout, terms, rewards, batch.share.twice())
    about_inputs = slice(0, len(batch.views) * settings.verdicts)
    verdicts = verdicts[about_inputs]
    edits = _edit(artist, batch, rollout.latent[about_inputs], verdicts, distance, judge, settings, generator)
    return Round(judged, edits)


def _edit(
    artist: Artist,
    batch: PairBatch,
    latent: ReasoningLatent,
    verdicts: list[Verdict | None],
    distance: PerceptualDistance,
    judge: Judge,
    settings: RolloutSettings,
    generator: torch.Generator,
) -> ArtistExperience:
    batch = batch.to(artist.device)
    grid = artist.grid(batch.inputs)
    group = settings.verdicts * settings.edits
    encoded = [artist.encode(batch.inputs[rows]) for rows in slices(len(batch.inputs), settings.edit_batch)]
    source = torch.cat(encoded).repeat_interleave(group, 0)  # encoded once a photo
    latent = ReasoningLatent(
        latent.states_BLD.repeat_interleave(settings.edits, 0), latent.mask_BL.repeat_interleave(settings.edits, 0)
    )
    with active_adapter(artist.transformer, "old"):
        clean = sample_latents(
            artist,
            source,
            latent,
            grid,
            settings.sampling_steps,
            generator,
            settings.edit_batch,
            batch.share.each(group),
        )
    pictures = decode_latents(artist, clean, grid, settings.edit_batch).split(settings.edits)
    photos = [index // settings.verdicts for index in range(len(verdicts))]
    cases = [
        verdict and Case(batch.inputs[photo], made, verdict)
        for photo, made, verdict in zip(photos, pictures, verdicts, strict=True)
    ]
    rows: list[ArtistRewards | None] = [
        case and artist_rewards(*case[:2], batch.targets[photo], case.verdict, distance, settings.artist, followed)
        for photo, case, followed in zip(photos, cases, judge_all(judge, cases), strict=True)
    ]
    nothing = torch.zeros(settings.edits)
    terms = {
        field.name: torch.cat([nothing if row is None else getattr(row, field.name).cpu() for row in rows])
        for field in fields(ArtistRewards)
    }
    judged = torch.tensor([row is not None for row in rows]).repeat_interleave(settings.edits)
    return ArtistExperience(source, clean, latent, grid, terms, terms["total"], judged, batch.share.each(group))


def _critic_terms(
    verdicts: list[Verdict | None], batch: PairBatch, better: list[Tensor], settings: RolloutSettings
) -> dict[str, Tensor]:
    """Reward terms (N, G) for verdicts about the photos and then about their better versions."""
    pictures, targets, group = [*batch.views, *better], [*better, *better], settings.verdicts
    said = torch.tensor([verdict.score if verdict else torch.nan for verdict in verdicts])
    share = batch.share.twice()
    scores = share.gather(said.view(-1, group)).unbind()
    quality = torch.tensor(
        [
            -float(delta_e_2000(srgb_to_lab(picture), srgb_to_lab(target)).mean())
            for picture, target in zip(pictures, targets, strict=True)
        ]
    )
    ranking = ranking_rewards(scores, share.gather(quality), settings.critic.variance_floor)
    suggestion = [
        suggestion_reward(verdict, pictures[i // group], targets[i // group]) for i, verdict in enumerate(verdicts)
    ]
    return {
        "format": torch.tensor([format_reward(verdict) for verdict in verdicts]).view(-1, group),
        "ranking": share.of(torch.stack(ranking)),
        "suggestion": torch.tensor(suggestion).view(-1, group),
    }
