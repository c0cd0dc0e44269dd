"""Edit a photo as the release, or as diffusers' own pipeline, does: sizes, conditioning, schedule, noise and rounding.

The product samples with `components.models.sampling`; this module is for weights that were trained elsewhere and for
comparing results with the release's. Every difference between the three is a field of `SamplingSettings`.

Shape legend: S target tokens, R source tokens, C packed latent channels.
"""

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from diffusers.models.activations import GELU, ApproximateGELU
from peft import PeftModel
from PIL import Image
from pydantic import Field
from torch import Tensor, nn

from components.models.artist import PATCH, PRODUCTION_AREA, Artist, Grid
from components.models.critic import Critic, Prompts, ReasoningLatent
from components.models.flow import inference_sigmas
from components.strict import Strict

EDIT_PLUS_SYSTEM = (
    "Describe the key features of the input image (color, shape, size, texture, objects, background), then explain how "
    "the user's text instruction should alter or modify the image. Generate a new image that meets the user's "
    "requirements while maintaining consistency with the original input where appropriate."
)
"""System message with which Qwen-Image-Edit-2509 was trained (diffusers, QwenImageEditPlusPipeline)."""
EDIT_PLUS_DROPPED = 64
"""Its tokens, which the pipeline leaves out of the conditioning."""


class SamplingSettings(Strict):
    """How a photo becomes an edit. The defaults are this project's; see `RELEASE` and `EDIT_PLUS`.

    Attributes:
        conditioning: `critic`: the Critic's verdict about the photo; `instruction`: an instruction in the layout of
            diffusers' edit pipeline, whose system message is left out of the latent.
        feed_forward: activation of the transformer's feed-forward layers: GELU by tanh, or x sigmoid(1.702 x).
        target_multiple, source_multiple: sides of the edit, and of the photo that the transformer and (`seen`) the
            Critic are shown, are multiples of these.
        target_area, source_area, seen_area: their pixels, about.
        cut_sides: sides are cut to whole pixels before they are rounded to multiples.
        resample_target_first: the photo is brought to the edit's size first, and the others are made from that.
        precision: of the noise and of the Euler steps.
        timestep: what is rounded to the precision of the weights before the transformer is told of it: the noise level
            in [0, 1], or a thousand times as much, which is divided again.
        noise_layout: whether noise is drawn by token or by channel, row and column.
        round_output: whether 8-bit values are rounded or cut.
        repetition_penalty: of the Critic's greedy decoding; None for that of its `generation_config.json`.
    """

    conditioning: Literal["critic", "instruction"] = "critic"
    feed_forward: Literal["tanh", "sigmoid"] = "tanh"
    steps: int = Field(default=20, gt=0)
    target_multiple: int = Field(default=16, gt=0)
    source_multiple: int = Field(default=16, gt=0)
    target_area: int = Field(default=PRODUCTION_AREA, gt=0)
    source_area: int = Field(default=PRODUCTION_AREA, gt=0)
    seen_area: int = Field(default=PRODUCTION_AREA, gt=0)
    cut_sides: bool = False
    resample_target_first: bool = False
    resample: Literal["bicubic", "lanczos"] = "bicubic"
    precision: Literal["float32", "bfloat16"] = "float32"
    timestep: Literal["level", "thousandths"] = "level"
    noise_layout: Literal["tokens", "channels"] = "tokens"
    round_output: bool = True
    max_new_tokens: int = Field(default=1280, gt=0)
    repetition_penalty: float | None = Field(default=1.0, gt=0)


RELEASE = SamplingSettings(
    feed_forward="sigmoid",
    source_multiple=32,
    cut_sides=True,
    resample_target_first=True,
    precision="bfloat16",
    timestep="thousandths",
    noise_layout="channels",
    round_output=False,
    repetition_penalty=None,
)
"""The authors' infer.py."""

EDIT_PLUS = SamplingSettings(
    conditioning="instruction",
    target_multiple=32,
    source_multiple=32,
    seen_area=384 * 384,
    resample="lanczos",
    noise_layout="channels",
)
"""QwenImageEditPlusPipeline of diffusers, without a negative prompt, but for the number of steps (40 there)."""


class WorkingSize(NamedTuple):
    """Height and width, pixels."""

    height: int
    width: int


@dataclass(frozen=True)
class Edit:
    """A finished edit and what it was made from.

    Attributes:
        picture: at the target size.
        latents_1SC: clean, packed and normalised.
        source_1RC: of the photo.
        sigmas: noise levels, the final 0 included.
        latent: what the transformer was conditioned on.
        text: what the Critic wrote, or the instruction.
    """

    picture: Image.Image
    latents_1SC: Tensor
    source_1RC: Tensor
    sigmas: Tensor
    latent: ReasoningLatent
    text: str


def fitted_size(area: int, ratio: float, multiple: int, cut: bool) -> WorkingSize:
    """Sides of about `area` pixels with width / height = `ratio`, rounded to multiples."""
    height = math.sqrt(area / ratio)
    if cut:
        height = int(height)
    width = int(height * ratio) if cut else math.sqrt(area * ratio)
    return WorkingSize(*(max(multiple, round(side / multiple) * multiple) for side in (height, width)))


def use_feed_forward(transformer: nn.Module, kind: Literal["tanh", "sigmoid"]) -> None:
    """Give all feed-forward layers of a transformer this activation; weights stay, and so do their names."""
    model: Any = transformer.get_base_model() if isinstance(transformer, PeftModel) else transformer
    for block in model.transformer_blocks:
        for feed_forward in (block.img_mlp, block.txt_mlp):
            old = feed_forward.net[0]
            with torch.device("meta"):
                new = (
                    ApproximateGELU(old.proj.in_features, old.proj.out_features)
                    if kind == "sigmoid"
                    else GELU(old.proj.in_features, old.proj.out_features, approximate="tanh")
                )
            new.proj = old.proj
            feed_forward.net[0] = new


class Sampler:
    """Edits photos with given settings.

    Args:
        artist: its transformer's feed-forward layers are set as the settings say.
        critic: with the prompt that it was trained with, as `Critic.prompt`.
    """

    def __init__(self, artist: Artist, critic: Critic, settings: SamplingSettings):
        self.artist, self.critic, self.settings = artist, critic, settings
        use_feed_forward(artist.transformer, settings.feed_forward)
        self.dtype = getattr(torch, settings.precision)

    def sizes(self, photo: Image.Image) -> tuple[WorkingSize, WorkingSize, WorkingSize]:
        """Sizes of the edit, of the photo as the transformer's source, and as the Critic sees it."""
        settings = self.settings
        ratio = photo.width / photo.height
        target = fitted_size(settings.target_area, ratio, settings.target_multiple, settings.cut_sides)
        if settings.resample_target_first:
            ratio = target.width / target.height
        source, seen = (
            fitted_size(area, ratio, settings.source_multiple, cut=False)
            for area in (settings.source_area, settings.seen_area)
        )
        return target, source, seen

    @torch.no_grad()
    def edit(self, photo: Image.Image, generator: torch.Generator, instruction: str | None = None) -> Edit:
        """Edit one photo.

        Args:
            photo: RGB, of any size.
            generator: of the noise, on the CPU; it is used before anything else happens.
            instruction: with `conditioning="instruction"`, what to do.

        Raises:
            ValueError: an instruction is missing, or there is one that would not be read; or a size that the
                autoencoder cannot work at.
        """
        if (instruction is None) == (self.settings.conditioning == "instruction"):
            raise ValueError(
                f"conditioning={self.settings.conditioning!r} takes "
                f"{'no instruction' if instruction else 'an instruction'}"
            )
        target, source, seen = self.sizes(photo)
        for size in (target, source):
            if size.height % self.artist.pixels_per_token or size.width % self.artist.pixels_per_token:
                raise ValueError(
                    f"{size.width} x {size.height} is no whole number of tokens of {self.artist.pixels_per_token} "
                    "pixels; set target_multiple and source_multiple to a multiple of that"
                )
        unit = self.artist.pixels_per_token
        grid, source_grid = (Grid(size.height // unit, size.width // unit) for size in (target, source))
        noise = self._noise(grid, generator)
        if self.settings.resample_target_first:
            photo = self._resized(photo, target)
        source_latents = self.artist.encode(_tensor(self._resized(photo, source))[None])
        latent, text = self._condition(self._resized(photo, seen), instruction)
        sigmas = inference_sigmas(self.artist.scheduler, self.settings.steps, grid.tokens)
        state = noise
        for now, after in pairwise(sigmas.tolist()):
            velocity = self._velocity(state, source_latents, now, latent, grid, source_grid).to(state.dtype)
            state = state + (after - now) * velocity
        pixels = self.artist.decode(state.float(), grid)[0].permute(1, 2, 0) * 255
        pixels = pixels.round() if self.settings.round_output else pixels
        picture = Image.fromarray(pixels.to("cpu", torch.uint8).numpy())
        return Edit(picture, state.float(), source_latents, sigmas, latent, text)

    def _noise(self, grid: Grid, generator: torch.Generator) -> Tensor:
        """Noise (1, S, C), drawn on the CPU in the settings' precision and layout."""
        channels = self.artist.vae.config.z_dim
        if self.settings.noise_layout == "tokens":
            packed = (1, grid.tokens, channels * PATCH * PATCH)
            return torch.randn(packed, generator=generator, dtype=self.dtype).to(self.artist.device)
        shape = (1, channels, grid.height * PATCH, grid.width * PATCH)
        noise = torch.randn(shape, generator=generator, dtype=self.dtype)
        patches = noise.view(1, channels, grid.height, PATCH, grid.width, PATCH).permute(0, 2, 4, 1, 3, 5)
        return patches.reshape(1, grid.tokens, -1).to(self.artist.device)

    def _resized(self, photo: Image.Image, size: WorkingSize) -> Image.Image:
        if photo.size == (size.width, size.height):
            return photo
        kind = Image.Resampling.BICUBIC if self.settings.resample == "bicubic" else Image.Resampling.LANCZOS
        return photo.resize((size.width, size.height), kind)

    def _condition(self, photo: Image.Image, instruction: str | None) -> tuple[ReasoningLatent, str]:
        """What the transformer is conditioned on, and the words behind it."""
        if instruction is None:
            penalty = self.settings.repetition_penalty
            if penalty is None:
                penalty = self.critic.vision_language_model.generation_config.repetition_penalty or 1.0
            rollout = self.critic.generate(
                [_tensor(photo)], max_new_tokens=self.settings.max_new_tokens, repetition_penalty=penalty
            )
            return rollout.latent, rollout.texts[0]
        text = (
            f"<|im_start|>system\n{EDIT_PLUS_SYSTEM}<|im_end|>\n<|im_start|>user\n"
            f"Picture 1: <|vision_start|><|image_pad|><|vision_end|>{instruction}<|im_end|>\n<|im_start|>assistant\n"
        )
        batch = self.critic.processor(text=[text], images=[photo], padding=True, return_tensors="pt").to(
            self.critic.device
        )
        prompts = Prompts(
            batch["input_ids"],
            batch["attention_mask"],
            batch["mm_token_type_ids"],
            batch["pixel_values"],
            batch["image_grid_thw"],
        )
        nothing = torch.full((1, 1), self.critic.pad_token, device=self.critic.device)
        latent = self.critic.latent(prompts, nothing, torch.ones_like(nothing, dtype=torch.bool))
        kept = slice(EDIT_PLUS_DROPPED, None)
        return ReasoningLatent(latent.states_BLD[:, kept], latent.mask_BL[:, kept]), instruction

    def _velocity(
        self, state: Tensor, source: Tensor, sigma: float, latent: ReasoningLatent, grid: Grid, source_grid: Grid
    ) -> Tensor:
        """Predicted velocity (1, S, C), for a source of another size than the edit, which `Artist.velocity` has not."""
        device, dtype = self.artist.device, self.artist.vae.dtype
        shapes = [(1, one.height, one.width) for one in (grid, source_grid)]
        prediction = self.artist.transformer(
            hidden_states=torch.cat([state.to(device, dtype), source.to(device, dtype)], dim=1),
            encoder_hidden_states=latent.states_BLD.to(device, dtype),
            timestep=self._timestep(sigma).to(device),
            img_shapes=[shapes],
            return_dict=False,
        )[0]
        return prediction[:, : grid.tokens]

    def _timestep(self, sigma: float) -> Tensor:
        """The noise level (1,) as the transformer is told it, in the precision of the weights."""
        dtype = self.artist.vae.dtype
        if self.settings.timestep == "level":
            return torch.full((1,), sigma, dtype=dtype)
        return torch.full((1,), sigma * 1000, dtype=dtype) / 1000


def _tensor(photo: Image.Image) -> Tensor:
    """(3, H, W) in [0, 1]."""
    return torch.from_numpy(np.asarray(photo.convert("RGB"), dtype=np.float32)).permute(2, 0, 1) / 255
