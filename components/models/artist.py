"""The Artist: Qwen-Image's diffusion transformer and VAE, and the LoRA adapters that are trained on them.

Shape legend: B pictures, S target tokens, R source tokens, C packed latent channels (4 x VAE channels), L latent
positions of the Critic, D their width.
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from diffusers.models.autoencoders.autoencoder_kl_qwenimage import AutoencoderKLQwenImage
from diffusers.models.transformers.transformer_qwenimage import QwenImageTransformer2DModel
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler
from torch import Tensor

from components.models.compute import Placement
from components.models.critic import ReasoningLatent
from components.models.lora import LoraSettings, add_adapter, load_adapter, put_adapter, save_adapter, without_adapter
from components.models.weights import load_weights, save_weights, train_weights
from components.parallel.sharding import shard

if TYPE_CHECKING:
    from peft import PeftModel

LORA_TARGETS = [
    "to_q",
    "to_k",
    "to_v",
    "to_out.0",
    "add_q_proj",
    "add_k_proj",
    "add_v_proj",
    "to_add_out",
]  # attention projections of both streams, as in the release
PRODUCTION_AREA = 1024 * 1024
PATCH = 2
DESCRIPTION_FILE = "artist.json"
"""Beside a base model of another working size than the published one: {"area": pixels}."""


@dataclass(frozen=True)
class Grid:
    """Size of a picture in tokens."""

    height: int
    width: int

    @property
    def tokens(self) -> int:
        return self.height * self.width


class Artist:
    """The Photographic Artist f_a.

    Args:
        transformer: the flow model, with or without PEFT adapters.
        vae: the autoencoder; never trained here.
        scheduler: carries the timestep shift of the model.
        area: pixels of a working picture.
    """

    def __init__(
        self,
        transformer: "QwenImageTransformer2DModel | PeftModel",
        vae: AutoencoderKLQwenImage,
        scheduler: FlowMatchEulerDiscreteScheduler,
        area: int = PRODUCTION_AREA,
    ):
        self.transformer, self.vae, self.scheduler, self.area = transformer, vae.requires_grad_(False), scheduler, area
        self.weights: Path | None = None  # that a stage trained instead of an adapter
        self.compression = 2 ** len(vae.temperal_downsample)  # (sic) diffusers' spelling
        self._mean = torch.tensor(vae.config.latents_mean).view(1, -1, 1, 1, 1)
        self._std = torch.tensor(vae.config.latents_std).view(1, -1, 1, 1, 1)

    @classmethod
    def load(
        cls,
        base: Path,
        adapter: Path | None = None,
        placement: Placement | None = None,
        trainable: bool = False,
        only_used: bool = False,
    ) -> "Artist":
        """Load a diffusers directory (`transformer/`, `vae/`, `scheduler/`) and, when given, a PEFT adapter.

        Where the adapter's folder holds weights too (`components.models.weights`), those replace the base model's.

        Args:
            trainable: the adapter is to be trained.
            only_used: no adapter will be trained, saved or put beside this one, so it need not be PEFT's.
        """
        device, dtype = placement or Placement()
        transformer = QwenImageTransformer2DModel.from_pretrained(base, subfolder="transformer", torch_dtype=dtype)
        vae = AutoencoderKLQwenImage.from_pretrained(base, subfolder="vae", torch_dtype=dtype)
        scheduler = FlowMatchEulerDiscreteScheduler.from_pretrained(base, subfolder="scheduler")
        transformer, vae = transformer.to(device).eval().requires_grad_(False), vae.to(device).eval()
        weights = load_weights(transformer, adapter)
        if adapter is not None:
            transformer = (
                put_adapter(transformer, adapter) if only_used else load_adapter(transformer, adapter, trainable)
            )
        description = base / DESCRIPTION_FILE
        area = json.loads(description.read_text())["area"] if description.exists() else PRODUCTION_AREA
        artist = cls(transformer, vae, scheduler, area)
        artist.weights = weights
        return artist

    def add_adapter(self, settings: LoraSettings, seed: int = 0) -> None:
        """Put a fresh, trainable LoRA on the attention projections (gaussian A, zero B)."""
        self.transformer = add_adapter(self.transformer, LORA_TARGETS, settings, seed)

    def save_adapter(self, out: Path) -> None:
        """Write the current PEFT adapter (`adapter_config.json`, `adapter_model.safetensors`) and trained weights."""
        save_adapter(self.transformer, out)
        save_weights(self.transformer, out, self.weights)

    def train_weights(self) -> None:
        """From now on train the weights of the transformer's blocks instead of the adapter."""
        train_weights(self.transformer, self.transformer.get_base_model().transformer_blocks)

    def trained_parameters(self) -> list[torch.nn.Parameter]:
        """Those that require a gradient."""
        return [p for p in self.transformer.parameters() if p.requires_grad]

    def shard(self, device: torch.device, dtype: torch.dtype) -> None:
        """Share the transformer out among all ranks (`components.parallel.sharding`); all is moved to `device`."""
        shard(self.transformer, device, dtype)
        self.vae.to(device)

    def checkpoint_gradients(self) -> None:
        """From now on compute activations again in the backward pass instead of keeping them."""
        without_adapter(self.transformer).enable_gradient_checkpointing()

    @property
    def device(self) -> torch.device:
        return self.vae.device

    @property
    def pixels_per_token(self) -> int:
        """Side of the square of pixels that one token stands for."""
        return self.compression * PATCH

    @property
    def packed_channels(self) -> int:
        """C: values of one token's latents."""
        return self.vae.config.z_dim * PATCH * PATCH

    def working_size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width in pixels at which a photo is edited: its aspect, about `area` pixels, whole tokens.

        A photo so long that it would be less than a token wide is squeezed, so that the pixels stay about `area`.
        """
        unit = self.pixels_per_token
        scale = math.sqrt(self.area / (width * height))
        longest = max(1, int(self.area) // unit**2)
        rows, columns = (min(longest, max(1, round(side * scale / unit))) for side in (height, width))
        return rows * unit, columns * unit

    def grid(self, images: Tensor) -> Grid:
        """Token grid of pictures (..., H, W) at their working size."""
        return Grid(images.shape[-2] // self.pixels_per_token, images.shape[-1] // self.pixels_per_token)

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        """Normalised, packed latents (B, S, C), float32, of pictures (B, 3, H, W) in [0, 1], without sampling noise."""
        images = images.to(self.device)
        latents = self.vae.encode((images * 2 - 1)[:, :, None].to(self.vae.dtype)).latent_dist.mode().float()
        latents = ((latents - self._mean.to(latents)) / self._std.to(latents))[:, :, 0]
        batch, channels, height, width = latents.shape
        patches = latents.view(batch, channels, height // PATCH, PATCH, width // PATCH, PATCH)
        return patches.permute(0, 2, 4, 1, 3, 5).reshape(batch, -1, channels * PATCH * PATCH)

    @torch.no_grad()
    def decode(self, latents_BSC: Tensor, grid: Grid) -> Tensor:
        """Pictures (B, 3, H, W) in [0, 1] of normalised, packed latents."""
        return self.decode_differentiably(latents_BSC, grid).clamp(0, 1)

    def decode_differentiably(self, latents_BSC: Tensor, grid: Grid) -> Tensor:
        """The same, not clamped, for a loss on the pictures."""
        batch, _, packed = latents_BSC.shape
        channels = packed // (PATCH * PATCH)
        patches = latents_BSC.view(batch, grid.height, grid.width, channels, PATCH, PATCH).permute(0, 3, 1, 4, 2, 5)
        latents = patches.reshape(batch, channels, 1, grid.height * PATCH, grid.width * PATCH)
        latents = latents * self._std.to(latents) + self._mean.to(latents)
        pixels = self.vae.decode(latents.to(self.vae.dtype)).sample[:, :, 0]
        return (pixels.float() + 1) / 2

    def velocity(
        self, noisy_BSC: Tensor, source_BRC: Tensor, sigma_B: Tensor, latent: ReasoningLatent, grid: Grid
    ) -> Tensor:
        """Predicted velocity (B, S, C) at noise level sigma, given the source picture and the Critic's latent.

        Args:
            noisy_BSC: (1 - sigma) x0 + sigma e.
            source_BRC: latents of the photo to edit; same grid as the target.
            sigma_B: noise levels in [0, 1].
            latent: H_c; every real position is attended to, none is cut off.

        Returns:
            float32, whatever the precision of the weights.
        """
        shape = (1, grid.height, grid.width)
        device, dtype = self.device, self.vae.dtype
        mask = latent.mask_BL.to(device) if not bool(latent.mask_BL.all()) else None
        prediction = self.transformer(
            hidden_states=torch.cat([noisy_BSC, source_BRC], dim=1).to(device, dtype),
            encoder_hidden_states=latent.states_BLD.to(device, dtype),
            encoder_hidden_states_mask=mask,
            timestep=sigma_B.to(device, dtype),
            img_shapes=[[shape, shape]] * len(noisy_BSC),
            return_dict=False,
        )[0]
        return prediction[:, : noisy_BSC.shape[1]].float()
