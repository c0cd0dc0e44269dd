"""Held-out comparison of policies: the reward that a Critic and an Artist earn together, case by case.

Noise and photos are the same for every policy, so two policies are compared pair by pair.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import Field
from torch import Tensor
from tqdm import tqdm

from components.data.splits import Split
from components.metrics.full_reference import ssim
from components.metrics.no_reference import piqe
from components.models.artist import Artist
from components.models.compute import Placement
from components.models.critic import Critic, ReasoningLatent
from components.models.sampling import sample_edits
from components.parallel.ranks import is_main
from components.photometry.colour import delta_e_2000, srgb_to_lab
from components.reinforcement.judges.judge import EditCase, Judge, judge_all
from components.reinforcement.judges.settings import make_judge
from components.reinforcement.rewards.artist import ARTIST_COLUMNS, Edited, PerceptualDistance, artist_rewards
from components.reinforcement.rollouts import RolloutSettings
from components.strict import Strict
from components.training.artist_sft import PICTURES, before_after
from components.training.batches import PairBatches
from components.training.held_out import HeldOutSettings
from components.training.tracker import Tracker
from components.verdict.grammar import parses


class ComparisonSettings(Strict):
    """How a policy is scored on held-out photos."""

    draws: int = Field(default=2, gt=0, description="Noise draws per photo, averaged.")
    batch_size: int = Field(default=8, gt=0, description="Photos at a time.")
    seed: int = Field(default=1, ge=0, description="Of the noise.")
    held_out: HeldOutSettings = Field(default_factory=HeldOutSettings, description="Pairs that are looked at.")


UNREWARDED = ("colour_error", "ssim", "piqe_excess")
"""What is measured of an edit and no reward pays for."""


@dataclass(frozen=True)
class PolicyScores:
    """What a policy earned on N held-out pairs.

    Attributes:
        ids: of the pairs; photos: of their source photos.
        terms: for each of the Artist's rewards the mean (N,) over the draws, 0 where the verdict did not parse;
            "total" is r_PA.
        unrewarded: for each measure that no reward pays for the mean (N,) over the draws: "colour_error", CIEDE2000 to
            the ground truth; "ssim", structural similarity to it; "piqe_excess", by how much the edit's PIQE, whose 0
            is best, lies above that of the ground truth, 0 where it does not.
        picture: (3, H, W) input, edit and ground truth of some of those that this rank edited.
    """

    ids: list[str]
    photos: list[str]
    terms: dict[str, Tensor]
    unrewarded: dict[str, Tensor]
    picture: Tensor


@torch.no_grad()
def score_policy(
    critic: Critic,
    artist: Artist,
    batches: PairBatches,
    distance: PerceptualDistance,
    rollouts: RolloutSettings,
    settings: ComparisonSettings,
    judge: Judge | None = None,
    progress: Callable[[], None] = lambda: None,
) -> PolicyScores:
    """Greedy verdicts, `draws` edits for each, and their rewards, over all pairs of `batches` in order.

    Ranks divide each batch; every rank must call it, and gets the scores of all pairs.

    Args:
        judge: of r_comp; by default the one that `rollouts` names, if it needs no journal.
        progress: called before every batch.
    """
    judge = judge or make_judge(rollouts.judge, rollouts.artist, journal=None)
    generator = torch.Generator().manual_seed(settings.seed)
    picture = None
    names = (*ARTIST_COLUMNS, *UNREWARDED)
    scores: list[Tensor] = []  # (B, names) of each batch
    bar = tqdm(total=len(batches), desc="validation", unit="pair", disable=not is_main())
    for batch in batches.in_order(settings.batch_size):
        progress()
        rollout = critic.generate(batch.views, max_new_tokens=rollouts.max_new_tokens, share=batch.share)
        latent = ReasoningLatent(
            rollout.latent.states_BLD.repeat_interleave(settings.draws, 0),
            rollout.latent.mask_BL.repeat_interleave(settings.draws, 0),
        )
        batch = batch.to(artist.device)
        sources, share = batch.inputs.repeat_interleave(settings.draws, 0), batch.share.each(settings.draws)
        edits = sample_edits(
            artist, sources, latent, rollouts.sampling_steps, generator, rollouts.edit_batch, share
        ).unflatten(0, (-1, settings.draws))
        if picture is None:
            picture = before_after(batch, edits[:PICTURES, 0])
        verdicts = [parses(text) for text in rollout.texts]
        cases = [
            EditCase(source, made, verdict) if verdict else None
            for source, made, verdict in zip(batch.inputs, edits, verdicts, strict=True)
        ]
        rows = []
        for made, target, followed in zip(edits, batch.targets, judge_all(judge, cases), strict=True):
            earned = {}
            if followed is not None:
                earned = artist_rewards(Edited(made, target, followed, distance), rollouts.artist)
            row = {name: float(earned[name].mean()) if earned else 0.0 for name in ARTIST_COLUMNS}
            row |= measure_unrewarded(made, target)
            rows.append([row[name] for name in names])
        scores.append(batch.share.gather(torch.tensor(rows)))
        bar.update(batch.share.total)
    bar.close()
    if picture is None:
        raise ValueError("there are no pairs to score a policy on")
    columns = dict(zip(names, torch.cat(scores).unbind(dim=1), strict=True))
    of_pairs = {name: batches.column(name) for name in ("id", "photo_id")}
    terms, others = ({name: columns[name] for name in table} for table in (ARTIST_COLUMNS, UNREWARDED))
    return PolicyScores(of_pairs["id"], of_pairs["photo_id"], terms, others, picture)


def measure_unrewarded(edits: Tensor, target: Tensor) -> dict[str, float]:
    """Means over edits (B, 3, H, W) of what `PolicyScores.unrewarded` holds."""
    truth = srgb_to_lab(target).expand_as(edits)
    excess = (piqe(edits) - piqe(target[None])).clamp(min=0)
    return {
        "colour_error": float(delta_e_2000(srgb_to_lab(edits), truth).mean()),
        "ssim": sum(ssim(edit, target) for edit in edits) / len(edits),
        "piqe_excess": float(excess.mean()),
    }


def log_policy(scores: PolicyScores, tracker: Tracker, prefix: str, step: int) -> dict[str, float]:
    """Report the mean of every term, of what no reward pays for, and a picture; returns the means."""
    means = {f"reward_{name}": float(values.mean()) for name, values in scores.terms.items()}
    means |= {name: float(values.mean()) for name, values in scores.unrewarded.items()}
    tracker.metrics({f"{prefix}/{name}": value for name, value in means.items()}, step)
    tracker.picture(f"{prefix}/input_edit_truth", scores.picture, step)
    return means


def score_stage(
    base: Path,
    critic_adapter: Path,
    artist_adapter: Path,
    pairs_dir: Path,
    split: Split,
    distance: PerceptualDistance,
    rollouts: RolloutSettings,
    settings: ComparisonSettings,
    placement: Placement | None = None,
    judge: Judge | None = None,
) -> PolicyScores:
    """Score the adapters that a stage left, on the enhancement pairs of a split."""
    critic = Critic.load(base / "critic", critic_adapter, placement)
    artist = Artist.load(base / "artist", artist_adapter, placement)
    batches = PairBatches(pairs_dir, split, ["enhancement"], artist, held_out=settings.held_out)
    return score_policy(critic, artist, batches, distance, rollouts, settings, judge)
