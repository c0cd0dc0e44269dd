"""Draw edits from the Artist: Euler integration of the learnt flow from noise to picture, without a negative pass."""

from functools import partial
from itertools import pairwise

import torch
from torch import Tensor

from components.models.artist import Artist, Grid
from components.models.critic import ReasoningLatent
from components.models.flow import inference_sigmas
from components.parallel.ranks import Share, everything
from components.parallel.sharding import in_step, slices


@torch.no_grad()
def sample_latents(
    artist: Artist,
    source_BRC: Tensor,
    latent: ReasoningLatent,
    grid: Grid,
    steps: int,
    generator: torch.Generator,
    at_once: int | None = None,
    share: Share | None = None,
) -> Tensor:
    """Clean latents (B, S, C) of one edit for each source; noise is drawn with `generator` on the CPU.

    Args:
        at_once: edits that are drawn together, None for all. All noise is drawn first, so that their number says only
            how much memory it takes, and not what comes out.
        share: which rows of a larger batch the sources are, where ranks have divided one; each row meets its own noise.
    """
    share = share or everything(len(source_BRC))
    noise = share.of(torch.randn(share.total, grid.tokens, source_BRC.shape[-1], generator=generator)).to(source_BRC)
    parts = [
        partial(integrate, artist, noise[rows], source_BRC[rows], latent[rows], grid, steps)
        for rows in slices(len(noise), at_once)
    ]
    return torch.cat([part() for part in in_step(artist.transformer, parts)][: len(parts)])


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
    artist: Artist,
    sources_B3HW: Tensor,
    latent: ReasoningLatent,
    steps: int,
    generator: torch.Generator,
    at_once: int | None = None,
    share: Share | None = None,
) -> Tensor:
    """One edited picture (B, 3, H, W) in [0, 1] for each source at the Artist's working size.

    Args:
        sources_B3HW: photos in [0, 1]; height and width in whole tokens (`artist.working_size`).
        latent: the Critic's H_c for every source.
        steps: Euler steps; 20 in production.
        generator: of the initial noise.
        at_once: pictures that are encoded, drawn and decoded together, None for all; this only limits memory.
        share: as for `sample_latents`.
    """
    grid = artist.grid(sources_B3HW)
    sources = torch.cat([artist.encode(sources_B3HW[rows]) for rows in slices(len(sources_B3HW), at_once)])
    latents = sample_latents(artist, sources, latent, grid, steps, generator, at_once, share)
    return decode_latents(artist, latents, grid, at_once)


def decode_latents(artist: Artist, latents_BSC: Tensor, grid: Grid, at_once: int | None = None) -> Tensor:
    """Pictures (B, 3, H, W) in [0, 1] of clean latents, `at_once` at a time (None: all)."""
    return torch.cat([artist.decode(latents_BSC[rows], grid) for rows in slices(len(latents_BSC), at_once)])
