"""16-bit ProPhoto TIFFs of known colours, written by independent means; raw files are in `tests.raw_files`."""

from pathlib import Path

import imagecodecs
import numpy as np
import tifffile

PROPHOTO_PRIMARIES = (0.7347, 0.2653, 0.1596, 0.8404, 0.0366, 0.0001)  # ISO 22028-2, ROMM RGB
D50 = (0.3457, 0.3585)
SRGB_TO_PROPHOTO = np.array(  # D65 to D50 by Bradford
    [[0.5293177, 0.3300924, 0.1405988], [0.0983680, 0.8734660, 0.0281674], [0.0168747, 0.1176665, 0.8654550]]
)


def linear(samples: np.ndarray) -> np.ndarray:
    """Decode sRGB (IEC 61966-2-1)."""
    return np.where(samples <= 0.04045, samples / 12.92, ((samples + 0.055) / 1.055) ** 2.4)


def encoded(samples: np.ndarray) -> np.ndarray:
    """Encode sRGB (IEC 61966-2-1)."""
    return np.where(samples <= 0.0031308, samples * 12.92, 1.055 * samples ** (1 / 2.4) - 0.055)


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
