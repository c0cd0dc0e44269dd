"""Sampling against diffusers' own editing pipeline on the same noise, source and conditioning."""

import numpy as np
import pytest
import torch
from diffusers import QwenImageEditPlusPipeline
from diffusers.pipelines.qwenimage import pipeline_qwenimage_edit_plus
from PIL import Image

from components.imaging.photo import quantize
from components.models.artist import Artist
from components.models.critic import ReasoningLatent
from components.models.sampling import integrate, sample_edits, sample_latents
from tests.conftest import make_photo


@pytest.mark.parametrize("steps", [3, 20])
def test_edits_are_those_of_the_published_pipeline(
    artist: Artist, latent: ReasoningLatent, monkeypatch: pytest.MonkeyPatch, steps: int
) -> None:
    height, width = 32, 64
    monkeypatch.setattr(pipeline_qwenimage_edit_plus, "VAE_IMAGE_SIZE", height * width)
    monkeypatch.setattr(pipeline_qwenimage_edit_plus, "CONDITION_IMAGE_SIZE", height * width)
    source = quantize(make_photo(height, width))
    grid = artist.grid(source)
    noise = torch.randn(1, grid.tokens, 32, generator=torch.Generator().manual_seed(7))
    pipeline = QwenImageEditPlusPipeline(artist.scheduler, artist.vae, None, None, None, artist.transformer)
    pipeline.set_progress_bar_config(disable=True)
    expected = pipeline(
        image=Image.fromarray((source * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()),
        prompt_embeds=latent.states_BLD[:1],
        prompt_embeds_mask=latent.mask_BL[:1].long(),
        height=height,
        width=width,
        latents=noise,
        num_inference_steps=steps,
        sigmas=np.linspace(1.0, 0.0, steps + 1)[:-1],
        true_cfg_scale=1.0,
        output_type="pt",
    ).images
    edits = sample_edits(artist, source[None], latent[:1], steps, torch.Generator().manual_seed(7))
    torch.testing.assert_close(edits, expected, atol=1e-5, rtol=1e-4)
    assert (edits - source).abs().max() > 0.01


def test_a_batch_of_edits_equals_each_alone(artist: Artist, latent: ReasoningLatent) -> None:
    sources = torch.stack([make_photo(24, 40, seed=seed) for seed in range(3)])
    encoded, grid = artist.encode(sources), artist.grid(sources)
    noise = torch.randn(encoded.shape, generator=torch.Generator().manual_seed(0))
    together = integrate(artist, noise, encoded, latent, grid, 4)
    for i in range(3):
        row = slice(i, i + 1)
        alone = integrate(artist, noise[row], encoded[row], latent[row], grid, 4)
        torch.testing.assert_close(together[row], alone, atol=1e-5, rtol=1e-5)


def test_a_straight_flow_is_followed_exactly(artist: Artist, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the true velocity of one straight path, any number of steps ends at its picture."""
    generator = torch.Generator().manual_seed(0)
    clean, noise = torch.randn(2, 15, 32, generator=generator), torch.randn(2, 15, 32, generator=generator)
    monkeypatch.setattr(Artist, "velocity", lambda *arguments: noise - clean)
    for steps in (1, 2, 7):
        found = integrate(artist, noise, clean, None, artist.grid(torch.zeros(3, 24, 40)), steps)
        torch.testing.assert_close(found, clean, atol=1e-5, rtol=1e-5)


def test_noise_comes_from_the_generator_alone(artist: Artist, latent: ReasoningLatent) -> None:
    sources = torch.stack([make_photo(24, 40)] * 3)
    encoded, grid = artist.encode(sources), artist.grid(sources)

    def draw(seed: int) -> torch.Tensor:
        return sample_latents(artist, encoded, latent, grid, 2, torch.Generator().manual_seed(seed))

    before = torch.get_rng_state()
    first = draw(0)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(draw(0), first) and not torch.equal(draw(1), first)
    assert not torch.equal(first[0], first[1])
    assert not first.requires_grad
