"""Supervised training of the Artist: flow matching on task prompts (stage I), then on the Critic's words (stage II)."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from pydantic import Field
from torch import Tensor
from torchvision.utils import make_grid

from components.data.pairs import KINDS, PairKind
from components.models.artist import Artist
from components.models.compute import TrainingComputeSettings
from components.models.critic import Critic, ReasoningLatent
from components.models.flow import flow_matching_loss, interpolate, training_sigmas
from components.models.lora import LoraSettings
from components.models.sampling import sample_edits
from components.models.weights import Trainable
from components.parallel.ranks import all_reduce
from components.parallel.sharding import Part, accumulate, in_step, slices
from components.strict import Strict
from components.training.batches import PairBatch, PairBatches
from components.training.checkpoints import CheckpointStore
from components.training.latents import FOLDER, LatentCache
from components.training.loop import OptimiserSettings, fit
from components.training.passes import metered
from components.training.throughput import Meter
from components.training.tracker import Tracker

Conditioning = Callable[[PairBatch, torch.Generator], ReasoningLatent]
Encode = Callable[[Tensor], Tensor]
"""Latents (B, S, C) of pictures (B, 3, H, W)."""
PICTURES = 4


class ArtistSftSettings(Strict):
    """Flow matching of the Artist on pairs."""

    trainable: Trainable = Field(
        default="lora",
        description='"lora": an adapter; "full": the weights of all blocks, while the adapter stays as it is.',
    )
    lora: LoraSettings = Field(default_factory=LoraSettings)
    optimiser: OptimiserSettings
    kinds: tuple[PairKind, ...] = Field(default=KINDS, description="Kinds of pairs to train on.")
    batch_size: int = Field(default=8, gt=0, description="Pairs per optimiser step, of all ranks together.")
    micro_batch: int | None = Field(
        default=None, gt=0, description="Pairs in one pass of a rank, to limit memory; all of its share by default."
    )
    sampling_steps: int = Field(default=6, gt=0, description="Euler steps for the pictures that are logged.")
    pictures_every: int = Field(default=50, gt=0, description="Optimiser steps between logged pictures.")
    checkpoint_every: int = Field(default=25, gt=0, description="Optimiser steps between checkpoints.")
    cache_latents: bool = Field(
        default=True, description="Encode each picture once and keep its latents with the checkpoints."
    )
    latent_gigabytes: float = Field(default=50.0, ge=0, description="Disk space for the latents. Gigabytes.")
    critic_temperature: float = Field(
        default=1.0, ge=0, description="Sampling temperature of the verdicts that stage II conditions on."
    )
    max_new_tokens: int = Field(default=200, gt=0, description="Longest of those verdicts. Tokens.")
    compute: TrainingComputeSettings = Field(default_factory=TrainingComputeSettings)
    seed: int = Field(default=0, ge=0, description="Of the adapter's first weights, the batches and the noise.")


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
    critic.model.requires_grad_(False)
    artist.add_adapter(settings.lora, settings.seed)
    if settings.trainable == "full":
        artist.train_weights()
    settings.compute.prepare(artist, critic)

    def task_prompt(batch: PairBatch, generator: torch.Generator) -> ReasoningLatent:
        return critic.instruction_latent(batch.views, batch.instructions)

    meter = metered(settings.batch_size, critic, artist)
    return _train("artist_sft", artist, task_prompt, pairs_dir, out, settings, tracker, checkpoints, meter)


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

    The verdicts are the Critic's own, sampled again for every batch: an Artist taught on true verdicts would follow a
    wrong one blindly.
    """
    placement = settings.compute.place()
    artist = Artist.load(base / "artist", artist_adapter, placement, trainable=True)
    critic = Critic.load(base / "critic", critic_adapter, placement)
    if settings.trainable == "full":
        artist.train_weights()
    settings.compute.prepare(artist, critic)

    def reasoning(batch: PairBatch, generator: torch.Generator) -> ReasoningLatent:
        return critic.generate(
            batch.views,
            temperature=settings.critic_temperature,
            max_new_tokens=settings.max_new_tokens,
            generator=generator,
            share=batch.share,
        ).latent

    meter = metered(settings.batch_size, critic, artist)
    return _train("artist_reasoning", artist, reasoning, pairs_dir, out, settings, tracker, checkpoints, meter)


def pair_loss(
    artist: Artist,
    batch: PairBatch,
    latent: ReasoningLatent,
    generator: torch.Generator,
    encode: Encode | None = None,
) -> Tensor:
    """Mean flow-matching loss of a batch at noise levels of the shifted inference distribution.

    Args:
        encode: used instead of `artist.encode`.
    """
    encode = encode or artist.encode
    grid, clean = artist.grid(batch.inputs), encode(batch.targets)
    noise = batch.draw(lambda rows: torch.randn(rows, *clean.shape[1:], generator=generator)).to(clean)
    sigmas = batch.draw(lambda rows: training_sigmas(artist.scheduler, rows, grid.tokens, generator)).to(clean)
    velocity = artist.velocity(interpolate(clean, noise, sigmas), encode(batch.inputs), sigmas, latent, grid)
    return flow_matching_loss(velocity, clean, noise).mean()


def part_losses(
    artist: Artist,
    batch: PairBatch,
    latent: ReasoningLatent,
    generator: torch.Generator,
    at_once: int | None,
    encode: Encode | None = None,
) -> list[Part]:
    """The loss of a batch in parts of `at_once` pairs (None: all); their sum over all ranks is its mean loss.

    The noise is that of the whole batch, whatever the size of its parts.
    """
    state = generator.get_state()

    def loss(pairs: PairBatch, rows: slice) -> Tensor:
        generator.set_state(state)  # each part draws for the whole batch and takes its rows
        return pair_loss(artist, pairs, latent[rows], generator, encode) * pairs.share.weight

    parts = zip(batch.split(at_once), slices(len(batch.pairs), at_once), strict=True)
    return [partial(loss, pairs, rows) for pairs, rows in parts]


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
    meter: Meter,
) -> dict[str, float]:
    if settings.compute.gradient_checkpointing:
        artist.checkpoint_gradients()
    batches = PairBatches(pairs_dir, "train", settings.kinds, artist)
    held_out = PairBatches(pairs_dir, "validation", settings.kinds, artist).in_order(settings.batch_size)
    encode = artist.encode
    if settings.cache_latents:
        encode = LatentCache(checkpoints.parent / FOLDER, artist, settings.latent_gigabytes * 1e9).encode

    def losses(step: int, generator: torch.Generator) -> dict[str, Tensor]:
        batch = batches.draw(settings.batch_size, generator)
        parts = part_losses(artist, batch, conditioning(batch, generator), generator, settings.micro_batch, encode)
        return {"loss": accumulate(artist.transformer, parts)}

    def show(steps_done: int) -> None:
        if steps_done % settings.pictures_every and steps_done != settings.optimiser.steps:
            return
        generator = torch.Generator().manual_seed(settings.seed)
        batch = held_out[0]
        latent = conditioning(batch, generator)
        edits = sample_edits(artist, batch.inputs, latent, settings.sampling_steps, generator, settings.micro_batch)
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
        meter=meter,
    )
    closing["validation_loss"] = _validate(artist, held_out, conditioning, settings, encode)
    tracker.metrics({f"{name}/validation_loss": closing["validation_loss"]}, settings.optimiser.steps)
    artist.save_adapter(out)
    return closing


@torch.no_grad()
def _validate(
    artist: Artist, batches: list[PairBatch], conditioning: Conditioning, settings: ArtistSftSettings, encode: Encode
) -> float:
    """Mean loss of held-out pairs, each batch divided among the ranks."""
    generator, loss = torch.Generator().manual_seed(settings.seed), 0.0
    for batch in batches:
        mine = batch.divided()
        parts = part_losses(artist, mine, conditioning(mine, generator), generator, settings.micro_batch, encode)
        loss += sum(float(part()) for part in in_step(artist.transformer, parts)) * len(batch.pairs)
    return all_reduce({"loss": loss})["loss"] / sum(len(batch.pairs) for batch in batches)
