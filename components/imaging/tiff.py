"""TIFF, read and written through tifffile: 16 bits a sample, and files with EXIF, GPS and XMP in them."""

import io
import logging
import re
import struct
from typing import Any

import numpy as np
import tifffile
from PIL import ExifTags, Image, TiffImagePlugin

from components.imaging.formats import MAX_CHANNELS, FormatError, Header, RawImage, split_alpha
from components.imaging.metadata import SUB_IFDS, tiff_exif, valid_orientation
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
_WRITTEN_TAGS = (ExifTags.Base.Software, ExifTags.Base.DateTime)
_DATE = re.compile(r"\d{4}:\d\d:\d\d \d\d:\d\d:\d\d")


def tiff_header(source: Source) -> Header:
    """Header of the first page; 1-, 2- and 4-bit samples count as 8, and anything unusual is refused."""
    with source.open() as file, tifffile.TiffFile(file) as tiff:
        page = tiff.pages[0]
        if page.samplesperpixel > MAX_CHANNELS or page.imagedepth != 1 or page.tiledepth > 1:
            raise FormatError(f"{page.samplesperpixel} samples a pixel, {page.imagedepth} planes: not a picture")
        if page.sampleformat not in (tifffile.SAMPLEFORMAT.UINT, tifffile.SAMPLEFORMAT.VOID):
            raise FormatError("floating-point or signed TIFF samples: save it with 8 or 16 unsigned bits a sample")
        if page.bitspersample not in (1, 2, 4, 8, 16):
            raise FormatError(f"{page.bitspersample} bits a sample: save it with 8 or 16 bits a sample")
        return Header(
            page.imagewidth,
            page.imagelength,
            "TIFF",
            _MODES.get(page.photometric, page.photometric.name),
            16 if page.bitspersample == 16 else 8,
            valid_orientation(page.tags.valueof(int(ExifTags.Base.Orientation), 1)),
        )


def tiff_samples(source: Source, header: Header) -> RawImage:
    """Samples of 8 or 16 bits of the first page of a TIFF file and what goes with them."""
    with source.open() as file, tifffile.TiffFile(file) as tiff:
        page = tiff.pages[0]
        samples = page.asarray(maxworkers=1)
        if page.planarconfig == tifffile.PLANARCONFIG.SEPARATE and samples.ndim == 3:
            samples = np.moveaxis(samples, 0, -1)
        photometric = page.photometric
        if photometric == tifffile.PHOTOMETRIC.MINISWHITE:
            samples = np.iinfo(samples.dtype).max - samples
            photometric = tifffile.PHOTOMETRIC.MINISBLACK
        spaces = {
            tifffile.PHOTOMETRIC.MINISBLACK: ("GRAY", 1),
            tifffile.PHOTOMETRIC.RGB: ("RGB", 3),
            tifffile.PHOTOMETRIC.SEPARATED: ("CMYK", 4),
        }
        if photometric not in spaces:
            raise FormatError(
                f"{header.bit_depth}-bit TIFF of type {photometric.name}: save it as greyscale, RGB or CMYK"
            )
        space, colours = spaces[photometric]
        colour, alpha = split_alpha(samples, colours)
        is_alpha = bool(page.extrasamples) and page.extrasamples[0] in (1, 2)
        icc = page.iccprofile
    return RawImage(colour, space, alpha if is_alpha else None, header, tiff_exif(source), icc, tiff_xmp(source))


def tiff_xmp(source: Source) -> bytes | None:
    """The XMP packet of a TIFF file."""
    with source.open() as file, tifffile.TiffFile(file) as tiff:
        value = tiff.pages[0].tags.valueof(_XMP_TAG)
    return bytes(value) if isinstance(value, (bytes, bytearray)) and value else None


def encode_tiff(
    samples: np.ndarray, has_alpha: bool, icc: bytes | None, exif: bytes | None, xmp: bytes | None = None
) -> bytes:
    """(H, W, 3|4) uint8 or uint16 samples as deflate-compressed TIFF with profile, XMP and EXIF (GPS included)."""
    tags, sub_ifds = _tiff_tags(exif) if exif else ({}, {})
    extra = [(_XMP_TAG, "B", len(xmp), xmp, True)] if xmp else []
    extra += tags.pop("extratags", [])
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


def _tiff_tags(exif: bytes) -> tuple[dict[str, Any], dict[int, dict[int, Any]]]:
    """An EXIF block as arguments of tifffile.imwrite, and its EXIF and GPS directories; damaged parts are left out."""
    source = Image.Exif()
    tags: dict[str, Any] = {}
    sub_ifds: dict[int, dict[int, Any]] = {}
    try:
        source.load(exif)
        tags["extratags"] = [
            (int(tag), "s", 0, str(value), True)
            for tag, value in source.items()
            if isinstance(value, str) and tag not in _WRITTEN_TAGS and value.isascii()
        ]
        if software := source.get(ExifTags.Base.Software):
            tags["software"] = str(software)
        if _DATE.fullmatch(str(source.get(ExifTags.Base.DateTime, ""))):
            tags["datetime"] = source[ExifTags.Base.DateTime]
        resolution = [float(source.get(tag, 1)) for tag in (ExifTags.Base.XResolution, ExifTags.Base.YResolution)]
        if all(1e-3 <= value <= 1e6 for value in resolution):  # not so for 0/0, which is NaN
            tags["resolution"] = resolution
        unit = source.get(ExifTags.Base.ResolutionUnit, 1)
        tags["resolutionunit"] = unit if unit in (1, 2, 3) else 1
        for ifd in SUB_IFDS:
            if values := source.get_ifd(ifd):
                _directory(ifd, values).tobytes()  # raises before anything is written
                sub_ifds[int(ifd)] = values
    except Exception as error:  # Pillow raises anything on a damaged block
        log.warning("the EXIF block is damaged and kept only in part: %s", error)
    return tags, sub_ifds


def _directory(ifd: int, values: dict[int, Any]) -> TiffImagePlugin.ImageFileDirectory_v2:
    directory = TiffImagePlugin.ImageFileDirectory_v2(b"II*\x00\x00\x00\x00\x00", group=ifd)
    directory.update(values)
    return directory


def _with_sub_ifds(content: bytearray, sub_ifds: dict[int, dict[int, Any]]) -> bytes:
    """Append directories to a little-endian TIFF file and a new first directory that points to them.

    tifffile does not write EXIF directories. The old first directory stays in the file, unreferenced.
    """
    first = struct.unpack_from("<I", content, 4)[0]
    count = struct.unpack_from("<H", content, first)[0]
    entries = [bytes(content[first + 2 + 12 * index :][:12]) for index in range(count)]
    for ifd, values in sub_ifds.items():
        content += b"\x00" * (len(content) % 2)
        entries.append(struct.pack("<HHII", ifd, _LONG, 1, len(content)))
        content += _directory(ifd, values).tobytes(len(content))
    content += b"\x00" * (len(content) % 2)
    struct.pack_into("<I", content, 4, len(content))
    entries.sort(key=lambda entry: struct.unpack_from("<H", entry)[0])
    return bytes(content + struct.pack("<H", len(entries)) + b"".join(entries) + b"\x00\x00\x00\x00")
