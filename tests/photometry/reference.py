"""Operations as their definitions say them, with tensor operations in the dtype of the picture; masks as files.

They are what tests and the benchmark of synthesis compare the compiled operations of `components.photometry` with.
"""

import io
from collections.abc import Callable, Sequence
from itertools import groupby

import torch
from PIL import Image
from torch import Tensor

from components.photometry.blur import convolve, disc_kernel, trajectory_kernel
from components.photometry.bokeh import place_subject
from components.photometry.colour import (
    D65_MIRED,
    apply_matrix,
    bradford,
    lab_to_srgb,
    linear_to_srgb,
    mired_to_xy,
    rgb_to_xyz_matrix,
    srgb_to_lab,
    srgb_to_linear,
)
from components.photometry.degradations import depth_cue
from components.photometry.operations import TONE, Operation


def adjust_exposure(image: Tensor, ev: float) -> Tensor:
    """Linear light of (..., 3, H, W) times 2^ev."""
    return linear_to_srgb(srgb_to_linear(image) * 2.0**ev)


def adjust_contrast(image: Tensor, log2_slope: float) -> Tensor:
    """L* of (..., 3, H, W) becomes 50 + 2^log2_slope (L* - 50)."""
    lightness, a_b = srgb_to_lab(image).split((1, 2), dim=-3)
    return lab_to_srgb(torch.cat((50 + (lightness - 50) * 2.0**log2_slope, a_b), dim=-3))


def adjust_saturation(image: Tensor, log2_scale: float) -> Tensor:
    """a* and b* of (..., 3, H, W) times 2^log2_scale."""
    lightness, a_b = srgb_to_lab(image).split((1, 2), dim=-3)
    return lab_to_srgb(torch.cat((lightness, a_b * 2.0**log2_scale), dim=-3))


def adjust_temperature(image: Tensor, mired: float) -> Tensor:
    """Bradford adaptation of (..., 3, H, W) from D65 to the white ``mired`` away, or from there to D65 if negative."""
    whites = mired_to_xy(D65_MIRED), mired_to_xy(D65_MIRED + abs(mired))
    to_xyz = rgb_to_xyz_matrix()
    matrix = torch.linalg.inv(to_xyz) @ bradford(*(whites if mired >= 0 else whites[::-1])) @ to_xyz
    return linear_to_srgb(apply_matrix(matrix.to(image), srgb_to_linear(image)))


ADJUSTMENTS: dict[str, Callable[[Tensor, float], Tensor]] = {
    "exposure": adjust_exposure,
    "contrast": adjust_contrast,
    "saturation": adjust_saturation,
    "temperature": adjust_temperature,
}


def applied(image: Tensor, operations: Sequence[Operation]) -> Tensor:
    """`apply_operations` of (3, H, W) float64 in [0, 1], not rounded: tone, blur and haze, which have a closed form."""
    for is_tone, run in groupby(operations, key=lambda operation: operation.name in TONE):
        for operation in run:
            image = ADJUSTMENTS[operation.name](image, operation.amount) if is_tone else _degraded(image, operation)
        image = image.clamp(0, 1)
    return image


def _degraded(image: Tensor, operation: Operation) -> Tensor:
    generator, light = torch.Generator().manual_seed(operation.seed), srgb_to_linear(image)
    amount, (height, width) = operation.amount, image.shape[-2:]
    match operation.name:
        case "motion_blur":
            light = convolve(light, trajectory_kernel(amount * min(height, width), generator))
        case "defocus_blur":
            light = convolve(light, disc_kernel(amount * min(height, width)))
        case "haze":
            light = 0.8 + (light - 0.8) * torch.exp(-amount * depth_cue(height, width, generator))
        case _:
            raise ValueError(f"{operation.name} has no closed form")
    return linear_to_srgb(light.clamp(0, 1))


def encode_mask(mask: Tensor) -> bytes:
    """A mask (H, W) in [0, 1] as an 8-bit grey PNG, as an asset of bokeh is."""
    buffer = io.BytesIO()
    Image.fromarray((mask * 255).round().to(torch.uint8).numpy()).save(buffer, "PNG")
    return buffer.getvalue()


def subject_mask(image: Tensor, cutout: Tensor, height: float, x: float = 0.5, y: float = 1.0) -> Tensor:
    """The alpha (H, W) of a subject that `place_subject` puts into a picture: a white one before black, in 8 bits."""
    white = torch.cat((torch.ones_like(cutout[:3]), cutout[3:]))
    placed = place_subject(torch.zeros_like(image), white, height, x, y)[0]
    return (srgb_to_linear(placed) * 255).round() / 255
