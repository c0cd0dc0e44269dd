"""Draw edits from the Artist: Euler integration of the learnt flow from noise to picture, without a negative pass."""

from itertools import pairwise

import torch
from torch import Tensor

from components.artist.flow import inference_sigmas
from components.artist.model import Artist, Grid
from components.critic.model import ReasoningLatent


@torch.no_grad()
def sample_latents(
    artist: Artist, source_BRC: Tensor, latent: ReasoningLatent, grid: Grid, steps: int, generator: torch.Generator
) -> Tensor:
    """Clean latents (B, S, C) of one edit for each source; noise is drawn with `generator` on the CPU."""
    noise = torch.randn(len(source_BRC), grid.tokens, source_BRC.shape[-1], generator=generator).to(source_BRC)
    return integrate(artist, noise, source_BRC, latent, grid, steps)


@torch.no_grad()
def integrate(
    artist: Artist, noise_BSC: Tensor, source_BRC: Tensor, latent: ReasoningLatent, grid: Grid, steps: int
) -> Tensor:
    """Clean latents (B, S, C) that the flow carries the given noise to."""
    state = noise_BSC
    sigmas = inference_sigmas(artist.scheduler, steps, grid.tokens).to(state)
    for now, after in pairwise(sigmas):
        state = state + (after - now) * artist.velocity(state, source_BRC, now.expand(len(state)), latent, grid)
    return state


@torch.no_grad()
def sample_edits(
    artist: Artist, sources_B3HW: Tensor, latent: ReasoningLatent, steps: int, generator: torch.Generator
) -> Tensor:
    """One edited picture (B, 3, H, W) in [0, 1] for each source at the Artist's working size.

    Args:
        sources_B3HW: photos in [0, 1]; height and width in whole tokens (`artist.working_size`).
        latent: the Critic's H_c for every source.
        steps: Euler steps; 20 in production.
        generator: of the initial noise.
    """
    grid = artist.grid(sources_B3HW)
    latents = sample_latents(artist, artist.encode(sources_B3HW), latent, grid, steps, generator)
    return artist.decode(latents, grid)
