"""Counts what passes through the Critic and the Artist: operations, from the shapes of each pass, and tokens."""

from collections.abc import Mapping
from functools import cache
from typing import Any

import torch
from diffusers import AutoencoderKLQwenImage
from peft import PeftModel
from torch import nn

from components.models.artist import Artist
from components.models.critic import Critic
from components.models.flops import autoencoder_flops, language_model_flops, transformer_flops, vision_flops
from components.models.lora import CURRENT
from components.training.throughput import Meter, hardware


def metered(samples: int, critic: Critic | None = None, artist: Artist | None = None) -> Meter:
    """A meter of all passes through the models of a stage from now on; adapters must be on them already.

    Args:
        samples: photos or pairs of a step, of all ranks together.
    """
    models = [(critic.device, critic.vision_language_model.dtype)] if critic else []
    models += [(artist.device, artist.vae.dtype)] if artist else []
    meter = Meter(samples, hardware(*models[0]))
    if critic is not None:
        _watch_critic(critic, meter)
    if artist is not None:
        _watch_artist(artist, meter)
    return meter


def _watch_critic(critic: Critic, meter: Meter) -> None:
    model = critic.vision_language_model
    text, vision = model.config.get_text_config().to_dict(), model.config.vision_config.to_dict()
    rank = _rank(critic.model)

    def backbone(module: nn.Module, arguments: tuple[Any, ...], named: Mapping[str, Any]) -> None:
        rows, length = named["input_ids"].shape
        known = named.get("past_key_values")
        past = known.get_seq_length() if known is not None else 0
        one = language_model_flops(text, length, 0, rank)
        flops = rows * (one.forward + 4 * length * past * text["hidden_size"] * text["num_hidden_layers"])
        flops += rows * one.backward * torch.is_grad_enabled()
        if named.get("pixel_values") is not None:
            patches = named["image_grid_thw"].prod(dim=1).tolist()
            flops += sum(vision_flops(vision, count) for count in patches)
        meter.count(flops, named["attention_mask"][:, -length:].sum())

    def head(module: nn.Module, arguments: tuple[Any, ...]) -> None:
        positions = arguments[0].numel() // text["hidden_size"]
        meter.count(2 * positions * text["hidden_size"] * text["vocab_size"] * (1 + torch.is_grad_enabled()))

    model.model.register_forward_pre_hook(backbone, with_kwargs=True)
    model.lm_head.register_forward_pre_hook(head)


def _watch_artist(artist: Artist, meter: Meter) -> None:
    transformer = (
        artist.transformer.get_base_model() if isinstance(artist.transformer, PeftModel) else artist.transformer
    )
    rank = _rank(artist.transformer)
    meta = cache(lambda: _on_meta(artist.vae))
    autoencoder = cache(lambda height, width: autoencoder_flops(meta(), height, width))

    def edit(module: nn.Module, arguments: tuple[Any, ...], named: Mapping[str, Any]) -> None:
        rows, length, _ = named["hidden_states"].shape
        one = transformer_flops(transformer.config, length, named["encoder_hidden_states"].shape[1], rank)
        meter.count(rows * (one.forward + one.backward * torch.is_grad_enabled()))

    def encode(module: nn.Module, arguments: tuple[Any, ...]) -> None:
        rows, _, _, height, width = arguments[0].shape
        meter.count(rows * autoencoder(height, width)[0])

    def decode(module: nn.Module, arguments: tuple[Any, ...]) -> None:
        rows, _, _, height, width = arguments[0].shape
        meter.count(rows * autoencoder(height * artist.compression, width * artist.compression)[1])

    transformer.register_forward_pre_hook(edit, with_kwargs=True)
    artist.vae.encoder.register_forward_pre_hook(encode)
    artist.vae.decoder.register_forward_pre_hook(decode)


def _on_meta(vae: AutoencoderKLQwenImage) -> AutoencoderKLQwenImage:
    with torch.device("meta"):
        return AutoencoderKLQwenImage.from_config(vae.config)


def _rank(model: nn.Module) -> int:
    """Rank of the model's adapters; 0 without one."""
    return model.peft_config[CURRENT].r if isinstance(model, PeftModel) else 0
