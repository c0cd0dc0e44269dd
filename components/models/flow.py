"""Rectified flow (Liu et al. 2022; Lipman et al. 2022): the schedule of noise levels and the training loss.

x_t = (1 - t) x0 + t e runs from the picture (t = 0) to noise (t = 1); the network predicts dx/dt = e - x0. Levels are
shifted towards noise by the length of the sequence, at inference and in training alike, or the two disagree.
"""

import torch
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler
from torch import Tensor


def shift_exponent(scheduler: FlowMatchEulerDiscreteScheduler, tokens: int) -> float:
    """mu of the exponential time shift: linear in the number of target tokens between the two configured lengths."""
    config = scheduler.config
    slope = (config.max_shift - config.base_shift) / (config.max_image_seq_len - config.base_image_seq_len)
    return config.base_shift + slope * (tokens - config.base_image_seq_len)


def inference_sigmas(scheduler: FlowMatchEulerDiscreteScheduler, steps: int, tokens: int) -> Tensor:
    """Noise levels (steps + 1,) of an Euler run, from about 1 down to exactly 0."""
    if steps == 1:
        return torch.tensor([1.0, 0.0])  # with nothing between that could be shifted, stretching would divide 0 by 0
    ramp = torch.linspace(1.0, 0.0, steps + 1)[:-1]
    scheduler.set_timesteps(sigmas=ramp.tolist(), mu=shift_exponent(scheduler, tokens))
    return scheduler.sigmas.clone()


def training_sigmas(
    scheduler: FlowMatchEulerDiscreteScheduler, count: int, tokens: int, generator: torch.Generator
) -> Tensor:
    """Noise levels (count,) drawn from the shifted distribution that an Euler run visits."""
    uniform = torch.rand(count, generator=generator).clamp(min=1e-4)
    shifted = scheduler.time_shift(shift_exponent(scheduler, tokens), 1.0, uniform)
    terminal = scheduler.config.shift_terminal
    if not terminal:
        return shifted
    # stretched as `stretch_shift_to_terminal` does to a schedule whose last level comes from the ramp's end, 1 / 1000
    lowest = scheduler.time_shift(shift_exponent(scheduler, tokens), 1.0, torch.tensor(1e-3))
    return (1 - (1 - shifted) * (1 - terminal) / (1 - lowest)).clamp(min=terminal, max=1.0)


def interpolate(clean: Tensor, noise: Tensor, sigma_B: Tensor) -> Tensor:
    """x_t = (1 - t) x0 + t e for pictures (B, S, C) and levels (B,)."""
    sigma = sigma_B.view(-1, *[1] * (clean.ndim - 1))
    return (1 - sigma) * clean + sigma * noise


def flow_matching_loss(velocity: Tensor, clean: Tensor, noise: Tensor) -> Tensor:
    """Mean squared error (B,) of the predicted velocity against e - x0."""
    return (velocity - (noise - clean)).square().flatten(1).mean(dim=1)
