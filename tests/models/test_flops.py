"""Closed forms against what torch's FLOP counter sees when small models run."""

import pytest
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from components.models.flops import (
    autoencoder_flops,
    decoding_flops,
    key_value_bytes,
    language_model_flops,
    transformer_flops,
    vision_flops,
)
from components.models.lora import LoraSettings
from components.models.published import build_critic, build_transformer, build_vae
from tests.planning.small import RANK, small

CONFIGURATIONS = small(depth=3, text_depth=3)
LORA = LoraSettings(rank=RANK, alpha=RANK)


def counted(run, backward: bool = True) -> tuple[int, int]:
    """Operations of the forward and of the backward pass of a scalar that `run` returns, as torch counts them."""
    with sdpa_kernel(SDPBackend.MATH), torch.set_grad_enabled(backward):  # fused CPU attention is not counted
        with FlopCounterMode(display=False) as forward:
            loss = run()
        if not backward:
            return forward.get_total_flops(), 0
        with FlopCounterMode(display=False) as back:
            loss.backward()
    return forward.get_total_flops(), back.get_total_flops()


def test_transformer() -> None:
    model = build_transformer(CONFIGURATIONS, LORA)

    def run() -> Tensor:
        output = model(
            hidden_states=torch.rand(1, 48, 32),
            encoder_hidden_states=torch.rand(1, 20, 64),
            timestep=torch.rand(1),
            img_shapes=[[(1, 4, 6), (1, 4, 6)]],
            return_dict=False,
        )[0]
        return output.square().mean()

    flops = transformer_flops(CONFIGURATIONS.transformer, 48, 20, RANK)
    assert counted(run) == tuple(flops)
    assert flops.training(True) - flops.training(False) == flops.forward


def test_language_model_and_decoding() -> None:
    model = build_critic(CONFIGURATIONS, LORA).get_base_model()
    config = CONFIGURATIONS.critic["text_config"]

    def run(tokens: int = 40, logits: int = 15) -> Tensor:
        embeddings = torch.rand(1, tokens, config["hidden_size"])
        hidden = model.model.language_model(inputs_embeds=embeddings, use_cache=False).last_hidden_state
        return model.lm_head(hidden[:, -logits:]).square().mean()

    assert counted(run) == tuple(language_model_flops(config, 40, 15, RANK))

    def decode() -> None:
        cache = model.model.language_model(inputs_embeds=torch.rand(1, 30, 64), use_cache=True).past_key_values
        held = sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)
        assert held == 30 * key_value_bytes(config, itemsize=4)
        with FlopCounterMode(display=False) as counter:
            for _ in range(4):
                embeddings = torch.rand(1, 1, 64)
                output = model.model.language_model(inputs_embeds=embeddings, past_key_values=cache, use_cache=True)
                model.lm_head(output.last_hidden_state)
        assert counter.get_total_flops() == decoding_flops(config, 30, 5, RANK)

    counted(decode, backward=False)


def test_vision_tower() -> None:
    tower = build_critic(CONFIGURATIONS).model.visual
    grid = torch.tensor([[1, 16, 16]])  # two by two whole windows
    pixels = torch.rand(256, 3 * 2 * 14 * 14)
    forward, _ = counted(lambda: tower(pixels, grid_thw=grid), backward=False)
    assert forward == pytest.approx(vision_flops(CONFIGURATIONS.critic["vision_config"], 256), rel=1e-6)


def test_autoencoder() -> None:
    with torch.device("meta"):
        vae = build_vae(CONFIGURATIONS)
    encoding, decoding = autoencoder_flops(vae, 32, 48)
    real = build_vae(CONFIGURATIONS)
    assert counted(lambda: real.encode(torch.rand(1, 3, 1, 32, 48)), backward=False)[0] == encoding
    assert counted(lambda: real.decode(torch.rand(1, 8, 1, 8, 12)), backward=False)[0] == decoding
