"""Shallow depth of field: a sharp subject before a background blurred as a wide aperture would.

`bokeh` blurs behind the subject of a photo; `place_subject` puts a cut-out before a background that is known, so that
depth of field is exact: the background is blurred first, and the subject put before it (`defocus_blur` and then
`subject`, as operations).
"""

import math

import torch
from torch import Tensor
from torch.nn import functional

from components.photometry import fused
from components.photometry.attributes import check_image
from components.photometry.blur import Convolver, convolve, disc_kernel

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
    mask = foreground.to(image).clamp(0, 1).unsqueeze(-3)
    alpha = convolve(mask, disc_kernel(_EDGE * short_side)).clamp(0, 1)
    defocus = (1 - 2 * convolve(mask, disc_kernel(_RAMP * short_side))).clamp(0, 1)  # 0 at a straight outline

    sharp = fused.decode(image)
    # The outline's inner half is subject: it must not count as background. A trace keeps all-subject areas defined.
    weight = (1 - 2 * alpha).clamp(min=1e-3).expand_as(sharp[..., :1, :, :])
    kernels = [disc_kernel(radius * short_side * level / BLUR_LEVELS) for level in range(1, BLUR_LEVELS + 1)]
    gather = Convolver(torch.cat((sharp * weight, weight), dim=-3), kernels[-1].shape[-1] // 2)
    background = sharp * (1 - defocus * BLUR_LEVELS).clamp(min=0)
    for level, kernel in enumerate(kernels, start=1):
        share = (1 - (defocus * BLUR_LEVELS - level).abs()).clamp(min=0)  # linear interpolation between levels
        gathered = gather(kernel)
        background += share * gathered[..., :3, :, :] / gathered[..., 3:, :, :].clamp(min=1e-4)
    return fused.encode(torch.lerp(background, sharp, alpha))


def aperture_radius(
    f_number: float,
    focal_length: float,
    focus_distance: float,
    background_distance: float = math.inf,
    sensor_short_side: float = 24.0,
) -> float:
    """Blur radius of the background behind a subject in focus, from a photo's metadata, by the thin lens.

    Args:
        f_number: of the aperture, e.g. 2.0.
        focal_length: millimetres.
        focus_distance: from lens to subject, metres; beyond the focal length.
        background_distance: from lens to background, metres.
        sensor_short_side: millimetres; 24 for full frame.

    Returns:
        radius of the disc as a fraction of the picture's short side, as :func:`bokeh` takes it.

    Raises:
        ValueError: a length that no lens has.

    Source: the circle of confusion, e.g. Potmesil and Chakravarty (1982), equation 2:
    c = f^2 / N * |D - s| / (D (s - f)).
    """
    focus, background = 1000 * focus_distance, 1000 * background_distance
    if f_number <= 0 or focal_length <= 0 or focus <= focal_length or background <= 0 or sensor_short_side <= 0:
        raise ValueError(
            f"expected positive lengths and a focus beyond {focal_length:g} mm, found f/{f_number:g}, focus at "
            f"{focus:g} mm, background at {background:g} mm, sensor of {sensor_short_side:g} mm"
        )
    separation = 1.0 if math.isinf(background) else abs(background - focus) / background
    return focal_length**2 / f_number * separation / (focus - focal_length) / 2 / sensor_short_side


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
