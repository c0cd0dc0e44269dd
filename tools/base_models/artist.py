"""Build and train the tiny Artist: Qwen-Image's diffusion transformer at eight million parameters, from scratch.

It learns in two parts, always from the Critic's hidden states. First from those of the prompt alone, which hold what
the Critic sees, on as many photos, crops and faults as time allows: mostly small ones, and from the last few states,
where the Critic has learnt to gather what would mend the photo, for such a step costs a third. Then on verdicts that
the Critic itself wrote, right or wrong: taught on true verdicts it would believe whatever it reads.

Beside the flow matching loss there is one on what the user gets. An edit of a photo starts from pure noise, is decoded
after one step, and reaches the photo as a map of its colours: that map is fitted inside the loss, and the colours that
it gives to the photo are compared with those of the intact one. A quarter of the photos are intact.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from diffusers import AutoencoderKLQwenImage, FlowMatchEulerDiscreteScheduler, QwenImageTransformer2DModel
from torch import Tensor
from torch.nn import functional
from tqdm import trange

from components.models.artist import DESCRIPTION_FILE, Artist
from components.models.critic import Critic, ReasoningLatent
from components.models.flow import flow_matching_loss, interpolate, training_sigmas
from components.photometry.colour import srgb_to_lab
from components.training.checkpoints import CheckpointStore
from components.training.loop import OptimiserSettings, fit
from components.training.tracker import Tracker
from tools.base_models.correction import lab_error
from tools.base_models.faults import Spoilt, spoil
from tools.base_models.photos import WORKING_AREA, WORKING_SIZES
from tools.base_models.tiles import Size, Tiles
from tools.base_models.tower import INTACT_WEIGHT, in_batches

SHOWN_SIZES: tuple[Size, ...] = tuple((2 * height, 2 * width) for height, width in WORKING_SIZES)
"""Sizes of the tiles: the Critic looks at more pixels than the Artist works on."""
COLOUR_WEIGHT = 0.1
"""Of a CIELAB unit beside the flow matching loss, which is of about unit size."""
FROM_NOISE = 0.75
"""Share of a batch that starts from pure noise, as every edit does: there its tone and colour are decided."""
SMALL_SIZES: tuple[Size, ...] = ((64, 64), (48, 80), (80, 48))
BRIEF, IN_FULL = 16, 8
"""In the first part the Artist edits small pictures by so many of the prompt's last states, except in one of so many
steps, which is as it will be used."""
_RIDGE = 1e-3  # of the fitted colour map, in squared sRGB units
_POOL, _AT_ONCE = 3072, 48


class Example(NamedTuple):
    """Pictures of one size as the Critic sees them, the same at the Artist's working size, and the H_c to edit by.

    Attributes:
        spoilt, intact: (B, 3, h, w) at the working size, with and without faults.
        latent: what the Critic makes of the larger pictures.
    """

    spoilt: Spoilt
    intact: Tensor
    latent: ReasoningLatent


def build_transformer(latent_width: int, layers: int = 6) -> QwenImageTransformer2DModel:
    """An untrained tiny transformer: double-stream blocks of six heads, as wide as three tokens."""
    return QwenImageTransformer2DModel(
        patch_size=2,
        in_channels=64,
        out_channels=16,
        num_layers=layers,
        attention_head_dim=32,
        num_attention_heads=6,
        joint_attention_dim=latent_width,
        axes_dims_rope=(8, 12, 12),
    )


def build_scheduler() -> FlowMatchEulerDiscreteScheduler:
    """The scheduler of Qwen-Image-Edit-2509."""
    return FlowMatchEulerDiscreteScheduler(
        base_image_seq_len=256,
        base_shift=0.5,
        max_image_seq_len=8192,
        max_shift=0.9,
        num_train_timesteps=1000,
        shift=1.0,
        shift_terminal=0.02,
        time_shift_type="exponential",
        use_dynamic_shifting=True,
    )


def train_artist(
    tiles: Tiles,
    critic: Critic,
    vae_folder: Path,
    out: Path,
    work: Path,
    tracker: Tracker,
    steps: int,
    conditioned_steps: int,
    batch: int = 16,
    start: Path | None = None,
) -> None:
    """Train the Artist on the Critic's hidden states; writes a diffusers directory to `out`.

    Args:
        tiles: to train on, of the sizes `SHOWN_SIZES` and `SMALL_SIZES`.
        critic: the trained tiny Critic.
        vae_folder: the trained autoencoder.
        steps: on the hidden states of the prompt alone.
        conditioned_steps: on those of verdicts, too.
        start: folder of a trained transformer to go on from.
    """
    torch.manual_seed(0)
    vae = AutoencoderKLQwenImage.from_pretrained(vae_folder, torch_dtype=torch.float32).eval()
    transformer = build_transformer(critic.vision_language_model.config.text_config.hidden_size)
    if start:
        transformer = QwenImageTransformer2DModel.from_pretrained(start, torch_dtype=torch.float32)
    artist = Artist(transformer, vae, build_scheduler(), WORKING_AREA)

    parameters = list(artist.transformer.named_parameters())
    matrices = [name for name, parameter in parameters if name.startswith("transformer_blocks") and parameter.ndim == 2]

    def learn(name: str, draw: Callable[[int, torch.Generator], Example], settings: OptimiserSettings) -> None:
        def losses(step: int, generator: torch.Generator) -> dict[str, Tensor]:
            return edit_loss(artist, draw(step, generator), generator)

        store = CheckpointStore(work / name.removeprefix("base_"))
        fit(name, parameters, losses, settings, tracker, store, 3, 100, 20, orthogonalised=matrices)

    with in_batches(critic.vision_language_model.model.visual):
        settings = OptimiserSettings(
            learning_rate=1e-3, steps=steps, warmup_steps=100, ema_decay=0.998, final_fraction=0.1
        )
        learn("base_artist", lambda step, generator: _draw(tiles, critic, batch, step, generator), settings)
        if conditioned_steps:
            pool = verdict_pool(tiles, critic)
            settings = OptimiserSettings(
                learning_rate=5e-4, steps=conditioned_steps, warmup_steps=50, ema_decay=0.998, final_fraction=0.02
            )
            learn(
                "base_artist_reasoning",
                lambda step, generator: _draw_from(pool, batch, step, generator),
                settings,
            )
    artist.transformer.to(torch.float16).save_pretrained(out / "transformer")
    vae.to(torch.float16).save_pretrained(out / "vae")
    artist.scheduler.save_pretrained(out / "scheduler")
    (out / DESCRIPTION_FILE).write_text(json.dumps({"area": WORKING_AREA}))


def edit_loss(artist: Artist, example: Example, generator: torch.Generator) -> dict[str, Tensor]:
    """Flow matching, and the colours that an edit from pure noise gives to the photo.

    Returns:
        "loss", and the parts it is made of; "left" is the colour error of faulty photos as a share of what it was,
        "intact" that of photos without a fault.
    """
    spoilt, intact, latent = example
    grid, clean, source = artist.grid(intact), artist.encode(intact), artist.encode(spoilt.pictures)
    noise = torch.randn(clean.shape, generator=generator)
    most = max(1, int(FROM_NOISE * len(clean)))
    sigmas = training_sigmas(artist.scheduler, len(clean), grid.tokens, generator)
    sigmas[:most] = 1.0
    with torch.autocast("cpu", dtype=torch.bfloat16):
        velocity = artist.velocity(interpolate(clean, noise, sigmas), source, sigmas, latent, grid)
    flow = flow_matching_loss(velocity, clean, noise).mean()
    before = artist.decode(source[:most], grid)
    after = artist.decode_differentiably(noise[:most] - velocity[:most], grid)
    seen, truth = spoilt.pictures[:most], srgb_to_lab(intact[:most])
    error = lab_error(srgb_to_lab(with_colours(seen, before, after)), truth)
    faulty = spoilt.faulty[:most]
    colour = (error * torch.where(faulty, 1.0, INTACT_WEIGHT)).mean()
    left = error[faulty].sum() / lab_error(srgb_to_lab(seen), truth)[faulty].sum().clamp(min=1e-6)
    harm = error[~faulty].sum() / (~faulty).sum().clamp(min=1)
    return {
        "loss": flow + COLOUR_WEIGHT * colour,
        "flow": flow.detach(),
        "left": left.detach(),
        "intact": harm.detach(),
    }


def with_colours(photos: Tensor, before: Tensor, after: Tensor) -> Tensor:
    """The photos with the affine map of colours that turns `before` into `after`, fitted to each by least squares.

    One map for the whole picture, where the product fits one for every place (`components.inference.transfer`).

    Args:
        photos, before, after: (B, 3, h, w) sRGB.

    Returns:
        (B, 3, h, w), not clamped.
    """
    guide, change = before.flatten(2).transpose(1, 2), (after - before).flatten(2).transpose(1, 2)
    mean_guide, mean_change = guide.mean(1, keepdim=True), change.mean(1, keepdim=True)
    centred = guide - mean_guide
    covariance = centred.transpose(1, 2) @ centred / guide.shape[1]
    products = centred.transpose(1, 2) @ (change - mean_change) / guide.shape[1]
    slope = torch.linalg.solve(covariance + _RIDGE * torch.eye(3), products)
    flat = photos.flatten(2).transpose(1, 2)
    mapped = flat + (flat - mean_guide) @ slope + mean_change
    return mapped.transpose(1, 2).unflatten(2, photos.shape[-2:])


def verdict_pool(tiles: Tiles, critic: Critic, count: int = _POOL, at_once: int = _AT_ONCE) -> list[Example]:
    """Batches with the H_c of what the Critic says: half of it greedy, half sampled."""
    generator = torch.Generator().manual_seed(5)
    pool = []
    for index in trange(count // at_once, desc="verdicts for the Artist", unit="batch"):
        spoilt, intact = _pictures(tiles, at_once, SHOWN_SIZES, generator)
        rollout = critic.generate(
            list(spoilt.pictures), temperature=float(index % 2), max_new_tokens=160, generator=generator
        )
        latent = ReasoningLatent(rollout.latent.states_BLD.half(), rollout.latent.mask_BL)
        pool.append(_at_working_size(spoilt, intact, latent))
    return pool


def _pictures(tiles: Tiles, count: int, sizes: Sequence[Size], generator: torch.Generator) -> tuple[Spoilt, Tensor]:
    size = sizes[int(torch.randint(len(sizes), (), generator=generator))]
    intact = tiles.draw(count, size, generator)
    return spoil(intact, generator), intact


def _at_working_size(spoilt: Spoilt, intact: Tensor, latent: ReasoningLatent) -> Example:
    small = Spoilt(functional.avg_pool2d(spoilt.pictures, 2), spoilt.faulty)
    return Example(small, functional.avg_pool2d(intact, 2), latent)


def _draw(tiles: Tiles, critic: Critic, count: int, step: int, generator: torch.Generator) -> Example:
    """New pictures with the hidden states of the prompt: small ones with the last few, or both as in use."""
    is_brief = step % IN_FULL > 0
    spoilt, intact = _pictures(tiles, count, SMALL_SIZES if is_brief else SHOWN_SIZES, generator)
    latent = critic.instruction_latent(list(spoilt.pictures), [critic.prompt] * count)
    if is_brief:
        latent = ReasoningLatent(latent.states_BLD[:, -BRIEF:], latent.mask_BL[:, -BRIEF:])
    return _at_working_size(spoilt, intact, latent)


def _draw_from(pool: list[Example], count: int, step: int, generator: torch.Generator) -> Example:
    """Some of a batch of the pool, every second time mirrored."""
    spoilt, intact, latent = pool[int(torch.randint(len(pool), (), generator=generator))]
    rows = torch.randperm(len(intact), generator=generator)[:count]
    mirrored: Callable[[Tensor], Tensor] = (lambda x: x.flip(-1)) if step % 2 else (lambda x: x)
    chosen = Spoilt(mirrored(spoilt.pictures[rows]), spoilt.faulty[rows])
    states = ReasoningLatent(latent.states_BLD[rows].float(), latent.mask_BL[rows])
    return Example(chosen, mirrored(intact[rows]), states)
