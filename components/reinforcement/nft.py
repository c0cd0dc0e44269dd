"""DiffusionNFT: reinforcement of a flow model in its forward process (Zheng et al. 2025).

No likelihoods and no trajectories: a finished edit and its reward suffice. Around the rollout policy's prediction an
implicit positive and a negative policy are formed, and the edit's reward says how much of each to regress on.
"""

from collections.abc import Mapping
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from components.strict import Strict

WEIGHT_FLOOR = 1e-5


class NftSettings(Strict):
    """The loss of DiffusionNFT; the defaults are reported as a starting point.

    `old` follows the current adapter by old <- d old + (1 - d) current with d = min(decay_rate * update, decay_cap).
    """

    beta: float = Field(default=1.0, gt=0, description="How far the implicit policies lie from the rollout policy.")
    clip: float = Field(default=5.0, gt=0, description="Advantages are clipped to [-clip, clip].")
    kl: float = Field(
        default=1e-4,
        ge=0,
        description="Weight of the squared distance to the reference policy's prediction; 0 skips its forward pass.",
    )
    timesteps: int = Field(default=2, gt=0, description="Noise levels at which the Artist trains on every edit.")
    levels: Literal["distribution", "sampler"] = Field(
        default="distribution",
        description='Where they come from. "distribution": drawn from all that an Euler run can visit; "sampler": '
        "those of the rollouts' own steps, each at most once for an edit, as Edit-R1 has it.",
    )
    decay_rate: float = Field(
        default=0.001, ge=0, description="Growth per update of the decay with which `old` follows."
    )
    decay_cap: float = Field(default=0.5, ge=0, lt=1, description="Highest decay with which `old` follows.")


def optimality(advantages_B: Tensor, clip: float) -> Tensor:
    """r (B,) in [0, 1]: the probability that an edit counts as good, clip(A, -c, c) / (2 c) + 1/2."""
    return advantages_B.clamp(-clip, clip) / (2 * clip) + 0.5


def nft_loss(
    velocity: Tensor,
    old_velocity: Tensor,
    noisy: Tensor,
    clean: Tensor,
    sigma_B: Tensor,
    advantages_B: Tensor,
    settings: NftSettings,
) -> Tensor:
    """The DiffusionNFT loss (B,) without the divergence term.

    v+ = b v + (1 - b) v_old and v- = (1 + b) v_old - b v; both predict the clean latents as x_t - t v; the loss is
    c [r |x0+ - x0|^2 / w+ + (1 - r) |x0- - x0|^2 / w-] / b with w the detached mean absolute error, floored at 1e-5.

    Args:
        velocity: (B, S, C) prediction of the policy being trained.
        old_velocity: (B, S, C) prediction of the policy that made the edits; no gradient flows into it.
        noisy: (B, S, C) x_t = (1 - t) x0 + t e.
        clean: (B, S, C) x0, the latents of the finished edits.
        sigma_B: t.
        advantages_B: group-normalised.
    """
    beta, old_velocity = settings.beta, old_velocity.detach()
    sigma = sigma_B.view(-1, 1, 1)
    r = optimality(advantages_B, settings.clip)
    positive = noisy - sigma * (beta * velocity + (1 - beta) * old_velocity)
    negative = noisy - sigma * ((1 + beta) * old_velocity - beta * velocity)
    loss = r * _weighted_error(positive, clean) + (1 - r) * _weighted_error(negative, clean)
    return settings.clip * loss / beta


def reference_divergence(velocity: Tensor, reference_velocity: Tensor) -> Tensor:
    """Mean squared distance (B,) of the prediction to the reference policy's."""
    return (velocity - reference_velocity.detach()).square().flatten(1).mean(dim=1)


def old_decay(update: int, settings: NftSettings) -> float:
    """d of the update with this 1-based number: ramped, then capped."""
    return min(settings.decay_rate * update, settings.decay_cap)


@torch.no_grad()
def follow(old: Mapping[str, Tensor], current: Mapping[str, Tensor], decay: float) -> None:
    """old <- d old + (1 - d) current, in place, for tensors of the same names."""
    for name, tensor in old.items():
        tensor.lerp_(current[name].to(tensor.dtype), 1 - decay)


def _weighted_error(prediction: Tensor, clean: Tensor) -> Tensor:
    error = prediction - clean
    weight = error.detach().abs().flatten(1).mean(dim=1).clamp(min=WEIGHT_FLOOR)
    return error.square().flatten(1).mean(dim=1) / weight
