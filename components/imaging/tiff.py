"""TIFF, read and written through tifffile: 16 bits per sample, and files with EXIF, GPS and XMP in them."""

import io
import logging
import re
import struct
from itertools import islice
from typing import Any

import numpy as np
import tifffile
from PIL import ExifTags

from components.imaging.formats import MAX_CHANNELS, Beside, FormatError, Header, RawImage, split_alpha
from components.imaging.metadata import (
    DESCRIPTIVE_TAGS,
    Directories,
    loaded_exif,
    photoshop_iptc,
    placed,
    sub_directories,
    text_bytes,
    tiff_exif,
    valid_orientation,
)
from components.imaging.source import Source

log = logging.getLogger(__name__)

SIGNATURES = (b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+")
_MODES = {
    tifffile.PHOTOMETRIC.MINISWHITE: "L",
    tifffile.PHOTOMETRIC.MINISBLACK: "L",
    tifffile.PHOTOMETRIC.RGB: "RGB",
    tifffile.PHOTOMETRIC.PALETTE: "P",
    tifffile.PHOTOMETRIC.SEPARATED: "CMYK",
}
_XMP_TAG = 700
_LONG = 4
_MOST_PAGES = 100  # that are counted, since directories may point to themselves
_PHOTOMETRIC, _NEW_SUBFILE_TYPE, _IPTC_TAG, _PHOTOSHOP_TAG = 262, 254, 33723, 34377
_LARGEST_TILE = 2**22
"""Pixels of a tile in a picture that has fewer; decoders take memory for whole tiles."""
_NO_ALPHA, _ASSOCIATED, _UNASSOCIATED = 0, 1, 2
_WRITTEN_TAGS = (
    ExifTags.Base.Software,
    ExifTags.Base.DateTime,
    ExifTags.Base.XResolution,
    ExifTags.Base.YResolution,
    ExifTags.Base.ResolutionUnit,
)
_UNDEFINED = 7
_DATE = re.compile(r"\d{4}:\d\d:\d\d \d\d:\d\d:\d\d")


def tiff_header(source: Source) -> Header:
    """Header of the first page; 1-, 2- and 4-bit samples count as 8, and anything unusual is refused."""
    with source.open() as file, tifffile.TiffFile(file) as tiff:
        page = tiff.pages[0]
        tile = page.tilewidth * page.tilelength
        if page.is_tiled and tile > max(_LARGEST_TILE, 2 * page.imagewidth * page.imagelength):
            raise FormatError(f"a tile of {page.tilewidth}x{page.tilelength} pixels in a picture smaller than it")
        if page.samplesperpixel > MAX_CHANNELS or page.imagedepth != 1 or page.tiledepth > 1:
            raise FormatError(f"{page.samplesperpixel} samples per pixel, {page.imagedepth} planes: not a picture")
        if page.sampleformat not in (tifffile.SAMPLEFORMAT.UINT, tifffile.SAMPLEFORMAT.VOID):
            raise FormatError("floating-point or signed TIFF samples: save it with 8 or 16 unsigned bits per sample")
        if page.bitspersample not in (1, 2, 4, 8, 16):
            raise FormatError(f"{page.bitspersample} bits per sample: save it with 8 or 16")
        photometric = _photometric(page)
        return Header(
            page.imagewidth,
            page.imagelength,
            "TIFF",
            _MODES.get(photometric, getattr(photometric, "name", str(photometric))),
            16 if page.bitspersample == 16 else 8,
            valid_orientation(page.tags.valueof(int(ExifTags.Base.Orientation), 1)),
            sum(not _is_reduced(other) for other in islice(tiff.pages, _MOST_PAGES)) or 1,
        )


def tiff_samples(source: Source, header: Header) -> RawImage:
    """Samples of 8 or 16 bits of the first page of a TIFF file and what goes with them."""
    with source.open() as file, tifffile.TiffFile(file) as tiff:
        page = tiff.pages[0]
        samples = page.asarray(maxworkers=1)
        if page.planarconfig == tifffile.PLANARCONFIG.SEPARATE and samples.ndim == 3:
            samples = np.moveaxis(samples, 0, -1)
        photometric = _photometric(page)
        if photometric == tifffile.PHOTOMETRIC.MINISWHITE:
            samples = np.iinfo(samples.dtype).max - samples
            photometric = tifffile.PHOTOMETRIC.MINISBLACK
        spaces = {
            tifffile.PHOTOMETRIC.MINISBLACK: ("GRAY", 1),
            tifffile.PHOTOMETRIC.RGB: ("RGB", 3),
            tifffile.PHOTOMETRIC.SEPARATED: ("CMYK", 4),
        }
        if photometric not in spaces:
            raise FormatError(f"{header.bit_depth}-bit TIFF of type {header.mode}: save it as greyscale, RGB or CMYK")
        space, colours = spaces[photometric]
        colour, alpha = split_alpha(samples, colours)
        kind = page.extrasamples[0] if page.extrasamples else _NO_ALPHA
        icc = page.iccprofile
    alpha = alpha if kind in (_ASSOCIATED, _UNASSOCIATED) else None
    if alpha is not None and kind == _ASSOCIATED:
        colour = _straight(colour, alpha)
    exif, xmp = tiff_exif(source), tiff_xmp(source)
    return RawImage(colour, space, alpha, header, exif, icc, xmp, beside=beside(source))


def _is_reduced(page: Any) -> bool:
    """Whether a page says of itself that it is another one at a smaller size."""
    return bool((page.tags.valueof(_NEW_SUBFILE_TYPE) or 0) & 1)


def _photometric(page: Any) -> Any:
    """What the samples of a page mean; where the file does not say, what their number suggests."""
    if _PHOTOMETRIC in page.tags:
        return page.photometric
    return tifffile.PHOTOMETRIC.RGB if page.samplesperpixel >= 3 else tifffile.PHOTOMETRIC.MINISBLACK


def is_for_pillow(source: Source) -> bool:
    """Whether Pillow reads such TIFF files at all: not those with offsets of 64 bits, nor without a photometric tag."""
    with source.open() as file, tifffile.TiffFile(file) as tiff:
        return not tiff.is_bigtiff and _PHOTOMETRIC in tiff.pages[0].tags


def short_palette(source: Source) -> bytes | None:
    """The RGB palette of a file that has 8 bits a colour where the format has 16, as libtiff guesses; else None."""
    with source.open() as file, tifffile.TiffFile(file) as tiff:
        palette = tiff.pages[0].colormap
    if palette is None or palette.max() > 255 or not palette.any():
        return None
    return bytes(np.ascontiguousarray(palette.T, np.uint8).tobytes())


def beside(source: Source) -> Beside:
    """The IPTC records of a TIFF file, by themselves or among Photoshop's resources."""
    with source.open() as file, tifffile.TiffFile(file) as tiff:
        tags = tiff.pages[0].tags
        records, resources = tags.get(_IPTC_TAG), tags.valueof(_PHOTOSHOP_TAG)
        iptc: bytes | None = None
        if records is not None:
            value = records.value
            if not isinstance(value, bytes):  # some programs say that the bytes are numbers of 32 bits
                value = np.atleast_1d(np.asarray(value)).astype(f"{tiff.byteorder}u4").tobytes()
            iptc = value.rstrip(b"\x00") or None
    if iptc is None and isinstance(resources, bytes):
        iptc = photoshop_iptc(resources)
    return Beside(iptc=iptc)


def _straight(colour: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Samples without the alpha that they were multiplied by (TIFF 6.0, ExtraSamples 1)."""
    top, result = int(np.iinfo(colour.dtype).max), np.empty_like(colour)
    for row, values, opacity in zip(result, colour, alpha, strict=True):
        divisor = np.maximum(opacity, 1).astype(np.float64)
        divisor = divisor if values.ndim == 1 else divisor[:, None]
        row[:] = np.minimum(np.rint(values * (top / divisor)), top)
    return result


def tiff_xmp(source: Source) -> bytes | None:
    """The XMP packet of a TIFF file."""
    with source.open() as file, tifffile.TiffFile(file) as tiff:
        value = tiff.pages[0].tags.valueof(_XMP_TAG)
    return bytes(value) if isinstance(value, (bytes, bytearray)) and value else None


def encode_tiff(
    samples: np.ndarray,
    has_alpha: bool,
    icc: bytes | None,
    exif: bytes | None,
    xmp: bytes | None = None,
    beside: Beside | None = None,
) -> bytes:
    """(H, W, 3|4) uint8 or uint16 samples as deflate-compressed TIFF with profile, XMP, IPTC and EXIF with GPS."""
    beside = beside or Beside()
    tags, sub_ifds = _tiff_tags(exif) if exif else ({}, {})
    extra: list[tuple[int, Any, int, bytes, bool]] = [(_XMP_TAG, "B", len(xmp), xmp, True)] if xmp else []
    extra += [(_IPTC_TAG, _UNDEFINED, len(beside.iptc), beside.iptc, True)] if beside.iptc else []
    extra += tags.pop("extratags", [])
    if beside.density and tags.get("resolution", (1, 1)) == [1, 1]:
        tags |= {"resolution": beside.density, "resolutionunit": 2}
    stream = io.BytesIO()
    tifffile.imwrite(
        stream,
        samples,
        photometric="rgb",
        extrasamples=["unassalpha"] if has_alpha else None,
        compression="zlib",
        predictor=True,
        iccprofile=icc,
        metadata=None,
        extratags=extra,
        **{"software": False, "resolution": (1.0, 1.0), "resolutionunit": 1} | tags,
    )
    return _with_sub_ifds(bytearray(stream.getvalue()), sub_ifds)


def _tiff_tags(exif: bytes) -> tuple[dict[str, Any], Directories]:
    """An EXIF block as arguments of tifffile.imwrite, and its EXIF and GPS directories; damaged parts are left out."""
    tags: dict[str, Any] = {}
    sub_ifds: Directories = {}
    try:
        source = loaded_exif(exif)
        tags["extratags"] = [
            entry for tag, value in source.items() if tag in DESCRIPTIVE_TAGS if (entry := _tiff_tag(int(tag), value))
        ]
        if software := source.get(ExifTags.Base.Software):
            tags["software"] = text_bytes(str(software))
        if _DATE.fullmatch(str(source.get(ExifTags.Base.DateTime, ""))):
            tags["datetime"] = source[ExifTags.Base.DateTime]
        resolution = [float(source.get(tag, 1)) for tag in (ExifTags.Base.XResolution, ExifTags.Base.YResolution)]
        if all(1e-3 <= value <= 1e6 for value in resolution):  # not so for 0/0, which is NaN
            tags["resolution"] = resolution
        unit = source.get(ExifTags.Base.ResolutionUnit, 1)
        tags["resolutionunit"] = unit if unit in (1, 2, 3) else 1
        directories = sub_directories(source)
        placed(directories, 0)  # raises before anything is written
        sub_ifds = directories
    except Exception as error:  # Pillow raises anything on a damaged block
        log.warning("the EXIF block is damaged and kept only in part: %s", error)
    return tags, sub_ifds


def _tiff_tag(tag: int, value: Any) -> tuple[int, Any, int, Any, bool] | None:
    """A tag as tifffile writes it: texts in the bytes they had, which may be UTF-8; None for what it writes itself."""
    if tag in _WRITTEN_TAGS:
        return None
    if isinstance(value, str):
        text = text_bytes(value)
        return tag, 2, len(text) + 1, text + b"\x00", True
    if isinstance(value, bytes):
        return tag, 1, len(value), value, True
    if isinstance(value, int) and 0 <= value < 2**16:
        return tag, "H", 1, value, True
    return None


def _with_sub_ifds(content: bytearray, sub_ifds: Directories) -> bytes:
    """Append directories to a little-endian TIFF file and a new first directory that points to them.

    tifffile does not write EXIF directories. The old first directory stays in the file, unreferenced.
    """
    first = struct.unpack_from("<I", content, 4)[0]
    count = struct.unpack_from("<H", content, first)[0]
    entries = [bytes(content[first + 2 + 12 * index :][:12]) for index in range(count)]
    content += b"\x00" * (len(content) % 2)
    directories, places = placed(sub_ifds, len(content))
    content += directories
    entries += [struct.pack("<HHII", ifd, _LONG, 1, place) for ifd, place in places.items()]
    content += b"\x00" * (len(content) % 2)
    struct.pack_into("<I", content, 4, len(content))
    entries.sort(key=lambda entry: struct.unpack_from("<H", entry)[0])
    return bytes(content + struct.pack("<H", len(entries)) + b"".join(entries) + b"\x00\x00\x00\x00")
