"""A camera raw file made by hand: no camera's own is free to ship, and a made one has a known truth."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray

_BLACK, _WHITE = 512, 16383
_BALANCE = np.array([0.5, 1.0, 0.7])
"""What the made camera sees of a grey in D65."""
_XYZ_TO_SRGB = np.array([[3.2406, -1.5372, -0.4986], [-0.9689, 1.8758, 0.0415], [0.0557, -0.2040, 1.0570]])


def write_dng(
    path: Path, orientation: int, height: int = 48, width: int = 64, tags: Sequence[tuple] = ()
) -> NDArray[np.float64]:
    """Write a DNG of a smooth picture lit by D65 and return the picture, linear sRGB (H, W, 3)."""
    y, x = np.mgrid[0:height, 0:width] / np.array([height, width])[:, None, None]
    linear = np.stack([0.1 + 0.5 * x, 0.15 + 0.4 * y, 0.5 - 0.35 * x * y], axis=-1)
    write_raw(path, linear, _BALANCE, orientation, tags)
    return linear


def write_raw(
    path: Path, colour: NDArray, neutral: Sequence[float] = (1, 1, 1), orientation: int = 1, tags: Sequence[tuple] = ()
) -> Path:
    """Write a 14-bit Bayer (RGGB) DNG of ``colour``, (H, W, 3) linear sRGB, by a camera that sees white as ``neutral``.

    The made camera has sRGB's primaries with those sensitivities, so camera = diag(neutral) sRGB, and its colour
    matrix (DNG specification 1.4, ColorMatrix1: XYZ to camera) is diag(neutral) times IEC 61966-2-1's.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    neutral = np.asarray(neutral)
    camera = np.rint(_BLACK + colour * neutral * (_WHITE - _BLACK)).astype(np.uint16)
    mosaic = camera[..., 1].copy()
    mosaic[0::2, 0::2], mosaic[1::2, 1::2] = camera[0::2, 0::2, 0], camera[1::2, 1::2, 2]
    matrix = [(round(value * 10_000), 10_000) for value in (neutral[:, None] * _XYZ_TO_SRGB).ravel()]
    neutral = [(round(value * 10_000), 10_000) for value in neutral]
    tags = [
        *tags,
        (271, "s", 0, "Contax", True),
        (272, "s", 0, "Made", True),
        (274, "H", 1, orientation, True),
        (33421, "H", 2, (2, 2), True),  # CFARepeatPatternDim
        (33422, "B", 4, bytes((0, 1, 1, 2)), True),  # CFAPattern
        (50706, "B", 4, bytes((1, 4, 0, 0)), True),  # DNGVersion
        (50708, "s", 0, "Contax Made", True),  # UniqueCameraModel
        (50714, "H", 1, _BLACK, True),
        (50717, "H", 1, _WHITE, True),
        (50721, "2i", 9, tuple(sum(matrix, ())), True),  # ColorMatrix1
        (50728, "2I", 3, tuple(sum(neutral, ())), True),  # AsShotNeutral
        (50778, "H", 1, 21, True),  # CalibrationIlluminant1: D65
    ]
    tifffile.imwrite(path, mosaic, photometric=32803, metadata=None, extratags=tags, software=False)
    return path
