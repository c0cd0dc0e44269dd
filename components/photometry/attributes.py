"""Measured photographic attributes: exposure, contrast, chroma and colour temperature of a photo.

They are the other half of ``adjustments``: each adjustment moves its own attribute by its amount where nothing clips.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from components.photometry.colour import (
    linear_to_xyz,
    luminance,
    rgb_to_xyz_matrix,
    srgb_to_linear,
    xy_to_mired,
    xyz_to_lab,
    xyz_to_xy,
)

MID_GREY = 0.18
LUMINANCE_FLOOR = 0.5 / 255 / 12.92
"""Linear light of half an 8-bit code value: darker pixels count as this dark in the logarithmic average."""
SPREAD_FLOOR = 0.1
"""Smallest contrast and chroma told apart, CIELAB units: well under one 8-bit code value."""


class Attributes(NamedTuple):
    """What a photo, or each photo of a batch, measures. Every field is a tensor of the image's leading shape (...)."""

    exposure: Tensor
    """Log-average luminance in EV relative to mid-grey (18% of white): log2(exp(mean(ln Y)) / 0.18)."""
    contrast: Tensor
    """Standard deviation of CIELAB L* over the picture, 0 to 50."""
    chroma: Tensor
    """Mean CIELAB C*ab over the picture."""
    temperature: Tensor
    """Correlated colour temperature, in mired (40 to 600), of the grey-world white: the mean of linear light."""


def measure(image: Tensor) -> Attributes:
    """Measure the photographic attributes of an image, differentiably.

    Args:
        image: (..., 3, H, W) sRGB, nominally [0, 1].

    Returns:
        Attributes with tensors of shape (...). A black picture measures its floor and the temperature of D65.

    Raises:
        ValueError: when the image has no channel axis of 3 or no pixels.

    Source: the logarithmic average is Reinhard et al. (2002), equation 1; the grey world is Buchsbaum (1980).
    """
    check_image(image)
    linear_image = srgb_to_linear(image)
    lab_image = xyz_to_lab(linear_to_xyz(linear_image))
    exposure = (luminance(linear_image).clamp(min=LUMINANCE_FLOOR).log2()).mean((-2, -1))
    lightness, a, b = lab_image.unbind(-3)
    variance = lightness.var((-2, -1), correction=0)
    grey_world = linear_image.mean((-2, -1)) @ rgb_to_xyz_matrix().to(image).T
    return Attributes(
        exposure=exposure - torch.log2(torch.tensor(MID_GREY)).to(image),
        contrast=variance.clamp(min=1e-10).sqrt(),
        chroma=(a * a + b * b).clamp(min=1e-10).sqrt().mean((-2, -1)),
        temperature=xy_to_mired(xyz_to_xy(grey_world)),
    )


def difference(before: Tensor | Attributes, after: Tensor | Attributes) -> dict[str, Tensor]:
    """How far each attribute moved, in the units of ``Operation.amount``.

    ``difference(x, adjust(x, [("exposure", 0.5)]))["exposure"]`` is 0.5 where nothing clips, and so for each tone
    operation.

    Args:
        before, after: images (..., 3, H, W), or what :func:`measure` returned for them.

    Returns:
        ``exposure`` in EV, ``contrast`` and ``saturation`` as log2 of the ratio, ``temperature`` in mired (positive:
        warmer); tensors of shape (...). Contrast and chroma below :data:`SPREAD_FLOOR` count as that floor.
    """
    before = before if isinstance(before, Attributes) else measure(before)
    after = after if isinstance(after, Attributes) else measure(after)
    return {
        "exposure": after.exposure - before.exposure,
        "contrast": _log2_ratio(before.contrast, after.contrast),
        "saturation": _log2_ratio(before.chroma, after.chroma),
        "temperature": after.temperature - before.temperature,
    }


def check_image(image: Tensor) -> None:
    """Raise ValueError unless ``image`` is a floating-point tensor (..., 3, H, W) with at least one pixel."""
    if not image.is_floating_point() or image.ndim < 3 or image.shape[-3] != 3 or 0 in image.shape[-2:]:
        raise ValueError(
            f"expected a floating-point sRGB image of shape (..., 3, H, W), found {image.dtype} of shape "
            f"{tuple(image.shape)}; convert it with components.imaging.photo or permute the channels first"
        )


def _log2_ratio(before: Tensor, after: Tensor) -> Tensor:
    return torch.log2(after.clamp(min=SPREAD_FLOOR) / before.clamp(min=SPREAD_FLOOR))
