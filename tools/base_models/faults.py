"""Faults for the base models' training: batches of small pictures spoilt in two ways, or left as they are.

Half of the faulty pictures have the project's own faults (`components.data.faults`, made by the same kernel that makes
the pairs), down to amounts that can hardly be seen. The other half have those that an editor or a camera makes: the
same sliders in the gamma-encoded values, curves for each channel, white balance in linear light, lifted blacks. A model
that has seen one family only takes its marks for the faults.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from components.data.faults import SEVERITY, sample_amounts
from components.photometry.adjustments import adjust
from components.photometry.colour import linear_to_srgb, srgb_to_lab, srgb_to_linear
from components.photometry.operations import TONE

LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, by which editors make a picture grey
_MILDEST = 0.25
"""Share of the just visible amount that the mildest of the project's own faults has."""


class Spoilt(NamedTuple):
    """Pictures (B, 3, H, W) in [0, 1], rounded to eight bits as files are, and which of them (B) have a fault."""

    pictures: Tensor
    faulty: Tensor


def spoil(intact: Tensor, generator: torch.Generator, intact_share: float = 0.25) -> Spoilt:
    """Spoil pictures, each in its own way.

    Args:
        intact: (B, 3, H, W) sRGB in [0, 1].
        generator: source of all randomness.
        intact_share: probability that a picture is left as it is.
    """
    count = len(intact)
    kind = torch.rand(count, generator=generator)
    own, edited = kind < (1 - intact_share) / 2, (kind >= (1 - intact_share) / 2) & (kind < 1 - intact_share)
    pictures = intact.clone()
    if own.any():
        pictures[own] = _own_faults(intact[own], generator)
    if edited.any():
        pictures[edited] = edit_badly(intact[edited], generator)
    return Spoilt((pictures * 255).round() / 255, own | edited)


def _own_faults(pictures: Tensor, generator: torch.Generator) -> Tensor:
    """One to three of the tone faults, from hardly visible to severe."""
    amounts = sample_amounts(len(pictures), generator)
    low = torch.tensor([SEVERITY[name][0] for name in TONE])
    high = torch.tensor([SEVERITY[name][1] for name in TONE])
    lowest = _MILDEST * low
    share = (amounts.abs() - low) / (high - low)
    amounts = torch.where(amounts == 0, amounts, amounts.sign() * (lowest + share * (high - lowest)))
    return with_amounts(pictures, amounts)


def with_amounts(pictures: Tensor, amounts: Tensor) -> Tensor:
    """Pictures (B, 3, H, W) with the tone faults whose amounts (B, 4) are in the order of `TONE`; 0 is none."""
    made = []
    for picture, row in zip(pictures, amounts.tolist(), strict=True):
        faults = [(name, amount) for name, amount in zip(TONE, row, strict=True) if amount]
        made.append(adjust(picture, faults, clamp=True))
    return torch.stack(made)


def edit_badly(pictures: Tensor, generator: torch.Generator) -> Tensor:
    """One to three of six mistakes that a person makes with an editor's sliders, or a camera by itself.

    Brightness and contrast of the encoded values, saturation as a blend with grey, curves (a gamma for all channels and
    a little for each), white balance as gains in linear light, and blacks that are lifted or crushed.

    Args:
        pictures: (B, 3, H, W) sRGB in [0, 1].

    Returns:
        (B, 3, H, W) in [0, 1].
    """
    count = len(pictures)

    def uniform(low: float, high: float, channels: int = 1) -> Tensor:
        return low + (high - low) * torch.rand(count, channels, 1, 1, generator=generator)

    def either(low: float, high: float, channels: int = 1) -> Tensor:
        sign = torch.randint(0, 2, (count, channels, 1, 1), generator=generator) * 2.0 - 1.0
        return sign * uniform(low, high, channels)

    order = torch.rand(count, 6, generator=generator).argsort(dim=1).argsort(dim=1)
    number = torch.randint(1, 4, (count, 1), generator=generator)
    chosen = (order < number)[:, :, None, None, None]
    steps = [
        _white_balance(pictures, either(0.03, 0.3), uniform(-0.06, 0.06)),
        either(0.05, 0.45),
        either(0.08, 0.5),
        either(0.1, 0.7),
        either(0.08, 0.6),
        either(0.02, 0.15),
    ]
    luma = pictures.new_tensor(LUMA).view(1, 3, 1, 1)
    x = torch.where(chosen[:, 0], steps[0], pictures)
    x = torch.where(chosen[:, 1], (x * (1 + steps[1])).clamp(0, 1), x)
    mean = (x * luma).sum(1, keepdim=True).mean((2, 3), keepdim=True)
    x = torch.where(chosen[:, 2], (mean + (x - mean) * (1 + steps[2])).clamp(0, 1), x)
    grey = (x * luma).sum(1, keepdim=True)
    x = torch.where(chosen[:, 3], (grey + (x - grey) * (1 + steps[3])).clamp(0, 1), x)
    gamma = (steps[4] + 0.15 * torch.randn(count, 3, 1, 1, generator=generator)).exp()
    x = torch.where(chosen[:, 4], x.clamp(1e-4, 1) ** gamma, x)
    black = steps[5]
    return torch.where(chosen[:, 5], (black + (1 - black) * x).clamp(0, 1), x)


def nearest_amounts(pictures: Tensor, intact: Tensor, rounds: int = 4) -> Tensor:
    """The amounts of the four tone faults that come nearest to what was done to a picture, whoever did it.

    Gauss-Newton on the CIELAB colours of some of the pixels, one picture at a time; held within the severest faults.

    Args:
        pictures, intact: (B, 3, H, W) sRGB in [0, 1], with and without the fault.

    Returns:
        (B, 4) in the order of `TONE`, as `components.data.faults.sample_amounts` gives them.
    """
    limits = torch.tensor([1.2 * SEVERITY[name][1] for name in TONE])
    steps = 0.02 * limits
    found = []
    for picture, original in zip(pictures, intact, strict=True):
        every = max(1, min(picture.shape[-2:]) // 16)
        goal = srgb_to_lab(picture[:, ::every, ::every]).flatten()
        small = original[:, ::every, ::every].contiguous()

        def made(amounts: Tensor, small: Tensor = small) -> Tensor:
            return srgb_to_lab(adjust(small, list(zip(TONE, amounts.tolist(), strict=True)), clamp=True)).flatten()

        amounts = torch.zeros(len(TONE))
        for _ in range(rounds):
            present = made(amounts)
            slopes = torch.stack([(made(amounts + step) - present) / step.sum() for step in steps.diag()], dim=1)
            damped = slopes.T @ slopes + torch.diag(1e-3 * slopes.square().sum(0) + 1e-6)
            amounts = (amounts + torch.linalg.solve(damped, slopes.T @ (goal - present))).clamp(-limits, limits)
        found.append(amounts)
    return torch.stack(found)


def _white_balance(pictures: Tensor, warmth: Tensor, green: Tensor) -> Tensor:
    """Gains of red and blue against each other, and of green, in linear light: (B, 1, 1, 1) each."""
    gains = torch.cat([1 + warmth, 1 + green, 1 - warmth], dim=1)
    return linear_to_srgb((srgb_to_linear(pictures) * gains).clamp(0, 1))


def log_error(distance: Tensor) -> Tensor:
    """log(1 + dE): what a model is asked to expect of a picture's colour error."""
    return torch.log1p(distance)


def error_of(logarithm: Tensor) -> Tensor:
    """The inverse of `log_error`, at least 0."""
    return torch.expm1(logarithm.clamp(0, math.log(101)))
