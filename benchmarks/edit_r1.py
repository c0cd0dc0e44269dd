"""Edit-R1's loss phase restated, as the peer of stage III's in `python -m benchmarks.training nft`.

After scripts/train_nft_qwen_image_edit.py of PKU-YuanGroup/Edit-R1 at 244883c (DiffusionNFT, arXiv:2509.16117, applied
to image editing in UniWorld-V2, arXiv:2510.16888). What its loop does, and this one does too:

- it trains on every edit of the round; groups that its filter finds too alike only have their loss multiplied by 0;
- at each noise level it predicts three times: with `old`, with the trained adapter, with the reference;
- it does so while `old` equals the trained adapter as well, and whatever the divergence weighs;
- it always computes activations again in the backward pass (`enable_gradient_checkpointing`).

Where it departs, so that both loops are given the same problem: edits, advantages, noise and levels are handed over;
losses are averaged over all unmasked edits of the update (the script averages within each micro-batch, and then over
micro-batches, so that an edit among masked ones weighs more); the reference is the adapter that reinforcement started
from (the script switches adapters off); it runs in the precision of the model, without autocast.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from diffusers import QwenImageTransformer2DModel
from torch import Tensor, nn

from components.models.artist import Artist
from components.models.lora import active_adapter
from components.reinforcement.nft import NftSettings
from components.reinforcement.rollouts import ArtistExperience


class LossPass(NamedTuple):
    """One micro-batch at one noise level for each of its edits."""

    rows: Tensor  # (b,) of the experience
    noise_bSC: Tensor
    sigmas_b: Tensor
    kl: float  # weight of the divergence


class LossWork:
    """Forward-equivalents of the transformer: samples times 1 for a pass, 2 for its backward, 1 for computing again."""

    def __init__(self) -> None:
        self.equivalents = 0


def edit_r1_gradients(
    artist: Artist,
    edits: ArtistExperience,
    advantages_B: Tensor,
    valid_B: Tensor,
    passes: Sequence[LossPass],
    settings: NftSettings,
) -> None:
    """Add the gradients of one update to those of the trained adapter.

    Args:
        edits: B edits, with adapters `old` and `reference` on the artist.
        valid_B: False where the filter masks an edit.
        passes: cover the edits, masked ones included, as often as there are noise levels for each.
    """
    total = sum(float(valid_B[one.rows].sum()) for one in passes)
    for one in passes:
        clean, source, latent = edits.clean_BSC[one.rows], edits.source_BRC[one.rows], edits.latent[one.rows]
        t = one.sigmas_b.view(-1, 1, 1)
        noisy = (1 - t) * clean + t * one.noise_bSC
        arguments = (noisy, source, one.sigmas_b, latent, edits.grid)
        with torch.no_grad(), active_adapter(artist.transformer, "old"):
            old = artist.velocity(*arguments)
        current = artist.velocity(*arguments)
        with torch.no_grad(), active_adapter(artist.transformer, "reference"):
            reference = artist.velocity(*arguments)
        r = advantages_B[one.rows].clamp(-settings.clip, settings.clip) / settings.clip / 2 + 0.5
        mixtures = (settings.beta, 1 - settings.beta), (-settings.beta, 1 + settings.beta)
        positive, negative = (_distance(noisy - t * (a * current + b * old), clean) for a, b in mixtures)
        policy = (r * positive + (1 - r) * negative) * settings.clip / settings.beta
        divergence = (current - reference).square().mean(dim=(1, 2))
        ((policy + one.kl * divergence) * valid_B[one.rows]).sum().div(total).backward()


def _distance(prediction: Tensor, clean: Tensor) -> Tensor:
    """Mean squared error (b,) over the mean absolute one, which is taken in float64 and not differentiated through."""
    with torch.no_grad():
        weight = (prediction.double() - clean.double()).abs().mean(dim=(1, 2), keepdim=True).clip(min=1e-5)
    return ((prediction - clean) ** 2 / weight).mean(dim=(1, 2))


@contextmanager
def counting(transformer: nn.Module) -> Iterator[LossWork]:
    """Count what passes through the Artist's transformer, PEFT wrapper or not."""
    (model,) = (module for module in transformer.modules() if isinstance(module, QwenImageTransformer2DModel))
    work = LossWork()

    def count(module: nn.Module, arguments: tuple, named: Mapping[str, Any]) -> None:
        backward = 2 + model.gradient_checkpointing if torch.is_grad_enabled() else 0
        work.equivalents += len(named["hidden_states"]) * (1 + backward)

    handle = model.register_forward_pre_hook(count, with_kwargs=True)
    try:
        yield work
    finally:
        handle.remove()
