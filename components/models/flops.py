"""Floating-point operations of the models in closed form; a multiplication with its addition counts two.

Matrix products and convolutions are counted, element-wise work is not, as torch's FLOP counter does. Attention counts
every pair of positions, masked or not. In the backward pass frozen weights cost one product (the gradient of the
input), adapters two, attention twice its forward pass, and nothing is counted where no gradient flows: below the first
adapted layer, and in what the loss does not depend on.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from diffusers import AutoencoderKLQwenImage
from torch.utils.flop_counter import FlopCounterMode


class Flops(NamedTuple):
    """Operations of one forward pass and of the backward pass that belongs to it."""

    forward: int
    backward: int

    def training(self, checkpointing: bool) -> int:
        """Operations of a training pass; with checkpointing the forward pass is computed twice."""
        return self.forward * (2 if checkpointing else 1) + self.backward


def transformer_flops(config: Mapping[str, Any], image_tokens: int, text_tokens: int, rank: int) -> Flops:
    """One sample through the Artist's transformer, with adapters on the attention projections of both streams.

    Args:
        config: of QwenImageTransformer2DModel.
        image_tokens: target and source tokens together.
        text_tokens: positions of the Critic's latent.
        rank: of the adapters.
    """
    width, layers = config["num_attention_heads"] * config["attention_head_dim"], config["num_layers"]
    ends = 2 * image_tokens * config["in_channels"] * width + 2 * text_tokens * config["joint_attention_dim"] * width
    ends += 2 * (256 * width + width * width) + 4 * width * width  # of the timestep, and of the last modulation
    out = 2 * image_tokens * width * config["patch_size"] ** 2 * config["out_channels"]
    modulation = 2 * 2 * 6 * width * width
    attention = 4 * (image_tokens + text_tokens) ** 2 * width
    forward, backward = ends + out, out
    for layer in range(layers):
        forward += modulation + attention
        backward += 2 * attention
        for tokens, is_text in ((image_tokens, False), (text_tokens, True)):
            square, adapter, feed_forward = 2 * tokens * width**2, 2 * tokens * width * rank, 16 * tokens * width**2
            forward += 4 * (square + 2 * adapter) + feed_forward
            backward += 3 * (3 * adapter + (square + adapter if layer else 0))  # query, key, value
            if not (is_text and layer == layers - 1):  # the last block's text goes nowhere
                backward += square + 4 * adapter + feed_forward
    return Flops(forward, backward)


def language_model_flops(config: Mapping[str, Any], tokens: int, logits: int, rank: int) -> Flops:
    """One sequence through the Critic's language model, with adapters on all projections of its layers.

    Args:
        config: the `text_config` of Qwen2.5-VL.
        tokens: length of the sequence.
        logits: positions whose next token is predicted.
    """
    width, inner, layers = config["hidden_size"], config["intermediate_size"], config["num_hidden_layers"]
    key_width = width // config["num_attention_heads"] * config["num_key_value_heads"]
    head, attention = 2 * logits * width * config["vocab_size"], 4 * tokens**2 * width
    first = [(width, width), (width, key_width), (width, key_width)]
    rest = [(width, width), (width, inner), (width, inner), (inner, width)]
    forward = backward = head
    for layer in range(layers):
        forward, backward = forward + attention, backward + 2 * attention
        for number, (inputs, outputs) in enumerate(first + rest):
            frozen, down, up = 2 * tokens * inputs * outputs, 2 * tokens * inputs * rank, 2 * tokens * rank * outputs
            forward += frozen + down + up
            backward += down + 2 * up + (frozen + down if layer or number >= len(first) else 0)
    return Flops(forward, backward)


def vision_flops(config: Mapping[str, Any], patches: int) -> int:
    """One picture through the Critic's frozen vision tower, its windows all full.

    Args:
        config: the `vision_config` of Qwen2.5-VL.
        patches: of the picture, before they are merged.
    """
    width, inner, depth = config["hidden_size"], config["intermediate_size"], config["depth"]
    merge, whole = config["spatial_merge_size"] ** 2, len(config["fullatt_block_indexes"])
    window = min(patches, (config["window_size"] // config["patch_size"]) ** 2)
    pixels = config.get("in_channels", 3) * config.get("temporal_patch_size", 2) * config["patch_size"] ** 2
    layer = 2 * patches * (4 * width**2 + 3 * width * inner)
    attention = 4 * patches * width * (whole * patches + (depth - whole) * window)
    merged = width * merge
    merger = 2 * (patches // merge) * merged * (merged + config["out_hidden_size"])
    return 2 * patches * pixels * width + depth * layer + attention + merger


def decoding_flops(config: Mapping[str, Any], prompt: int, completion: int, rank: int) -> int:
    """Writing `completion` tokens after a prompt, one at a time, with a key-value cache, the prompt's pass left out."""
    one = language_model_flops(config, 1, 1, rank).forward - 4 * config["hidden_size"] * config["num_hidden_layers"]
    positions = sum(range(prompt + 1, prompt + completion))
    return (completion - 1) * one + 4 * config["hidden_size"] * config["num_hidden_layers"] * positions


def key_value_bytes(config: Mapping[str, Any], itemsize: int) -> int:
    """Bytes that the key-value cache holds for one position of one sequence."""
    width = config["hidden_size"] // config["num_attention_heads"] * config["num_key_value_heads"]
    return 2 * config["num_hidden_layers"] * width * itemsize


def autoencoder_flops(vae: AutoencoderKLQwenImage, height: int, width: int) -> tuple[int, int]:
    """Encoding and decoding one picture, counted by torch on a model that lies on the meta device."""
    side = 2 ** len(vae.temperal_downsample)
    counts = []
    for run, shape in (
        (vae.encode, (1, 3, 1, height, width)),
        (vae.decode, (1, vae.config.z_dim, 1, height // side, width // side)),
    ):
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            run(torch.empty(shape, device="meta"))
        counts.append(counter.get_total_flops())
    return counts[0], counts[1]
