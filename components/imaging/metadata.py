"""EXIF and XMP blocks: read out of TIFF files, corrected for upright pixels, kept byte for byte where possible."""

import re
import struct
from collections.abc import Mapping
from typing import BinaryIO

import tifffile
from PIL import ExifTags, Image

from components.imaging.source import Source

EXIF_PREFIX = b"Exif\x00\x00"
SUB_IFDS = (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo)
JPEG_SEGMENT = 65_500
"""Largest block that a JPEG holds, bytes, rounded down."""
_DESCRIPTIVE_TAGS = (
    ExifTags.Base.ImageDescription,
    ExifTags.Base.Make,
    ExifTags.Base.Model,
    ExifTags.Base.XResolution,
    ExifTags.Base.YResolution,
    ExifTags.Base.ResolutionUnit,
    ExifTags.Base.Software,
    ExifTags.Base.DateTime,
    ExifTags.Base.Artist,
    ExifTags.Base.Copyright,
)
_SHORT, _LONG = 3, 4
_XMP_ORIENTATION = re.compile(rb"(tiff:Orientation(?:=[\"']|>\s*))[2-8]")


def orientation_of(exif: Image.Exif) -> int:
    """EXIF orientation (CIPA DC-008, tag 274), 1 where it is absent or nonsense."""
    return valid_orientation(exif.get(ExifTags.Base.Orientation, 1))


def valid_orientation(value: object) -> int:
    """An orientation tag's value, 1 where it is nonsense."""
    return value if isinstance(value, int) and value in range(1, 9) else 1


def tiff_exif(source: Source) -> bytes | None:
    """The descriptive tags of a TIFF-based file, with its EXIF and GPS directories, as an EXIF block."""
    block, kept = Image.Exif(), Image.Exif()
    with source.open() as file:
        if is_big_tiff(file):
            return _big_tiff_exif(file)
        block.load_from_fp(file)
        for code in _DESCRIPTIVE_TAGS:
            if code in block:
                kept[code] = block[code]
        for ifd in SUB_IFDS:
            if values := block.get_ifd(ifd):
                kept[ifd] = dict(values)
    return kept.tobytes().removeprefix(EXIF_PREFIX) if len(kept) else None


def is_big_tiff(file: BinaryIO) -> bool:
    """Whether a TIFF file, read from its start, is a BigTIFF: of 64-bit offsets, which Pillow's EXIF reader lacks."""
    start = file.read(4)
    file.seek(0)
    return start in (b"II+\0", b"MM\0+")


def _big_tiff_exif(file: BinaryIO) -> bytes | None:
    """What a BigTIFF says in words (camera, author, times) as an EXIF block; its numbers are left out."""
    kept = Image.Exif()
    with tifffile.TiffFile(file) as tiff:
        tags = tiff.pages[0].tags
        kept.update(
            {code: value for code in _DESCRIPTIVE_TAGS if isinstance(value := tags.valueof(int(code)), str) and value}
        )
        details = tags.valueof(int(ExifTags.IFD.Exif))
    for name, value in details.items() if isinstance(details, dict) else ():
        if isinstance(value, str) and value and name in ExifTags.Base.__members__:
            kept.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base[name]] = value
    return kept.tobytes().removeprefix(EXIF_PREFIX) if len(kept) else None


def upright_exif(exif: bytes, width: int, height: int) -> bytes:
    """Patch an EXIF block in place for pixels already turned upright: orientation 1, stored size, no stale thumbnail.

    Every other byte stays as it was, maker notes included. A block too damaged to walk is returned unchanged.
    """
    block = bytearray(exif)
    try:
        order = {b"II": "<", b"MM": ">"}[bytes(block[:2])]
        first = struct.unpack_from(order + "I", block, 4)[0]
        count = struct.unpack_from(order + "H", block, first)[0]
        struct.pack_into(order + "I", block, first + 2 + 12 * count, 0)  # no next IFD: it held the old thumbnail
        pointers = _patch_ifd(block, order, first, {ExifTags.Base.Orientation: 1}, ExifTags.IFD.Exif)
        sizes = {ExifTags.Base.ExifImageWidth: width, ExifTags.Base.ExifImageHeight: height}
        for pointer in pointers:
            _patch_ifd(block, order, pointer, sizes, None)
    except (KeyError, struct.error):
        return exif
    return bytes(block)


def upright_xmp(xmp: bytes) -> bytes:
    """An XMP packet for pixels already turned upright: tiff:Orientation 1, every other byte as it was."""
    return _XMP_ORIENTATION.sub(rb"\g<1>1", xmp)


def without_maker_note(exif: bytes) -> bytes:
    """An EXIF block without the maker's private notes, which make most of a large one.

    Raises:
        Exception: whatever Pillow raises on a damaged block.
    """
    source = Image.Exif()
    source.load(exif)
    source.get_ifd(ExifTags.IFD.Exif).pop(ExifTags.Base.MakerNote, None)
    return source.tobytes().removeprefix(EXIF_PREFIX)


def _patch_ifd(
    block: bytearray, order: str, offset: int, values: Mapping[ExifTags.Base, int], pointer_tag: int | None
) -> list[int]:
    """Overwrite SHORT and LONG values of the IFD at ``offset``; return where ``pointer_tag`` points."""
    pointers = []
    for index in range(struct.unpack_from(order + "H", block, offset)[0]):
        entry = offset + 2 + 12 * index
        tag, kind = struct.unpack_from(order + "HH", block, entry)
        if tag == pointer_tag:
            pointers.append(struct.unpack_from(order + "I", block, entry + 8)[0])
        elif tag in values and kind == _SHORT and values[tag] < 1 << 16:
            struct.pack_into(order + "H", block, entry + 8, values[tag])
        elif tag in values and kind == _LONG:
            struct.pack_into(order + "I", block, entry + 8, values[tag])
    return pointers
