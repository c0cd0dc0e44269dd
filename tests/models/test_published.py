"""The published models on the meta device: their tensors are the published ones, and adapters sit where released."""

import hashlib
from pathlib import Path

import pytest
from torch import nn

from components.models.artist import Artist
from components.models.lora import LoraSettings
from components.models.published import (
    PUBLISHED,
    artist_on_meta,
    critic_on_meta,
    read_configurations,
    size_of,
)

pytestmark = pytest.mark.slow


def fingerprint(model: nn.Module) -> str:
    """The MD5 of tensor names and shapes by which DiffSynth, which the release runs on, recognises weight files."""
    names = []
    for name, tensor in model.state_dict().items():
        names += [f"{name}:{'_'.join(map(str, tensor.shape))}", name]
    return hashlib.md5(",".join(sorted(names)).encode()).hexdigest()


def adapted_modules(model: nn.Module) -> list[str]:
    """Names, as the base model has them, of the modules that carry an adapter."""
    marker = ".lora_A."
    names = (name for name, _ in model.named_parameters() if marker in name)
    return sorted(name.split(marker)[0].removeprefix("base_model.model.") for name in names)


@pytest.fixture(scope="module")
def artist() -> Artist:
    return artist_on_meta(read_configurations(), LoraSettings(rank=32, alpha=64))


@pytest.fixture(scope="module")
def critic() -> nn.Module:
    return critic_on_meta(read_configurations(), LoraSettings(rank=32, alpha=64))


def test_the_autoencoder_has_the_published_tensors(artist: Artist) -> None:
    assert fingerprint(artist.vae) == "ed4ea5824d55ec3107b09815e318123a"
    assert artist.pixels_per_token == 16 and artist.area == 1024 * 1024


def test_the_transformer_has_the_published_tensors_and_the_released_adapter(artist: Artist) -> None:
    projections = ["to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out"]
    expected = {f"transformer_blocks.{block}.attn.{name}" for block in range(60) for name in projections}
    assert set(adapted_modules(artist.transformer)) == expected
    size = size_of(artist.transformer)
    assert size.frozen == 20_430_401_088 and size.adapter == 60 * 8 * 2 * 32 * 3072
    assert all(parameter.is_meta for parameter in artist.transformer.parameters())
    config = artist.transformer.peft_config["default"]
    assert config.r == 32 and config.lora_alpha == 64
    plain = artist.transformer.unload()  # last, since it takes the adapter off
    assert fingerprint(plain) == "0319a1cb19835fb510907dd3367c95ff"


def test_the_critic_has_the_published_size_and_adapts_its_language_model_only(critic: nn.Module) -> None:
    size = size_of(critic)
    assert size.frozen == 8_292_166_656  # as its safetensors index states, two bytes each
    projections = "self_attn.q_proj self_attn.k_proj self_attn.v_proj self_attn.o_proj mlp.gate_proj mlp.up_proj"
    names = [*projections.split(), "mlp.down_proj"]
    expected = {f"model.language_model.layers.{layer}.{name}" for layer in range(28) for name in names}
    assert set(adapted_modules(critic)) == expected
    assert all(parameter.is_meta for parameter in critic.parameters())


def test_a_folder_without_models_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"critic.config\.json"):
        read_configurations(tmp_path)
    assert read_configurations(PUBLISHED) == read_configurations()
