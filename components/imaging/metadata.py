"""EXIF blocks: read out of TIFF files, corrected for upright pixels, kept byte for byte where possible; and IPTC."""

import io
import logging
import struct
from collections.abc import Mapping
from typing import Any, BinaryIO

import tifffile
from PIL import ExifTags, Image, TiffImagePlugin

from components.imaging.directories import check_directories
from components.imaging.source import Source
from components.imaging.xmp import xmp_orientation

log = logging.getLogger(__name__)

EXIF_PREFIX = b"Exif\x00\x00"
Directories = dict[int, dict[int, Any]]
"""Values by tag of the directories that the first one points to, by the tag that does."""
JPEG_SEGMENT = 65_500
"""Largest block that a JPEG holds, bytes, rounded down."""
DESCRIPTIVE_TAGS = (
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
    ExifTags.Base.DocumentName,
    ExifTags.Base.HostComputer,
    ExifTags.Base.Rating,
    ExifTags.Base.RatingPercent,
    ExifTags.Base.XPTitle,
    ExifTags.Base.XPComment,
    ExifTags.Base.XPAuthor,
    ExifTags.Base.XPKeywords,
    ExifTags.Base.XPSubject,
)
_ASCII, _SHORT, _LONG = 2, 3, 4


def loaded_exif(block: bytes | None) -> Image.Exif:
    """An EXIF block as Pillow reads it.

    Raises:
        Exception: whatever Pillow raises on a damaged block; FormatError where its directories are made to do harm.
    """
    exif = Image.Exif()
    if block:
        check_directories(io.BytesIO(block.removeprefix(EXIF_PREFIX)))
        exif.load(block)
    return exif


def exif_orientation(block: bytes | None, xmp: bytes | None = None) -> int:
    """The orientation in an EXIF block, or else in an XMP packet; 1 where neither has one."""
    try:
        exif = loaded_exif(block)
        if ExifTags.Base.Orientation in exif:
            return valid_orientation(exif[ExifTags.Base.Orientation])
    except Exception as error:  # Pillow raises anything on a damaged block
        log.warning("the EXIF block is damaged, and its orientation is not known: %s", error)
    return xmp_orientation(xmp) if xmp else 1


def says_adobe_rgb(block: bytes | None) -> bool:
    """Whether an EXIF block names Adobe RGB: by "uncalibrated" and the file system's option (DCF 2.0, 3.3), or by 2."""
    try:
        exif = loaded_exif(block)
        space = exif.get_ifd(ExifTags.IFD.Exif).get(ExifTags.Base.ColorSpace)
        option = exif.get_ifd(ExifTags.IFD.Interop).get(1)
    except Exception:  # Pillow raises anything on a damaged block, which names nothing
        return False
    return space == 2 or (space == 65_535 and str(option).startswith("R03"))


def valid_orientation(value: object) -> int:
    """An orientation tag's value, 1 where it is nonsense."""
    return value if isinstance(value, int) and value in range(1, 9) else 1


def tiff_exif(source: Source) -> bytes | None:
    """The descriptive tags of a TIFF-based file, with its EXIF and GPS directories, as an EXIF block."""
    block = Image.Exif()
    try:
        with source.open() as file:
            check_directories(file)
            file.seek(0)
            if file.read(4) == b"MM\x00+":
                main, directories = _big_endian_words(file)
            else:
                file.seek(0)
                _load(block, file)
                main = {int(code): block[code] for code in DESCRIPTIVE_TAGS if code in block}
                directories = sub_directories(block)
        return made_block(main, directories) if main or directories else None
    except Exception as error:  # Pillow raises anything on a damaged directory
        if source.error is not None:
            raise
        log.warning("%s: its EXIF is damaged and left out: %s", source, error)
        return None


def sub_directories(block: Image.Exif) -> Directories:
    """The EXIF, GPS and interoperability directories of a block that has been loaded."""
    found = {int(ifd): dict(block.get_ifd(ifd)) for ifd in (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo)}
    if ExifTags.IFD.Interop in found[ExifTags.IFD.Exif]:
        found[ExifTags.IFD.Interop] = dict(block.get_ifd(ExifTags.IFD.Interop))
    return {ifd: values for ifd, values in found.items() if values}


def placed(directories: Directories, offset: int) -> tuple[bytes, dict[int, int]]:
    """Directories of a little-endian block from ``offset`` on, and where each begins."""
    content = b""
    places: dict[int, int] = {}
    for ifd in (ExifTags.IFD.Interop, ExifTags.IFD.GPSInfo, ExifTags.IFD.Exif):  # the last points to the first
        if ifd not in directories:
            continue
        values = dict(directories[ifd])
        values.pop(ExifTags.IFD.Interop, None)
        if ifd == ExifTags.IFD.Exif and ExifTags.IFD.Interop in places:
            values[ExifTags.IFD.Interop] = places[ExifTags.IFD.Interop]
        content += bytes(len(content) % 2)
        places[int(ifd)] = offset + len(content)
        content += _directory(values, ifd).tobytes(offset + len(content))
    return content, {ifd: place for ifd, place in places.items() if ifd != ExifTags.IFD.Interop}


def made_block(main: dict[int, Any], directories: Directories) -> bytes:
    """An EXIF block of a first directory and those that it points to, texts in the bytes that they had.

    Pillow would write every letter beyond ASCII as a question mark.
    """
    pointers = {ifd: 0 for ifd in directories if ifd != ExifTags.IFD.Interop}
    length = 8 + len(_directory(main | pointers).tobytes(8))
    length += length % 2
    content, places = placed(directories, length)
    first = _directory(main | places).tobytes(8)
    return b"II*\x00\x08\x00\x00\x00" + first.ljust(length - 8, b"\x00") + content


def text_bytes(text: str) -> bytes:
    """A text in the bytes that it had in its file, of which Pillow makes a letter each; others in UTF-8."""
    try:
        return text.encode("latin-1")
    except UnicodeEncodeError:
        return text.encode("utf-8")


def _directory(values: dict[int, Any], ifd: int | None = None) -> TiffImagePlugin.ImageFileDirectory_v2:
    directory = TiffImagePlugin.ImageFileDirectory_v2(b"II*\x00\x00\x00\x00\x00", group=ifd)
    for tag, value in values.items():
        directory[tag] = value
        if isinstance(value, str) and not value.isascii():
            directory[tag] = text_bytes(value)
            directory.tagtype[tag] = _ASCII
    return directory


def _load(block: Image.Exif, file: BinaryIO) -> None:
    """Read the first directory of a TIFF file, of one with offsets of 64 bits (BigTIFF) too."""
    head = file.read(16)
    order = {b"II": "<", b"MM": ">"}.get(head[:2], "<")
    if len(head) == 16 and struct.unpack_from(order + "H", head, 2)[0] == 43:
        block.bigtiff, block.endian = True, order
        block.load_from_fp(file, struct.unpack_from(order + "Q", head, 8)[0])
    else:
        file.seek(0)
        block.load_from_fp(file)


def _big_endian_words(file: BinaryIO) -> tuple[dict[int, Any], Directories]:
    """What a big-endian BigTIFF, which Pillow's reader cannot load, says in words: camera, author, times."""
    file.seek(0)
    with tifffile.TiffFile(file) as tiff:
        tags = tiff.pages[0].tags
        main = {int(code): tags.valueof(int(code)) for code in DESCRIPTIVE_TAGS}
        details = tags.valueof(int(ExifTags.IFD.Exif))
    exif = {
        int(ExifTags.Base[name]): value
        for name, value in (details.items() if isinstance(details, dict) else ())
        if isinstance(value, str) and value and name in ExifTags.Base.__members__
    }
    words = {code: value for code, value in main.items() if isinstance(value, str) and value}
    return words, {int(ExifTags.IFD.Exif): exif} if exif else {}


def upright_exif(exif: bytes, width: int, height: int, is_srgb: bool = False) -> bytes:
    """Patch an EXIF block in place for pixels already turned upright: orientation 1, stored size, no stale thumbnail.

    With ``is_srgb`` it also says sRGB, as a block from a camera that was set to Adobe RGB would not. Every other byte
    stays as it was, maker notes included. A block too damaged to walk is returned unchanged.
    """
    block = bytearray(exif)
    try:
        order = {b"II": "<", b"MM": ">"}[bytes(block[:2])]
        first = struct.unpack_from(order + "I", block, 4)[0]
        count = struct.unpack_from(order + "H", block, first)[0]
        struct.pack_into(order + "I", block, first + 2 + 12 * count, 0)  # no next IFD: it held the old thumbnail
        pointers = _patch_ifd(block, order, first, {ExifTags.Base.Orientation: 1}, ExifTags.IFD.Exif)
        sizes = {ExifTags.Base.ExifImageWidth: width, ExifTags.Base.ExifImageHeight: height}
        sizes |= {ExifTags.Base.ColorSpace: 1} if is_srgb else {}
        for pointer in pointers:
            _patch_ifd(block, order, pointer, sizes, None)
    except (KeyError, struct.error):
        return exif
    return bytes(block)


def without_orientation(exif: bytes) -> bytes:
    """An EXIF block whose first directory tells no orientation; every other value stays where it was."""
    block = bytearray(exif)
    try:
        order = {b"II": "<", b"MM": ">"}[bytes(block[:2])]
        first = struct.unpack_from(order + "I", block, 4)[0]
        count = struct.unpack_from(order + "H", block, first)[0]
        end = first + 2 + 12 * count + 4  # behind the place of the next directory
        for entry in range(first + 2, end - 4, 12):
            if struct.unpack_from(order + "H", block, entry)[0] == ExifTags.Base.Orientation and end <= len(block):
                block[entry:end] = block[entry + 12 : end] + bytes(12)
                struct.pack_into(order + "H", block, first, count - 1)
                break
    except (KeyError, struct.error):
        return exif
    return bytes(block)


def without_maker_note(exif: bytes) -> bytes:
    """An EXIF block without the maker's private notes, which make most of a large one.

    Raises:
        Exception: whatever Pillow raises on a damaged block.
    """
    source = loaded_exif(exif)
    directories = sub_directories(source)
    directories.get(ExifTags.IFD.Exif, {}).pop(ExifTags.Base.MakerNote, None)
    main = {tag: value for tag, value in source.items() if tag not in (*directories, ExifTags.IFD.Interop)}
    return made_block(main, directories)


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


def photoshop_iptc(resources: bytes) -> bytes | None:
    """The IPTC records in Photoshop's image resources (Adobe Photoshop File Formats, resource 1028)."""
    offset = 0
    while offset + 12 <= len(resources) and resources[offset : offset + 4] == b"8BIM":
        (number,) = struct.unpack_from(">H", resources, offset + 4)
        name = resources[offset + 6]
        offset += 6 + name + 1 + (name + 1) % 2
        if offset + 4 > len(resources):
            break
        (size,) = struct.unpack_from(">I", resources, offset)
        if number == 1028:
            return resources[offset + 4 : offset + 4 + size] or None
        offset += 4 + size + size % 2
    return None


def iptc_resource(iptc: bytes) -> bytes:
    """IPTC records as Photoshop's image resource 1028."""
    return b"8BIM\x04\x04\x00\x00" + struct.pack(">I", len(iptc)) + iptc + bytes(len(iptc) % 2)
