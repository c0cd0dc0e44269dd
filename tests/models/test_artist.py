"""The Artist's latents against diffusers' pipeline, its masked batches against single pictures, and its adapters."""

import json
import math
from pathlib import Path

import pytest
import torch
from diffusers import QwenImageEditPlusPipeline
from torch import Tensor

from components.models.artist import LORA_TARGETS, PRODUCTION_AREA, Artist, Grid
from components.models.critic import ReasoningLatent
from components.models.lora import LoraSettings, adapter_tensors
from tests.conftest import make_photo


@pytest.fixture
def pictures() -> Tensor:
    return torch.stack([make_photo(24, 40, seed=seed) for seed in range(3)])


@pytest.fixture
def pipeline(artist: Artist) -> QwenImageEditPlusPipeline:
    return QwenImageEditPlusPipeline(artist.scheduler, artist.vae, None, None, None, artist.transformer)


@torch.no_grad()
def test_latents_are_normalised_and_packed_as_in_diffusers(
    artist: Artist, pipeline: QwenImageEditPlusPipeline, pictures: Tensor
) -> None:
    found = artist.encode(pictures)
    latents = pipeline._encode_vae_image((pictures * 2 - 1)[:, :, None], generator=None)
    expected = pipeline._pack_latents(latents, 3, artist.vae.config.z_dim, *latents.shape[-2:])
    torch.testing.assert_close(found, expected)
    assert found.shape == (3, artist.grid(pictures).tokens, artist.transformer.config.in_channels)


@torch.no_grad()
def test_latents_are_unpacked_and_decoded_as_in_diffusers(artist: Artist, pipeline: QwenImageEditPlusPipeline) -> None:
    grid = Grid(3, 5)
    packed = torch.randn(2, grid.tokens, 32, generator=torch.Generator().manual_seed(0))
    latents = pipeline._unpack_latents(packed, 3 * 8, 5 * 8, pipeline.vae_scale_factor)
    mean = torch.tensor(artist.vae.config.latents_mean).view(1, -1, 1, 1, 1)
    std = torch.tensor(artist.vae.config.latents_std).view(1, -1, 1, 1, 1)
    decoded = artist.vae.decode(latents * std + mean, return_dict=False)[0][:, :, 0]
    expected = pipeline.image_processor.postprocess(decoded, output_type="pt")
    found = artist.decode(packed, grid)
    torch.testing.assert_close(found, expected)
    assert found.shape == (2, 3, 24, 40) and found.min() >= 0 and found.max() <= 1


@torch.no_grad()
def test_a_masked_batch_equals_each_picture_alone(artist: Artist, pictures: Tensor, latent: ReasoningLatent) -> None:
    source, grid = artist.encode(pictures), artist.grid(pictures)
    noisy = torch.randn(source.shape, generator=torch.Generator().manual_seed(0))
    sigmas = torch.tensor([0.9, 0.5, 0.1])
    together = artist.velocity(noisy, source, sigmas, latent, grid)
    for i, length in enumerate(latent.mask_BL.sum(dim=1).tolist()):
        row = slice(i, i + 1)
        alone = ReasoningLatent(latent.states_BLD[row, :length], latent.mask_BL[row, :length])
        single = artist.velocity(noisy[row], source[row], sigmas[row], alone, grid)
        torch.testing.assert_close(together[row], single, atol=1e-5, rtol=1e-5)
    garbage = torch.where(latent.mask_BL[..., None], latent.states_BLD, 1e3)
    again = artist.velocity(noisy, source, sigmas, ReasoningLatent(garbage, latent.mask_BL), grid)
    torch.testing.assert_close(again, together, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_every_position_of_the_latent_and_the_source_matter(
    artist: Artist, pictures: Tensor, latent: ReasoningLatent
) -> None:
    source, grid, sigma = artist.encode(pictures[:1]), artist.grid(pictures), torch.tensor([0.5])
    noisy = torch.randn(source.shape, generator=torch.Generator().manual_seed(0))
    plain = artist.velocity(noisy, source, sigma, latent[:1], grid)
    for position in range(latent.states_BLD.shape[1]):
        states = latent.states_BLD[:1].clone()
        states[:, position] += 1
        changed = artist.velocity(noisy, source, sigma, ReasoningLatent(states, latent.mask_BL[:1]), grid)
        assert (changed - plain).abs().max() > 1e-6, position
    assert (artist.velocity(noisy, source + 1, sigma, latent[:1], grid) - plain).abs().max() > 1e-6
    assert (artist.velocity(noisy, source, sigma + 0.1, latent[:1], grid) - plain).abs().max() > 1e-6


@pytest.mark.parametrize(("height", "width"), [(32, 32), (480, 640), (640, 480), (3000, 4000), (90, 900), (1, 4000)])
def test_the_working_size_keeps_area_and_aspect_in_whole_tokens(artist: Artist, height: int, width: int) -> None:
    h, w = artist.working_size(height, width)
    unit = artist.pixels_per_token
    assert h % unit == 0 and w % unit == 0 and h >= unit and w >= unit
    scale = math.sqrt(artist.area / (height * width))
    if min(height, width) * scale > unit:
        assert abs(h - height * scale) <= unit / 2 and abs(w - width * scale) <= unit / 2


def test_a_published_model_works_at_a_megapixel(base: Path, tmp_path: Path) -> None:
    assert Artist.load(base / "artist").area == json.loads((base / "artist" / "artist.json").read_text())["area"]
    for name in ("transformer", "vae", "scheduler"):
        (tmp_path / name).symlink_to(base / "artist" / name)
    artist = Artist.load(tmp_path)
    assert artist.area == PRODUCTION_AREA
    assert artist.working_size(3000, 4000) == (888, 1184)


def test_the_base_is_frozen_and_the_adapter_sits_on_the_attention(artist: Artist) -> None:
    assert not any(p.requires_grad for m in (artist.transformer, artist.vae) for p in m.parameters())
    artist.add_adapter(LoraSettings(rank=2, alpha=4))
    trained = {name for name, parameter in artist.transformer.named_parameters() if parameter.requires_grad}
    assert trained and all("lora_" in name and ".attn." in name for name in trained)
    modules = {name.split(".lora_")[0].split(".attn.")[1] for name in trained}
    assert modules == set(LORA_TARGETS)


@torch.no_grad()
def test_a_fresh_adapter_changes_nothing_and_a_trained_one_survives_saving(
    artist: Artist, base: Path, pictures: Tensor, latent: ReasoningLatent, tmp_path: Path
) -> None:
    source, grid = artist.encode(pictures), artist.grid(pictures)
    arguments = (torch.ones_like(source), source, torch.full((3,), 0.5), latent, grid)
    plain = artist.velocity(*arguments)
    artist.add_adapter(LoraSettings(rank=2, alpha=4), seed=1)
    assert torch.equal(artist.velocity(*arguments), plain)
    for index, parameter in enumerate(adapter_tensors(artist.transformer).values()):
        torch.nn.init.normal_(parameter, generator=torch.Generator().manual_seed(index))
    trained = artist.velocity(*arguments)
    assert (trained - plain).abs().max() > 1e-3
    artist.save_adapter(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} >= {"adapter_config.json", "adapter_model.safetensors"}
    loaded = Artist.load(base / "artist", tmp_path)
    assert torch.equal(loaded.velocity(*arguments), trained)
    assert not any(p.requires_grad for p in loaded.transformer.parameters())
    trainable = Artist.load(base / "artist", tmp_path, trainable=True)
    assert all(p.requires_grad for p in adapter_tensors(trainable.transformer).values())
