"""Shallow depth of field: a sharp subject before a background blurred as a wide aperture would."""

import math

import torch
from torch import Tensor

from components.photometry.attributes import check_image
from components.photometry.colour import linear_to_srgb, srgb_to_linear
from components.photometry.degradations import convolve, disc_kernel

BLUR_LEVELS = 4
"""Disc blurs between sharp and full radius; the blur of each pixel is interpolated between neighbours."""
_EDGE = 0.01  # radius that softens the subject's outline, as a fraction of the short side
_RAMP = 0.08  # distance over which the background goes out of focus, as a fraction of the short side


def bokeh(image: Tensor, radius: float, foreground: Tensor) -> Tensor:
    """Blur the background by discs that grow with the distance from the subject, in linear light.

    Each level is a convolution normalised by how much background it gathered, so the subject does not bleed into
    the background around it; the subject itself is composited back over a softened outline.

    Args:
        image: (..., 3, H, W) sRGB in [0, 1].
        radius: radius of the largest disc as a fraction of the short side; 0 changes nothing.
        foreground: subject mask (..., H, W) or (H, W) in [0, 1], 1 where sharp.

    Returns:
        (..., 3, H, W) sRGB in [0, 1].

    Raises:
        ValueError: when the mask's size is not the picture's.
    """
    check_image(image)
    if foreground.shape[-2:] != image.shape[-2:]:
        raise ValueError(
            f"expected a foreground mask of {tuple(image.shape[-2:])}, found {tuple(foreground.shape[-2:])}; "
            "resize it first"
        )
    short_side = min(image.shape[-2:])
    mask = foreground.to(image).double().clamp(0, 1).unsqueeze(-3)  # small weights are divided by: float64
    alpha = convolve(mask, disc_kernel(_EDGE * short_side)).clamp(0, 1)
    defocus = (1 - 2 * convolve(mask, disc_kernel(_RAMP * short_side))).clamp(0, 1)  # 0 at a straight outline

    sharp = srgb_to_linear(image).double()
    # The outline's inner half is subject: it must not count as background. A trace keeps all-subject areas defined.
    background_weight = (1 - 2 * alpha).clamp(min=1e-4)
    background = torch.zeros_like(sharp)
    for level in range(BLUR_LEVELS + 1):
        share = (1 - (defocus * BLUR_LEVELS - level).abs()).clamp(min=0)  # linear interpolation between levels
        kernel = disc_kernel(radius * short_side * level / BLUR_LEVELS)
        gathered = convolve(sharp * background_weight, kernel) / convolve(background_weight, kernel).clamp(min=1e-5)
        background = background + share * gathered
    composite = (alpha * sharp + (1 - alpha) * background).clamp(0, 1)
    return linear_to_srgb(composite.to(image.dtype)).clamp(0, 1)


def elliptic_foreground(height: int, width: int, generator: torch.Generator) -> Tensor:
    """A plausible subject where no mask is known: an upright or leaning ellipse near the centre, with a soft edge.

    Photographers put subjects near the centre and fill a fifth to half of the short side with them. Position, size,
    shape and lean come from the generator and are relative, so one seed gives the same subject at every size.

    Args:
        height, width: size of the mask in pixels.
        generator: draws the ellipse.

    Returns:
        (H, W) float64 mask in [0, 1], 1 inside the subject.
    """
    draws = torch.rand(5, generator=generator, dtype=torch.float64)
    short_side = min(height, width)
    centre_y, centre_x = (0.5 + 0.2 * (draws[0] - 0.5)) * height, (0.5 + 0.3 * (draws[1] - 0.5)) * width
    tall, wide = (0.25 + 0.2 * draws[2]) * short_side, (0.18 + 0.17 * draws[3]) * short_side
    lean = (draws[4] - 0.5) * math.pi / 3
    y = torch.arange(height, dtype=torch.float64)[:, None] + 0.5 - centre_y
    x = torch.arange(width, dtype=torch.float64)[None, :] + 0.5 - centre_x
    along = (torch.cos(lean) * y + torch.sin(lean) * x) / tall
    across = (torch.cos(lean) * x - torch.sin(lean) * y) / wide
    ramp = ((1.1 - torch.hypot(along, across)) / 0.2).clamp(0, 1)
    return ramp * ramp * (3 - 2 * ramp)
