"""Train the tiny autoencoder of the Artist: Qwen-Image's VAE class, four times smaller pictures, sixteen channels.

Every token of the Artist then stands for 8x8 pixels, as in the production model it stands for 16x16.
"""

from pathlib import Path

import torch
from diffusers import AutoencoderKLQwenImage
from torch import nn
from torch.nn import functional

from components.training.checkpoints import CheckpointStore
from components.training.loop import OptimiserSettings, fit
from components.training.tracker import Tracker
from tools.base_models.photos import PhotoBank

CONFIG = {
    "base_dim": 16,
    "z_dim": 16,
    "dim_mult": [1, 2, 2],
    "num_res_blocks": 1,
    "temperal_downsample": [False, False],  # (sic) the name of the published configuration
}


def train_vae(
    bank: PhotoBank, out: Path, work: Path, tracker: Tracker, steps: int, batch: int = 16, like: Path | None = None
) -> None:
    """Train on L1 of pixels and of 8x8 block means (colour must survive), with a slight pull of latents to N(0, 1).

    Args:
        like: a trained autoencoder of the same configuration whose latents the new one learns to share, so that an
            Artist trained with that one goes on working.
    """
    torch.manual_seed(0)
    vae = AutoencoderKLQwenImage(**CONFIG)
    _pass_colour_through(vae)
    model = None
    if like is not None:
        model = AutoencoderKLQwenImage.from_pretrained(like, torch_dtype=torch.float32).eval().requires_grad_(False)

    def losses(step: int, generator: torch.Generator) -> dict[str, torch.Tensor]:
        pixels = bank.faulty(batch, bank.working_size(generator), generator, intact=0.5) * 2 - 1
        with torch.autocast("cpu", torch.bfloat16):
            posterior = vae.encode(pixels[:, :, None]).latent_dist
            decoded = vae.decode(posterior.mode()).sample[:, :, 0]
        error = decoded.float() - pixels
        kl = posterior.kl().mean() / pixels[0].numel()
        values = {"l1": error.abs().mean(), "block_l1": functional.avg_pool2d(error, 8).abs().mean(), "kl": kl}
        loss = values["l1"] + 2 * values["block_l1"] + 1e-5 * kl
        if model is not None:
            difference = posterior.mode().float() - model.encode(pixels[:, :, None]).latent_dist.mode()
            scale = torch.tensor(model.config.latents_std)[:, None, None, None]
            values["latent_l1"] = (difference / scale).abs().mean()
            loss = loss + values["latent_l1"]
        psnr = -10 * torch.log10((error / 2).square().mean())
        return {"loss": loss, "psnr": psnr, **values}

    settings = OptimiserSettings(learning_rate=4e-3, steps=steps, warmup_steps=30, weight_decay=0.0)
    fit("base_vae", vae.named_parameters(), losses, settings, tracker, CheckpointStore(work / "vae"), 0, 200, 20)
    _normalise_latents(vae.eval(), bank)
    vae.to(torch.float16).save_pretrained(out)


@torch.no_grad()
def _pass_colour_through(vae: AutoencoderKLQwenImage) -> None:
    """Start near the identity: residual branches silent, every other convolution a delta plus a little noise.

    The picture then flows through the first channels from the first step, and colour need not be rediscovered through
    the channel normalisations of a random network.
    """
    for name, module in vae.named_modules():
        if not isinstance(module, nn.Conv2d | nn.Conv3d):
            continue
        if name.endswith(("conv2", "proj")):
            nn.init.zeros_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
            continue
        if name.endswith(("conv1", "to_qkv")):
            continue
        weight = module.weight.mul_(0.3)
        if weight.ndim == 5:
            weight = weight[:, :, -1]  # the causal kernel sees a single picture with its last temporal tap
        for channel in range(min(weight.shape[:2])):
            if "down_blocks" in name and "resample" in name:
                weight[channel, channel, :2, :2] += 0.25
            else:
                weight[channel, channel, weight.shape[2] // 2, weight.shape[3] // 2] += 1.0


@torch.no_grad()
def _normalise_latents(vae: AutoencoderKLQwenImage, bank: PhotoBank) -> None:
    """Put the mean and standard deviation of every latent channel into the configuration, as published models do."""
    pixels = bank.faulty(512, (64, 64), torch.Generator().manual_seed(1), intact=0.5) * 2 - 1
    latents = torch.cat([vae.encode(chunk[:, :, None]).latent_dist.mode() for chunk in pixels.split(32)])
    flat = latents.transpose(0, 1).flatten(1)
    vae.register_to_config(latents_mean=flat.mean(dim=1).tolist(), latents_std=flat.std(dim=1).tolist())
