"""What the decoders of picture files have in common: header, decoded samples, and the limits every file is held to."""

from dataclasses import dataclass

import numpy as np

MAX_CHANNELS = 8
"""Samples a pixel; a header that promises more is refused before memory is taken for them."""


class FormatError(ValueError):
    """The file holds something this project does not process (the message says what)."""


@dataclass(frozen=True)
class Header:
    """What can be known without decoding the pixels; width and height are as stored, before EXIF orientation."""

    width: int
    height: int
    format: str
    mode: str
    bit_depth: int
    orientation: int


@dataclass(frozen=True)
class RawImage:
    """Samples as stored in the file, before orientation and colour conversion.

    colour is (H, W) or (H, W, 3|4) uint8 or uint16; space is "GRAY", "RGB" or "CMYK"; alpha is (H, W) or None;
    white_kelvin is the white balance as shot of camera raw, where it is known.
    """

    colour: np.ndarray
    space: str
    alpha: np.ndarray | None
    header: Header
    exif: bytes | None
    icc: bytes | None
    xmp: bytes | None
    white_kelvin: float | None = None


def check_size(width: int, height: int, max_pixels: int) -> None:
    """Refuse pictures over the limit.

    Raises:
        FormatError: more than ``max_pixels``, or no pixels at all.
    """
    if width < 1 or height < 1:
        raise FormatError(f"the header promises a picture of {width}x{height} pixels")
    if width * height > max_pixels:
        raise FormatError(f"the picture has {width}x{height} pixels, more than the limit of {max_pixels:,}")
