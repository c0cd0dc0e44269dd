"""Parametric retouching: exposure, contrast, saturation and colour temperature, each with one amount in standard units.

All four are content-independent (the same amount does the same to every pixel of that colour, at any size), undone by
the opposite amount where nothing clips, and unclamped: values may leave [0, 1] and come back. Amounts are a number for
all pictures or a tensor with one amount a picture, so whole training batches are retouched at once.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from components.photometry import fused
from components.photometry.attributes import check_image
from components.photometry.colour import (
    D65_MIRED,
    apply_matrix,
    bradford,
    lab_to_srgb,
    lab_to_xyz,
    linear_to_srgb,
    linear_to_xyz,
    mired_to_xy,
    rgb_to_xyz_matrix,
    srgb_to_lab,
    srgb_to_linear,
    xyz_to_lab,
    xyz_to_linear,
)

MID_LIGHTNESS = 50.0
"""The L* about which contrast turns: perceptual mid-grey (18.4% luminance)."""


def adjust_exposure(image: Tensor, ev: float | Tensor) -> Tensor:
    """Multiply linear light by 2^ev, as a longer or shorter exposure of the same scene would.

    Args:
        image: (..., 3, H, W) sRGB.
        ev: exposure value; positive is brighter. A number or a tensor of shape (...).

    Returns:
        (..., 3, H, W) sRGB, not clamped.
    """
    return linear_to_srgb(srgb_to_linear(image) * torch.exp2(_per_picture(image, ev)))


def adjust_contrast(image: Tensor, log2_slope: float | Tensor) -> Tensor:
    """Steepen or flatten lightness about mid-grey: L* becomes 50 + 2^log2_slope (L* - 50) at constant a* and b*.

    CIELAB L* is the perceptual lightness of the standards (ISO/CIE 11664-4): equal steps look equal, mid-grey is the
    middle of the scale, and a*, b* stay, so contrast neither shifts hue nor changes chroma. A slope
    on sRGB code values would saturate colours as a side effect; one on linear light would act almost only on
    highlights.

    Args:
        image: (..., 3, H, W) sRGB.
        log2_slope: 0 changes nothing, 1 doubles the slope. A number or a tensor of shape (...).

    Returns:
        (..., 3, H, W) sRGB, not clamped.
    """
    return lab_to_srgb(_retouch_lab(srgb_to_lab(image), _per_picture(image, log2_slope), 0.0))


def adjust_saturation(image: Tensor, log2_scale: float | Tensor) -> Tensor:
    """Scale CIELAB chroma C*ab by 2^log2_scale at constant lightness and hue.

    Args:
        image: (..., 3, H, W) sRGB.
        log2_scale: 0 changes nothing, 1 doubles chroma. A number or a tensor of shape (...).

    Returns:
        (..., 3, H, W) sRGB, not clamped.
    """
    return lab_to_srgb(_retouch_lab(srgb_to_lab(image), 0.0, _per_picture(image, log2_scale)))


def adjust_temperature(image: Tensor, mired: float | Tensor) -> Tensor:
    """Warm (positive) or cool (negative) the picture by moving its white along the daylight and black-body locus.

    The photo is taken to be balanced for D65. A positive amount adapts D65 to the white that lies ``mired`` away on the
    warm side; a negative one adapts that same warm white back to D65, which is how a picture that came out too warm
    by that much is balanced. So opposite amounts are exact inverses, and the range is as wide for both.

    Args:
        image: (..., 3, H, W) sRGB.
        mired: reciprocal megakelvin by which the white moves, -446 to 446. A number or a tensor of shape (...).

    Returns:
        (..., 3, H, W) sRGB, not clamped.
    """
    return linear_to_srgb(apply_matrix(_temperature_matrix(image, mired), srgb_to_linear(image)))


def adjust_tone(
    image: Tensor,
    exposure: float | Tensor = 0.0,
    contrast: float | Tensor = 0.0,
    saturation: float | Tensor = 0.0,
    temperature: float | Tensor = 0.0,
) -> Tensor:
    """Exposure, contrast, saturation and temperature in that order, clamped to [0, 1] once, at the end.

    Equal to the four adjustments one after another, in one pass through linear light, CIELAB and back.

    Args:
        image: (..., 3, H, W) sRGB.
        exposure, contrast, saturation, temperature: amounts of the four adjustments; numbers or tensors of shape (...).

    Returns:
        (..., 3, H, W) sRGB in [0, 1].
    """
    linear_image = srgb_to_linear(image) * torch.exp2(_per_picture(image, exposure))
    lab_image = xyz_to_lab(linear_to_xyz(linear_image))
    lab_image = _retouch_lab(lab_image, _per_picture(image, contrast), _per_picture(image, saturation))
    linear_image = apply_matrix(_temperature_matrix(image, temperature), xyz_to_linear(lab_to_xyz(lab_image)))
    return linear_to_srgb(linear_image.clamp(0, 1)).clamp(0, 1)


def adjust_in_sequence(image: Tensor, adjustments: Sequence[tuple[str, float]], clamp: bool = False) -> Tensor:
    """Adjustments one after another, in one compiled pass over the pixels where that is possible.

    Args:
        image: (..., 3, H, W) sRGB.
        adjustments: "exposure", "contrast", "saturation" or "temperature", each with its amount.
        clamp: hold the result, not what lies between, within [0, 1].

    Returns:
        (..., 3, H, W) sRGB; what the adjustments give one by one, but for rounding.

    Raises:
        KeyError: another name.
    """
    check_image(image)
    if not fused.usable(image):
        for name, amount in adjustments:
            image = ADJUSTMENTS[name](image, amount)
        return image.clamp(0, 1) if clamp else image
    return fused.retouch(image, *retouch_program(adjustments), clamp)


def retouch_program(
    adjustments: Sequence[tuple[str, float]],
) -> tuple[list[Tensor], list[float], list[float]]:
    """Matrices, slopes and scales with which `fused.retouch` does the adjustments one after another.

    Raises:
        KeyError: a name that is none of `ADJUSTMENTS`.
    """
    # Neighbours that are matrices of linear light are multiplied, neighbours in CIELAB commute with each other.
    white, pixel = _white(), torch.zeros((3, 1, 1), dtype=torch.float64)
    to_lab, from_lab = rgb_to_xyz_matrix() / white[:, None], torch.linalg.inv(rgb_to_xyz_matrix()) * white
    matrices, slopes, scales, in_lab = [torch.eye(3, dtype=torch.float64)], [], [], False
    for name, amount in adjustments:
        if name in ("exposure", "temperature"):
            step = 2.0**amount if name == "exposure" else _temperature_matrix(pixel, amount)
            if in_lab:
                matrices.append(from_lab)
            matrices[-1] = step * matrices[-1] if name == "exposure" else step @ matrices[-1]
            in_lab = False
            continue
        if name not in ADJUSTMENTS:
            raise KeyError(name)
        if not in_lab:
            matrices[-1] = to_lab @ matrices[-1]
            slopes.append(1.0)
            scales.append(1.0)
        slopes[-1] *= 2.0**amount if name == "contrast" else 1.0
        scales[-1] *= 2.0**amount if name == "saturation" else 1.0
        in_lab = True
    if in_lab:
        matrices.append(from_lab)
    return matrices, slopes, scales


ADJUSTMENTS: dict[str, Callable[..., Tensor]] = {
    "exposure": adjust_exposure,
    "contrast": adjust_contrast,
    "saturation": adjust_saturation,
    "temperature": adjust_temperature,
}


def _white() -> Tensor:
    """XYZ of D65, (3,) float64."""
    return rgb_to_xyz_matrix().sum(1)


def _retouch_lab(lab_image: Tensor, log2_slope: float | Tensor, log2_scale: float | Tensor) -> Tensor:
    lightness = MID_LIGHTNESS + (lab_image[..., :1, :, :] - MID_LIGHTNESS) * 2**log2_slope
    return torch.cat((lightness, lab_image[..., 1:, :, :] * 2**log2_scale), dim=-3)


def _temperature_matrix(image: Tensor, mired: float | Tensor) -> Tensor:
    """Matrix (3, 3), or one a picture (..., 3, 3), that moves the white in linear sRGB."""
    amount = _per_picture(image, mired)[..., 0, 0, 0].double()
    neutral, warm = mired_to_xy(torch.full_like(amount, D65_MIRED)), mired_to_xy(D65_MIRED + amount.abs())
    warmer = (amount >= 0).unsqueeze(-1)
    adaptation = bradford(torch.where(warmer, neutral, warm), torch.where(warmer, warm, neutral))
    to_xyz = rgb_to_xyz_matrix().to(image.device)
    return (torch.linalg.inv(to_xyz) @ adaptation @ to_xyz).to(image.dtype)


def _per_picture(image: Tensor, amount: float | Tensor) -> Tensor:
    """The amount as a tensor that broadcasts over channels and pixels; checks the image and that the shapes agree."""
    check_image(image)
    amount = torch.as_tensor(amount, dtype=image.dtype, device=image.device)
    if amount.ndim and amount.shape != image.shape[:-3]:
        raise ValueError(
            f"expected a number or one amount a picture, shape {tuple(image.shape[:-3])}, found {tuple(amount.shape)}"
        )
    return amount[..., None, None, None]
