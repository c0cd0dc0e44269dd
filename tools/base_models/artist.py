"""Build and train the tiny Artist: Qwen-Image's diffusion transformer at eight million parameters, from scratch.

It learns in two parts. First to undo faults from the photo alone, from as many photos, crops and faults as time allows;
then with the Critic's hidden states, on verdicts that the Critic itself wrote, right or wrong: taught on true verdicts
it would believe whatever it reads.
"""

import json
from pathlib import Path

import torch
from diffusers import AutoencoderKLQwenImage, FlowMatchEulerDiscreteScheduler, QwenImageTransformer2DModel
from torch import Tensor
from torch.nn import functional
from tqdm import trange

from components.models.artist import DESCRIPTION_FILE, Artist
from components.models.critic import Critic, ReasoningLatent
from components.models.flow import flow_matching_loss, interpolate, training_sigmas
from components.training.checkpoints import CheckpointStore
from components.training.loop import OptimiserSettings, fit
from components.training.tracker import Tracker
from tools.base_models.photos import WORKING_AREA, PhotoBank

POOL_SIZE, POOL_BATCH = 3072, 48


def build_transformer(latent_width: int) -> QwenImageTransformer2DModel:
    """An untrained tiny transformer: six double-stream blocks of six heads, as wide as three tokens."""
    return QwenImageTransformer2DModel(
        patch_size=2,
        in_channels=64,
        out_channels=16,
        num_layers=6,
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
    bank: PhotoBank,
    critic: Critic,
    vae_folder: Path,
    out: Path,
    work: Path,
    tracker: Tracker,
    steps: int,
    conditioned_steps: int,
    batch: int = 16,
) -> None:
    """Flow matching from the photo alone, then with H_c; writes a diffusers directory to `out`.

    Args:
        critic: the trained tiny Critic that conditions the second part; unused when `conditioned_steps` is 0.
        vae_folder: the trained autoencoder.
    """
    torch.manual_seed(0)
    width = critic.vision_language_model.config.text_config.hidden_size
    vae = AutoencoderKLQwenImage.from_pretrained(vae_folder, torch_dtype=torch.float32).eval()
    artist = Artist(build_transformer(width), vae, build_scheduler(), WORKING_AREA)

    def loss_of(faulty: Tensor, intact: Tensor, latent: ReasoningLatent, generator: torch.Generator) -> Tensor:
        grid, clean = artist.grid(faulty), artist.encode(intact)
        noise = torch.randn(clean.shape, generator=generator)
        sigmas = training_sigmas(artist.scheduler, len(clean), grid.tokens, generator)
        sigmas[::2] = 1.0  # every edit starts from pure noise, and there its tone and colour are decided
        noisy = interpolate(clean, noise, sigmas)
        velocity = artist.velocity(noisy, artist.encode(faulty), sigmas, latent, grid)
        return flow_matching_loss(velocity, clean, noise).mean()

    def from_photo_alone(step: int, generator: torch.Generator) -> dict[str, Tensor]:
        pair = bank.faulty(batch, bank.working_size(generator), generator)
        silence = ReasoningLatent(torch.zeros(batch, 1, width), torch.ones(batch, 1, dtype=torch.bool))
        return {"loss": loss_of(pair.faulty, pair.intact, silence, generator)}

    settings = OptimiserSettings(learning_rate=1e-3, steps=steps, warmup_steps=100, ema_decay=0.998, final_fraction=0.2)
    parameters = list(artist.transformer.named_parameters())
    fit("base_artist", parameters, from_photo_alone, settings, tracker, CheckpointStore(work / "artist"), 3, 100, 20)
    if conditioned_steps:
        pool = _verdict_pool(bank, critic)

        def with_reasoning(step: int, generator: torch.Generator) -> dict[str, Tensor]:
            faulty, intact, latent = pool[int(torch.randint(len(pool), (), generator=generator))]
            chosen = torch.randperm(len(faulty), generator=generator)[:batch]
            latent = ReasoningLatent(latent.states_BLD[chosen].float(), latent.mask_BL[chosen])
            mirrored = (lambda x: x.flip(-1)) if step % 2 else (lambda x: x)
            return {"loss": loss_of(mirrored(faulty[chosen]), mirrored(intact[chosen]), latent, generator)}

        settings = OptimiserSettings(
            learning_rate=5e-4, steps=conditioned_steps, warmup_steps=50, ema_decay=0.998, final_fraction=0.02
        )
        store = CheckpointStore(work / "artist_conditioned")
        fit("base_artist_reasoning", parameters, with_reasoning, settings, tracker, store, 4, 100, 20)
    artist.transformer.to(torch.float16).save_pretrained(out / "transformer")
    vae.to(torch.float16).save_pretrained(out / "vae")
    artist.scheduler.save_pretrained(out / "scheduler")
    (out / DESCRIPTION_FILE).write_text(json.dumps({"area": WORKING_AREA}))


def _verdict_pool(bank: PhotoBank, critic: Critic) -> list[tuple[Tensor, Tensor, ReasoningLatent]]:
    """Batches of faulty crops, intact crops and H_c of what the Critic says: half of it greedy, half sampled."""
    generator = torch.Generator().manual_seed(5)
    pool = []
    for index in trange(POOL_SIZE // POOL_BATCH, desc="verdicts for the Artist", unit="batch"):
        height, width = bank.working_size(generator)
        pair = bank.faulty(POOL_BATCH, (2 * height, 2 * width), generator)
        rollout = critic.generate(
            list(pair.faulty), temperature=float(index % 2), max_new_tokens=160, generator=generator
        )
        latent = ReasoningLatent(rollout.latent.states_BLD.half(), rollout.latent.mask_BL)
        pool.append((functional.avg_pool2d(pair.faulty, 2), functional.avg_pool2d(pair.intact, 2), latent))
    return pool
