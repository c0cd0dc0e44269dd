"""Real DNG files and 16-bit ProPhoto TIFFs of known colours, written by independent means."""

from collections.abc import Sequence
from pathlib import Path

import imagecodecs
import numpy as np
import tifffile

WHITE_LEVEL = 16383
PROPHOTO_PRIMARIES = (0.7347, 0.2653, 0.1596, 0.8404, 0.0366, 0.0001)  # ISO 22028-2, ROMM RGB
D50 = (0.3457, 0.3585)
XYZ_TO_SRGB = np.array(
    [[3.2404542, -1.5371385, -0.4985314], [-0.9692660, 1.8760108, 0.0415560], [0.0556434, -0.2040259, 1.0572252]]
)
SRGB_TO_PROPHOTO = np.array(  # D65 to D50 by Bradford
    [[0.5293177, 0.3300924, 0.1405988], [0.0983680, 0.8734660, 0.0281674], [0.0168747, 0.1176665, 0.8654550]]
)


def linear(samples: np.ndarray) -> np.ndarray:
    """Decode sRGB (IEC 61966-2-1)."""
    return np.where(samples <= 0.04045, samples / 12.92, ((samples + 0.055) / 1.055) ** 2.4)


def encoded(samples: np.ndarray) -> np.ndarray:
    """Encode sRGB (IEC 61966-2-1)."""
    return np.where(samples <= 0.0031308, samples * 12.92, 1.055 * samples ** (1 / 2.4) - 0.055)


def write_dng(path: Path, colour: np.ndarray, neutral: Sequence[float] = (1, 1, 1), orientation: int = 1) -> Path:
    """A Bayer DNG (DNG 1.4) of ``colour``, (H, W, 3) linear sRGB, by a camera that sees white as ``neutral``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    seen = colour * np.asarray(neutral)
    mosaic = np.empty(colour.shape[:2], np.uint16)
    for row, column, channel in ((0, 0, 0), (0, 1, 1), (1, 0, 1), (1, 1, 2)):
        mosaic[row::2, column::2] = np.round(seen[row::2, column::2, channel] * WHITE_LEVEL)

    def rational(values: np.ndarray) -> tuple[int, ...]:
        return tuple(number for value in np.ravel(values) for number in (round(value * 10_000), 10_000))

    matrix = np.diag(neutral) @ XYZ_TO_SRGB
    tags = [
        (274, "H", 1, orientation, True),
        (271, "s", 0, "Maker", True),
        (272, "s", 0, "Camera", True),
        (33421, "H", 2, (2, 2), True),  # CFARepeatPatternDim
        (33422, "B", 4, (0, 1, 1, 2), True),  # CFAPattern: RGGB
        (50706, "B", 4, (1, 4, 0, 0), True),  # DNGVersion
        (50707, "B", 4, (1, 1, 0, 0), True),  # DNGBackwardVersion
        (50708, "s", 0, "Maker Camera", True),  # UniqueCameraModel
        (50714, "2I", 1, (0, 1), True),  # BlackLevel
        (50717, "I", 1, WHITE_LEVEL, True),  # WhiteLevel
        (50721, "2i", 9, rational(matrix), True),  # ColorMatrix1
        (50728, "2I", 3, rational(np.asarray(neutral)), True),  # AsShotNeutral
        (50778, "H", 1, 21, True),  # CalibrationIlluminant1: D65
    ]
    tifffile.imwrite(path, mosaic, photometric="cfa", extratags=tags, metadata=None, byteorder="<")
    return path


def prophoto_profile() -> bytes:
    """An ICC profile of ProPhoto RGB with its gamma of 1.8."""
    return imagecodecs.cms_profile("rgb", whitepoint=D50, primaries=PROPHOTO_PRIMARIES, gamma=1.8)


def write_prophoto(path: Path, colour: np.ndarray, profile: bool = True) -> Path:
    """A 16-bit TIFF of ``colour``, (H, W, 3) linear sRGB, in ProPhoto RGB."""
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = np.clip(colour @ SRGB_TO_PROPHOTO.T, 0, 1) ** (1 / 1.8)
    icc = prophoto_profile() if profile else None
    tifffile.imwrite(path, np.round(samples * 65535).astype(np.uint16), photometric="rgb", iccprofile=icc)
    return path
