"""A global correction of eight numbers: what the Critic's vision tower learns to guess before it learns to speak.

The error of the corrected picture is a loss on the final colour, so that what matters to the eye weighs, and sign and
size of a fault need no names. The numbers are thrown away with the head that gives them; what stays is a tower that
sees what is wrong.
"""

import torch
from torch import Tensor

from components.photometry.colour import linear_to_srgb, srgb_to_lab, srgb_to_linear

NUMBERS = 8
"""Log gains of red, green and blue in linear light, log gamma, log slope of L*, its pivot, log chroma, lift of L*."""
_SOFTENING = 0.5


def correct(pictures: Tensor, numbers: Tensor) -> Tensor:
    """Correct pictures, each by its own numbers; zeros leave it as it is.

    Args:
        pictures: (B, 3, H, W) sRGB in [0, 1].
        numbers: (B, 8), of about unit size.

    Returns:
        CIELAB (B, 3, H, W); lightness is held within its range but for a twentieth of what is beyond.
    """
    gains, gamma, slope, pivot, chroma, lift = numbers[:, :, None, None].split([3, 1, 1, 1, 1, 1], dim=1)
    encoded = linear_to_srgb((srgb_to_linear(pictures) * gains.exp()).clamp(1e-5, 4))
    lab = srgb_to_lab(encoded.clamp(1e-3, 1.5) ** gamma.exp())
    middle = 50 + 15 * pivot
    lightness = (lab[:, :1] - middle) * slope.exp() + middle + 10 * lift
    return _within_gamut(lightness, lab[:, 1:] * chroma.exp())


def _within_gamut(lightness: Tensor, colour: Tensor) -> Tensor:
    """Held within 0 and 100 in lightness, with a little of the gradient left beyond."""
    held = lightness.clamp(0, 100)
    return torch.cat([held + 0.05 * (lightness - held), colour], dim=1)


def lab_error(lab: Tensor, truth_lab: Tensor) -> Tensor:
    """Mean colour error (B) in about CIE94 units: chroma and hue count less where the colour is vivid.

    Source: CIE 116-1995 with one weight for chroma and hue, smoothed at zero so that its gradient is finite.
    """
    chroma = truth_lab[:, 1:].square().sum(1).sqrt()
    weight = 1 / (1 + 0.03 * chroma)
    difference = lab - truth_lab
    squared = difference[:, 0].square() + (difference[:, 1:].square().sum(1)) * weight.square()
    return ((squared + _SOFTENING).sqrt() - _SOFTENING**0.5).mean((1, 2))
