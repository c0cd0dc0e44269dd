"""Colour JPEG, read and written through libjpeg-turbo itself: half the time and half the memory of the way over Pillow.

Source: ITU-T T.81 (the format), ICC.1 annex B.4 (profiles in it), CIPA DC-008 (EXIF) and ISO 16684-1 (XMP).
"""

import logging
import re
import struct

import imagecodecs
import numpy as np

from components.imaging.formats import FormatError, Header
from components.imaging.metadata import EXIF_PREFIX, JPEG_SEGMENT, without_maker_note
from components.imaging.source import Source

log = logging.getLogger(__name__)

_JPEG_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
_JPEG_XMP = b"http://ns.adobe.com/xap/1.0/\x00"
_ICC_PIECE = 65_519
_LEAST_JPEG_BITS = 0.03  # a pixel: two bits a block (one for DC, one for its end), 18 blocks for 32 x 32 pixels
_OPTIMIZED_SAMPLES = 3 * 4_000_000
"""Above four megapixels a second pass for the best Huffman codes (2% smaller) costs more than it saves."""


def jpeg_samples(source: Source, header: Header) -> np.ndarray:
    """(H, W, 3) samples of a colour JPEG: what Pillow decodes, in half the time and without its second copy.

    Raises:
        FormatError: the file ends before its end-of-image marker (ITU-T T.81, annex B) or has fewer bits than its
            frame header needs, which libjpeg would fill up.
    """
    content = source.read_bytes()
    scan, is_baseline = _first_scan(content)
    ends = any(marker[0] == b"\xff\xd9" for marker in _JPEG_MARKER.finditer(content, scan + 2))
    if not ends or (is_baseline and 8 * len(content) < _LEAST_JPEG_BITS * header.width * header.height):
        raise FormatError("corrupt or truncated: the picture data ends too early")
    samples = np.empty((header.height, header.width, 3), np.uint8)
    return imagecodecs.jpeg8_decode(content, outcolorspace="rgb", out=samples)


def _first_scan(content: bytes) -> tuple[int, bool]:
    """Where the first scan begins, after segments whose previews hold markers of their own; whether it is baseline."""
    offset, is_baseline = 2, False
    while offset + 4 <= len(content) and content[offset] == 0xFF and content[offset + 1] != 0xDA:
        if content[offset + 1] == 0xFF:  # a fill byte
            offset += 1
        else:
            is_baseline |= content[offset + 1] in (0xC0, 0xC1)
            offset += 2 + int.from_bytes(content[offset + 2 : offset + 4], "big")
    return offset, is_baseline


def encode_jpeg(
    samples: np.ndarray,
    icc: bytes | None = None,
    exif: bytes | None = None,
    xmp: bytes | None = None,
    quality: int = 95,
) -> bytes:
    """(H, W, 3) uint8 samples as baseline JPEG without chroma subsampling.

    EXIF and XMP are written as they are; what does not fit is left out, with a warning.
    """
    optimize = samples.size <= _OPTIMIZED_SAMPLES
    content = imagecodecs.jpeg8_encode(
        np.ascontiguousarray(samples), level=quality, colorspace="rgb", subsampling="444", optimize=optimize
    )
    segments = []
    if exif := _fitting(exif, "EXIF"):
        segments.append((0xE1, EXIF_PREFIX + exif))
    if xmp := _fitting(xmp, "XMP"):
        segments.append((0xE1, _JPEG_XMP + xmp))
    pieces = [icc[start : start + _ICC_PIECE] for start in range(0, len(icc), _ICC_PIECE)] if icc else []
    if len(pieces) > 255:
        log.warning("the colour profile of %d bytes does not fit a JPEG and is left out", len(icc or b""))
        pieces = []
    for number, piece in enumerate(pieces, start=1):  # ICC.1, annex B.4
        segments.append((0xE2, b"ICC_PROFILE\x00" + bytes((number, len(pieces))) + piece))
    head = 4 + int.from_bytes(content[4:6], "big") if content[2:4] == b"\xff\xe0" else 2  # JFIF comes first
    blocks = [struct.pack(">BBH", 0xFF, marker, len(data) + 2) + data for marker, data in segments]
    return b"".join((content[:head], *blocks, content[head:]))


def _fitting(block: bytes | None, name: str) -> bytes | None:
    """A metadata block if it fits a JPEG segment, EXIF if need be without the maker's notes, else None."""
    if block is None or len(block) <= JPEG_SEGMENT:
        return block
    size = len(block)
    if name == "EXIF":
        try:
            if len(block := without_maker_note(block)) <= JPEG_SEGMENT:
                log.warning("the EXIF block of %d bytes fits a JPEG only without the maker's notes", size)
                return block
        except Exception as error:  # Pillow raises anything on a damaged block
            log.warning("the EXIF block is damaged, and the maker's notes cannot be taken out of it: %s", error)
    log.warning("the %s block of %d bytes does not fit a JPEG and is left out", name, size)
    return None
