"""Compositing: put the cut-out of a subject in front of a photo, as rendered depth-of-field pairs are made.

With the background known behind the subject, depth of field is exact: blur the background first, then put the subject
before it (`defocus_blur` and then `subject`, as operations).
"""

import torch
from torch import Tensor
from torch.nn import functional

from components.photometry import fused
from components.photometry.attributes import check_image


def place_subject(image: Tensor, cutout: Tensor, height: float, x: float = 0.5, y: float = 1.0) -> Tensor:
    """Composite a cut-out over a picture in linear light (Porter and Duff 1984, "over").

    Args:
        image: (..., 3, H, W) sRGB in [0, 1], the background.
        cutout: (4, h, w) sRGB and straight alpha in [0, 1].
        height: of the cut-out as a fraction of the picture's; smaller where it would be wider than the picture.
        x, y: where in the free space it stands: 0 is the left or top edge, 1 the right or bottom edge.

    Returns:
        (..., 3, H, W) sRGB in [0, 1].

    Raises:
        ValueError: the cut-out has not four channels.
    """
    check_image(image)
    colour, alpha, (top, left) = _placed(image, cutout, height, x, y)
    region = (..., slice(top, top + alpha.shape[-2]), slice(left, left + alpha.shape[-1]))
    linear_image = fused.decode(image).clone()
    linear_image[region] = colour + linear_image[region] * (1 - alpha)
    return fused.encode(linear_image)


def _placed(image: Tensor, cutout: Tensor, height: float, x: float, y: float) -> tuple[Tensor, Tensor, tuple[int, int]]:
    """Premultiplied linear light (3, h, w), alpha (1, h, w) and the top left corner of the resized cut-out."""
    if cutout.ndim != 3 or cutout.shape[0] != 4:
        raise ValueError(f"expected a cut-out (4, h, w) of sRGB and alpha, found shape {tuple(cutout.shape)}")
    rows, columns = image.shape[-2:]
    scale = min(height * rows / cutout.shape[1], columns / cutout.shape[2])
    size = tuple(max(1, round(scale * side)) for side in cutout.shape[1:])
    cutout = cutout.to(image)
    premultiplied = torch.cat((fused.decode(cutout[:3]) * cutout[3:], cutout[3:]))
    resized = functional.interpolate(
        premultiplied[None], size=size, mode="bilinear", antialias=True, align_corners=False
    )[0].clamp(0, 1)
    return resized[:3], resized[3:], (round(y * (rows - size[0])), round(x * (columns - size[1])))
