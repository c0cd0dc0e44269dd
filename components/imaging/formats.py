"""What the decoders of picture files have in common: suffixes, header, decoded samples, and limits on every file."""

from dataclasses import dataclass, field

import numpy as np

FORMAT_OF_SUFFIX = {
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".jpe": "JPEG",
    ".jfif": "JPEG",
    ".png": "PNG",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".webp": "WEBP",
    ".avif": "AVIF",
    ".heic": "HEIF",
    ".heif": "HEIF",
    ".hif": "HEIF",
}
"""What can be written, by the suffix of the name."""
# fmt: off
RAW_SUFFIXES = frozenset((
    ".3fr", ".arw", ".cr2", ".cr3", ".crw", ".dcr", ".dng", ".erf", ".fff", ".iiq", ".kdc", ".mef", ".mos", ".mrw",
    ".nef", ".nrw", ".orf", ".pef", ".raf", ".rw2", ".rwl", ".sr2", ".srf", ".srw", ".x3f",
))
# fmt: on
"""Camera raw."""
PHOTO_SUFFIXES = RAW_SUFFIXES.union(FORMAT_OF_SUFFIX, (".bmp", ".gif", ".mpo"))
"""Everything that can be read."""

MAX_PIXELS = 2**28
"""Largest picture that is decoded unless another limit is named: above the 200 megapixels of phones."""
MAX_SIDE = 100_000
"""Longest side that is decoded: panoramas of JPEG end at 65,535 pixels, and a single row of millions is no photo."""
MAX_PROFILE = 16 * 2**20
"""Bytes of a colour profile; those of printers have about two million."""
MAX_CHANNELS = 8
"""Samples per pixel; a header that promises more is refused before memory is taken for them."""


class FormatError(ValueError):
    """The file holds something this project does not process (the message says what)."""


@dataclass(frozen=True)
class Header:
    """What can be known without decoding the pixels; width and height are as stored, before EXIF orientation.

    ``pictures`` counts frames, pages and companions such as a second view or a gain map; the first is read.
    """

    width: int
    height: int
    format: str
    mode: str
    bit_depth: int
    orientation: int
    pictures: int = 1


@dataclass(frozen=True)
class Beside:
    """What a file carries beside its picture, and beside EXIF, XMP and the colour profile.

    Attributes:
        iptc: records of IPTC-IIM, or None.
        comment: of a JPEG, or None.
        texts: keyword and text of each text of a PNG.
        density: pixels per inch, horizontally and vertically, where the file says so outside of EXIF.
        video: the film of a motion photo, which lies at the very end of the file; of HEIC and AVIF in its box.
        extended_xmp: what did not fit the XMP packet of a JPEG, and which that names.
        is_lossless: whether a format that has both kinds kept every sample.
    """

    iptc: bytes | None = None
    comment: bytes | None = None
    texts: tuple[tuple[str, str], ...] = ()
    density: tuple[float, float] | None = None
    video: bytes | None = field(default=None, repr=False)
    extended_xmp: bytes | None = field(default=None, repr=False)
    is_lossless: bool = False


@dataclass(frozen=True)
class RawImage:
    """Samples as stored in the file, before orientation and colour conversion.

    colour is (H, W) or (H, W, 3|4) uint8 or uint16; space is "GRAY", "RGB" or "CMYK"; alpha is (H, W) or None;
    white_kelvin is the white balance as shot of camera raw, where it is known; beside is what else the file carries.
    """

    colour: np.ndarray
    space: str
    alpha: np.ndarray | None
    header: Header
    exif: bytes | None
    icc: bytes | None
    xmp: bytes | None
    white_kelvin: float | None = None
    beside: Beside = field(default_factory=Beside)


def check_size(width: int, height: int, max_pixels: int) -> None:
    """Refuse pictures over the limit.

    Raises:
        FormatError: more than ``max_pixels``, no pixels at all, or a form that no photo has.
    """
    if width < 1 or height < 1:
        raise FormatError(f"the header promises a picture of {width}x{height} pixels")
    if width * height > max_pixels:
        raise FormatError(f"the picture has {width}x{height} pixels, more than the limit of {max_pixels:,}")
    if max(width, height) > MAX_SIDE:
        raise FormatError(
            f"the picture has {width}x{height} pixels, more than {MAX_SIDE:,} on a side: cut it into parts"
        )


def split_alpha(samples: np.ndarray, colours: int) -> tuple[np.ndarray, np.ndarray | None]:
    """Samples (H, W[, C]) as colour, (H, W) or (H, W, ``colours``), and the channel after it (H, W) if there is one."""
    if samples.ndim == 2:
        return samples, None
    colour = samples[..., 0] if colours == 1 else samples[..., :colours]
    return colour, samples[..., colours] if samples.shape[2] > colours else None
