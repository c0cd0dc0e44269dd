"""The models of a profile without their weights: built from configurations on the meta device, with their adapters.

`components/models/published` holds the published configurations of Qwen2.5-VL-7B-Instruct and Qwen-Image-Edit-2509 in
the layout of the base models (`data/base`), so that any folder of base models can take their place.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLQwenImage, FlowMatchEulerDiscreteScheduler, QwenImageTransformer2DModel
from torch import nn
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from components.models.artist import DESCRIPTION_FILE, LORA_TARGETS, PRODUCTION_AREA, Artist
from components.models.critic import LORA_TARGETS as CRITIC_LORA_TARGETS
from components.models.lora import LoraSettings, add_adapter

PUBLISHED = Path(__file__).parent / "published_models"
_FOLDERS = (("qwen2.5-vl-7b-instruct", "critic"), ("qwen-image-edit-2509", "artist"))


@dataclass(frozen=True)
class Configurations:
    """Configurations of both base models.

    Attributes:
        critic: of Qwen2.5-VL, as in its `config.json`.
        transformer, vae, scheduler: of the Artist, as in its diffusers folders.
        area: pixels of a working picture of the Artist.
    """

    critic: dict[str, Any]
    transformer: dict[str, Any]
    vae: dict[str, Any]
    scheduler: dict[str, Any]
    area: int = PRODUCTION_AREA

    @property
    def pixels_per_token(self) -> int:
        """Side of the square of pixels that one token of the Artist stands for."""
        return 2 ** len(self.vae["temperal_downsample"]) * self.transformer["patch_size"]


def read_configurations(folder: Path = PUBLISHED) -> Configurations:
    """Read a folder of base models (`critic/`, `artist/`), with or without weights; by default the published ones.

    Raises:
        FileNotFoundError: naming the configuration that is missing.
    """
    critic, artist = (
        next((folder / name for name in names if (folder / name).is_dir()), folder / names[-1]) for names in _FOLDERS
    )
    description = artist / DESCRIPTION_FILE
    area = json.loads(description.read_text())["area"] if description.exists() else PRODUCTION_AREA
    return Configurations(
        _read(critic / "config.json"),
        _read(artist / "transformer" / "config.json"),
        _read(artist / "vae" / "config.json"),
        _read(artist / "scheduler" / "scheduler_config.json"),
        area,
    )


def build_critic(configurations: Configurations, lora: LoraSettings | None = None) -> nn.Module:
    """The Critic's model on the current default device, with a trainable adapter if `lora` is given."""
    model = Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig(**configurations.critic)).requires_grad_(False)
    return model if lora is None else add_adapter(model, CRITIC_LORA_TARGETS, lora, seed=0)


def build_transformer(configurations: Configurations, lora: LoraSettings | None = None) -> nn.Module:
    """The Artist's transformer on the current default device, with a trainable adapter if `lora` is given."""
    model = QwenImageTransformer2DModel.from_config(configurations.transformer).requires_grad_(False)
    return model if lora is None else add_adapter(model, LORA_TARGETS, lora, seed=0)


def build_vae(configurations: Configurations) -> AutoencoderKLQwenImage:
    """The Artist's autoencoder on the current default device."""
    return AutoencoderKLQwenImage.from_config(configurations.vae).requires_grad_(False)


def artist_on_meta(configurations: Configurations, lora: LoraSettings | None = None) -> Artist:
    """The whole Artist without weights, through the classes that train and sample it."""
    scheduler = FlowMatchEulerDiscreteScheduler.from_config(configurations.scheduler)
    with torch.device("meta"):
        transformer, vae = build_transformer(configurations, lora), build_vae(configurations)
    return Artist(transformer, vae, scheduler, configurations.area)


def critic_on_meta(configurations: Configurations, lora: LoraSettings | None = None) -> nn.Module:
    """The Critic's model without weights, as `build_critic` makes it."""
    with torch.device("meta"):
        return build_critic(configurations, lora)


@dataclass(frozen=True)
class ModelSize:
    """Parameters of one model, in numbers."""

    frozen: int
    adapter: int
    largest_block: int
    """Parameters of the largest repeated block, which sharded training gathers as a whole."""

    @property
    def total(self) -> int:
        return self.frozen + self.adapter


def size_of(model: nn.Module) -> ModelSize:
    """Count the parameters of a model; what a name marks as LoRA's is the adapter."""
    counts = {name: parameter.numel() for name, parameter in model.named_parameters()}
    adapter = sum(count for name, count in counts.items() if "lora_" in name)
    blocks = [
        sum(parameter.numel() for parameter in block.parameters())
        for module in model.modules()
        if isinstance(module, nn.ModuleList)
        for block in module
    ]
    return ModelSize(sum(counts.values()) - adapter, adapter, max(blocks, default=0))


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: expected a model's configuration; name a folder with critic/ and artist/ as data/base has them, "
            "or none for the published models"
        )
    return json.loads(path.read_text(encoding="utf-8"))
