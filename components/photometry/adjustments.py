"""Parametric retouching: exposure, contrast, saturation and colour temperature, each with one amount in standard units.

All four are content-independent (the same amount does the same to every pixel of that colour, at any size), undone by
the opposite amount where nothing clips, and unclamped: values may leave [0, 1] and come back.

- **exposure**, EV: linear light times 2^amount, as a longer or shorter exposure of the same scene would.
- **contrast**, log2 of a slope: L* becomes 50 + 2^amount (L* - 50) at constant a* and b*. CIELAB L* is the perceptual
  lightness of the standards (ISO/CIE 11664-4): equal steps look equal, mid-grey is the middle of the scale, and a*, b*
  stay, so contrast neither shifts hue nor changes chroma. A slope on sRGB code values would saturate colours as a side
  effect; one on linear light would act almost only on highlights.
- **saturation**, log2 of a scale: CIELAB chroma C*ab times 2^amount at constant lightness and hue.
- **temperature**, mired by which the white moves along the daylight and black-body locus, positive is warmer. The photo
  is taken to be balanced for D65. A positive amount adapts D65 to the white that lies that far on the warm side; a
  negative one adapts that same warm white back to D65, which is how a picture that came out too warm by that much is
  balanced. So opposite amounts are exact inverses, and the range (-446 to 446) is as wide for both.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from components.photometry import fused
from components.photometry.attributes import check_image
from components.photometry.colour import D65_MIRED, bradford, mired_to_xy, rgb_to_xyz_matrix


def adjust(image: Tensor, adjustments: Sequence[tuple[str, float]], clamp: bool = False) -> Tensor:
    """Adjustments one after another, in one compiled pass over the pixels.

    Args:
        image: (..., 3, H, W) sRGB, float32 in main memory.
        adjustments: "exposure", "contrast", "saturation" or "temperature", each with its amount.
        clamp: hold the result, not what lies between, within [0, 1].

    Returns:
        (..., 3, H, W) sRGB; what the adjustments give one by one, but for rounding.

    Raises:
        KeyError: another name.
        ValueError: another kind of picture.
    """
    check_image(image)
    return fused.retouch(image, *retouch_program(adjustments), clamp)


def retouch_program(
    adjustments: Sequence[tuple[str, float]],
) -> tuple[list[Tensor], list[float], list[float]]:
    """Matrices, slopes and scales with which `fused.retouch` does the adjustments one after another.

    Raises:
        KeyError: a name that is none of the four.
    """
    # Neighbours that are matrices of linear light are multiplied, neighbours in CIELAB commute with each other.
    white = rgb_to_xyz_matrix().sum(1)  # XYZ of D65
    to_lab, from_lab = rgb_to_xyz_matrix() / white[:, None], torch.linalg.inv(rgb_to_xyz_matrix()) * white
    matrices, slopes, scales, in_lab = [torch.eye(3, dtype=torch.float64)], [], [], False
    for name, amount in adjustments:
        if name in ("exposure", "temperature"):
            step = 2.0**amount if name == "exposure" else _temperature_matrix(amount)
            if in_lab:
                matrices.append(from_lab)
            matrices[-1] = step * matrices[-1] if name == "exposure" else step @ matrices[-1]
            in_lab = False
            continue
        if name not in ("contrast", "saturation"):
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


def _temperature_matrix(mired: float) -> Tensor:
    """Matrix (3, 3), float64, that moves the white in linear sRGB."""
    neutral, warm = mired_to_xy(D65_MIRED), mired_to_xy(D65_MIRED + abs(mired))
    adaptation = bradford(neutral, warm) if mired >= 0 else bradford(warm, neutral)
    to_xyz = rgb_to_xyz_matrix()
    return torch.linalg.inv(to_xyz) @ adaptation @ to_xyz
