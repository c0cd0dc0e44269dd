"""Supervised training of the Artist: flow matching on task prompts (stage I), then on the Critic's words (stage II)."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from pydantic import Field, model_validator
from torch import Tensor
from torchvision.utils import make_grid
from tqdm import tqdm

from components.data.pairs import KINDS, PairKind
from components.models.artist import Artist
from components.models.compute import TrainingComputeSettings
from components.models.critic import Critic, ReasoningLatent
from components.models.flow import flow_matching_loss, interpolate, training_sigmas
from components.models.lora import LoraSettings
from components.models.sampling import sample_edits
from components.models.weights import Trainable
from components.parallel.ranks import all_reduce, enough_rows, is_main, world_size
from components.parallel.sharding import Part, accumulate, in_step, slices
from components.strict import Strict
from components.training.batches import PairBatch, PairBatches
from components.training.checkpoints import CheckpointStore
from components.training.held_out import HeldOutSettings
from components.training.latents import FOLDER, LatentCache
from components.training.loading import LoadingSettings
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
    kind_weights: dict[PairKind, float] = Field(
        default_factory=dict,
        description="How often a pair of a kind is drawn in proportion to other pairs; 1 for kinds not named here.",
    )
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
    held_out: HeldOutSettings = Field(default_factory=HeldOutSettings)
    loading: LoadingSettings = Field(default_factory=LoadingSettings)
    compute: TrainingComputeSettings = Field(default_factory=TrainingComputeSettings)
    seed: int = Field(default=0, ge=0, description="Of the adapter's first weights, the batches and the noise.")

    @model_validator(mode="after")
    def _every_process_has_work(self) -> "ArtistSftSettings":
        enough_rows("batch_size", self.batch_size, self.compute.world_size)
        return self


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


class Noise(NamedTuple):
    """What pairs are spoilt with: noise (B, S, C), and how much of it, sigmas (B,)."""

    noise_BSC: Tensor
    sigmas_B: Tensor


def draw_noise(artist: Artist, batch: PairBatch, generator: torch.Generator) -> Noise:
    """The noise of a batch's rows, at levels of the shifted inference distribution; drawn for the whole batch."""
    tokens, channels = artist.grid(batch.inputs).tokens, artist.packed_channels
    noise = batch.draw(lambda rows: torch.randn(rows, tokens, channels, generator=generator))
    return Noise(noise, batch.draw(lambda rows: training_sigmas(artist.scheduler, rows, tokens, generator)))


def pair_loss(
    artist: Artist, batch: PairBatch, latent: ReasoningLatent, drawn: Noise, encode: Encode | None = None
) -> Tensor:
    """Mean flow-matching loss of a batch.

    Args:
        encode: used instead of `artist.encode`.
    """
    encode = encode or artist.encode
    grid, clean = artist.grid(batch.inputs), encode(batch.targets)
    noise, sigmas = drawn.noise_BSC.to(clean), drawn.sigmas_B.to(clean)
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

    All noise is drawn here, so that it does not depend on the size of the parts.
    """
    drawn = draw_noise(artist, batch, generator)

    def loss(pairs: PairBatch, rows: slice) -> Tensor:
        mine = Noise(drawn.noise_BSC[rows], drawn.sigmas_B[rows])
        return pair_loss(artist, pairs, latent[rows], mine, encode) * pairs.share.weight

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
    enough_rows("batch_size", settings.batch_size, world_size())
    if settings.compute.gradient_checkpointing:
        artist.checkpoint_gradients()
    batches = PairBatches(pairs_dir, "train", settings.kinds, artist, settings.loading, weights=settings.kind_weights)
    held_out = PairBatches(pairs_dir, "validation", settings.kinds, artist, settings.loading, settings.held_out)
    shown = held_out.first(settings.batch_size)
    meter.watch(lambda: batches.loader.waited)
    encode = artist.encode
    if settings.cache_latents:
        encode = LatentCache(checkpoints.parent / FOLDER, artist, settings.latent_gigabytes * 1e9).encode

    def losses(step: int, generator: torch.Generator) -> dict[str, Tensor]:
        batch = batches.draw(settings.batch_size, generator)
        parts = part_losses(artist, batch, conditioning(batch, generator), generator, settings.micro_batch, encode)
        if step + 1 < settings.optimiser.steps:
            batches.expect(settings.batch_size, generator)  # of which this step draws no more
        return {"loss": accumulate(artist.transformer, parts)}

    def show(steps_done: int) -> None:
        if steps_done % settings.pictures_every and steps_done != settings.optimiser.steps:
            return
        generator = torch.Generator().manual_seed(settings.seed)
        latent = conditioning(shown, generator)
        edits = sample_edits(artist, shown.inputs, latent, settings.sampling_steps, generator, settings.micro_batch)
        tracker.picture(f"{name}/input_edit_truth", before_after(shown, edits[:PICTURES]), steps_done)

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
    artist: Artist, batches: PairBatches, conditioning: Conditioning, settings: ArtistSftSettings, encode: Encode
) -> float:
    """Mean loss of held-out pairs, each batch divided among the ranks."""
    generator, loss = torch.Generator().manual_seed(settings.seed), 0.0
    bar = tqdm(total=len(batches), desc="validation", unit="pair", disable=not is_main())
    for batch in batches.in_order(settings.batch_size):
        latent = conditioning(batch, generator)
        parts = part_losses(artist, batch, latent, generator, settings.micro_batch, encode)
        loss += sum(float(part()) for part in in_step(artist.transformer, parts)) * batch.share.total
        bar.update(batch.share.total)
    bar.close()
    return all_reduce({"loss": loss})["loss"] / len(batches)
