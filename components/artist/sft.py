"""Supervised training of the Artist: flow matching on task prompts (stage I), then on the Critic's words (stage II)."""

from collections.abc import Callable
from pathlib import Path

import torch
from pydantic import Field
from torch import Tensor
from torchvision.utils import make_grid

from components.artist.batches import PairBatch, PairBatches
from components.artist.flow import flow_matching_loss, interpolate, training_sigmas
from components.artist.model import Artist
from components.artist.sampling import sample_edits
from components.compute import ComputeSettings
from components.critic.model import Critic, ReasoningLatent
from components.data.pairs import KINDS, PairKind
from components.lora import LoraSettings
from components.strict import Strict
from components.training.checkpoints import CheckpointStore
from components.training.loop import OptimiserSettings, fit
from components.training.tracker import Tracker

Conditioning = Callable[[PairBatch, torch.Generator], ReasoningLatent]
PICTURES = 4


class ArtistSftSettings(Strict):
    """Flow matching of the Artist on pairs."""

    lora: LoraSettings = Field(default_factory=LoraSettings)
    optimiser: OptimiserSettings
    kinds: tuple[PairKind, ...] = Field(default=KINDS, description="kinds of pairs to train on")
    batch_size: int = Field(default=8, gt=0)
    sampling_steps: int = Field(default=6, gt=0, description="Euler steps of the pictures that are logged")
    pictures_every: int = Field(default=50, gt=0, description="optimiser steps between logged before/after pictures")
    checkpoint_every: int = Field(default=25, gt=0, description="optimiser steps")
    critic_temperature: float = Field(default=1.0, ge=0, description="of the verdicts that stage II conditions on")
    max_new_tokens: int = Field(default=200, gt=0, description="of those verdicts")
    compute: ComputeSettings = Field(default_factory=ComputeSettings)
    seed: int = Field(default=0, ge=0)


def train_artist(
    base: Path, pairs_dir: Path, out: Path, settings: ArtistSftSettings, tracker: Tracker, checkpoints: Path
) -> dict[str, float]:
    """Stage I: learn edits from their task prompts, on a fresh adapter written to `out`.

    The prompt is encoded by the base Critic with the photo in view, as the base model of the release encodes it.

    Args:
        base: folder of the base models, `base/critic` and `base/artist`.
        checkpoints: folder that outlives the process; a run that was killed continues from there.

    Returns:
        closing metrics: training loss and loss on the validation split.
    """
    placement = settings.compute.place()
    artist = Artist.load(base / "artist", placement=placement)
    critic = Critic.load(base / "critic", placement=placement)
    artist.add_adapter(settings.lora, settings.seed)

    def task_prompt(batch: PairBatch, generator: torch.Generator) -> ReasoningLatent:
        return critic.instruction_latent(batch.views, batch.instructions)

    return _train("artist_sft", artist, task_prompt, pairs_dir, out, settings, tracker, checkpoints)


def adapt_artist(
    base: Path,
    critic_adapter: Path,
    artist_adapter: Path,
    pairs_dir: Path,
    out: Path,
    settings: ArtistSftSettings,
    tracker: Tracker,
    checkpoints: Path,
) -> dict[str, float]:
    """Stage II: go on from the stage I adapter, conditioned on H_c of verdicts that the trained Critic writes.

    The verdicts are the Critic's own, sampled anew for every batch: an Artist taught on true verdicts would follow a
    wrong one blindly.
    """
    placement = settings.compute.place()
    artist = Artist.load(base / "artist", artist_adapter, placement, trainable=True)
    critic = Critic.load(base / "critic", critic_adapter, placement)

    def reasoning(batch: PairBatch, generator: torch.Generator) -> ReasoningLatent:
        return critic.generate(
            batch.views,
            temperature=settings.critic_temperature,
            max_new_tokens=settings.max_new_tokens,
            generator=generator,
        ).latent

    return _train("artist_reasoning", artist, reasoning, pairs_dir, out, settings, tracker, checkpoints)


def pair_loss(artist: Artist, batch: PairBatch, latent: ReasoningLatent, generator: torch.Generator) -> Tensor:
    """Mean flow-matching loss of a batch at noise levels of the shifted inference distribution."""
    grid, clean = artist.grid(batch.inputs), artist.encode(batch.targets)
    noise = torch.randn(clean.shape, generator=generator).to(clean)
    sigmas = training_sigmas(artist.scheduler, len(clean), grid.tokens, generator).to(clean)
    velocity = artist.velocity(interpolate(clean, noise, sigmas), artist.encode(batch.inputs), sigmas, latent, grid)
    return flow_matching_loss(velocity, clean, noise).mean()


def before_after(batch: PairBatch, edits: Tensor) -> Tensor:
    """A picture (3, H, W) on the CPU: rows of input, edit and ground truth."""
    columns = [pictures[: len(edits)].cpu() for pictures in (batch.inputs, edits, batch.targets)]
    rows = torch.stack(columns, dim=1).flatten(0, 1)
    return make_grid(rows, nrow=3, padding=2, pad_value=1.0)


def _train(
    name: str,
    artist: Artist,
    conditioning: Conditioning,
    pairs_dir: Path,
    out: Path,
    settings: ArtistSftSettings,
    tracker: Tracker,
    checkpoints: Path,
) -> dict[str, float]:
    if settings.compute.gradient_checkpointing:
        artist.checkpoint_gradients()
    batches = PairBatches(pairs_dir, "train", settings.kinds, artist)
    held_out = PairBatches(pairs_dir, "validation", settings.kinds, artist).in_order(settings.batch_size)

    def losses(step: int, generator: torch.Generator) -> dict[str, Tensor]:
        batch = batches.draw(settings.batch_size, generator)
        return {"loss": pair_loss(artist, batch, conditioning(batch, generator), generator)}

    def show(steps_done: int) -> None:
        if steps_done % settings.pictures_every and steps_done != settings.optimiser.steps:
            return
        generator = torch.Generator().manual_seed(settings.seed)
        batch = held_out[0]
        latent = conditioning(batch, generator)
        edits = sample_edits(artist, batch.inputs, latent, settings.sampling_steps, generator)
        tracker.picture(f"{name}/input_edit_truth", before_after(batch, edits[:PICTURES]), steps_done)

    trained = [(n, p) for n, p in artist.transformer.named_parameters() if p.requires_grad]
    store = CheckpointStore(checkpoints)
    closing = fit(
        name,
        trained,
        losses,
        settings.optimiser,
        tracker,
        store,
        settings.seed,
        settings.checkpoint_every,
        after_step=show,
    )
    closing["validation_loss"] = _validate(artist, held_out, conditioning, settings.seed)
    tracker.metrics({f"{name}/validation_loss": closing["validation_loss"]}, settings.optimiser.steps)
    artist.save_adapter(out)
    return closing


@torch.no_grad()
def _validate(artist: Artist, batches: list[PairBatch], conditioning: Conditioning, seed: int) -> float:
    generator = torch.Generator().manual_seed(seed)
    losses = [
        float(pair_loss(artist, batch, conditioning(batch, generator), generator)) * len(batch.pairs)
        for batch in batches
    ]
    return sum(losses) / sum(len(batch.pairs) for batch in batches)
