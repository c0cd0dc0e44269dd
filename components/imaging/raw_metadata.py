"""EXIF of camera raw, which each maker keeps in a place of its own.

Most raw files are TIFF (NEF, CR2, ARW, DNG, ...). Panasonic's, Leica's and Olympus's are TIFF but for their first
bytes. Canon's CR3 has a block for each directory in boxes, and the others (RAF, CRW, X3F) carry a JPEG preview with a
block in it. Source: ExifTool's descriptions of these formats, and CIPA DC-008.
"""

import io
import logging

from PIL import ExifTags

from components.imaging.boxes import Boxes
from components.imaging.jpeg import SIGNATURE, read_segments
from components.imaging.metadata import DESCRIPTIVE_TAGS, Directories, loaded_exif, made_block, tiff_exif
from components.imaging.source import MemoryFile, Source

log = logging.getLogger(__name__)

_TIFF = (b"II*\x00", b"MM\x00*")
_NEARLY_TIFF = {b"IIRO": b"II*\x00", b"IIRS": b"II*\x00", b"IIU\x00": b"II*\x00", b"MMOR": b"MM\x00*"}
_CR3 = b"ftypcrx "
_CR3_DIRECTORIES = {b"CMT2": ExifTags.IFD.Exif, b"CMT4": ExifTags.IFD.GPSInfo}


def raw_exif(source: Source, preview: bytes | None) -> bytes | None:
    """The EXIF block of a raw file, or None where it has none that is known.

    Args:
        preview: the JPEG in it, or None.

    Raises:
        OSError: the file cannot be read.
    """
    with source.open() as file:
        start = file.read(16)
    if start[:4] in _TIFF:
        return tiff_exif(source)
    found = []
    if start[:4] in _NEARLY_TIFF:
        content = _NEARLY_TIFF[start[:4]] + source.read_bytes()[4:]
        found.append(tiff_exif(Source(MemoryFile(str(source), content))))
    elif start[4:12] == _CR3:
        found.append(_canon_exif(source.read_bytes()))
    if preview and preview.startswith(SIGNATURE):
        found.append(read_segments(io.BytesIO(preview)).exif)
    blocks = [block for block in found if block]
    return next(filter(_tells_camera_and_date, blocks), blocks[0] if blocks else None)


def _tells_camera_and_date(block: bytes) -> bool:
    try:
        exif = loaded_exif(block)
        return ExifTags.Base.Make in exif and ExifTags.Base.DateTimeOriginal in exif.get_ifd(ExifTags.IFD.Exif)
    except Exception as error:  # Pillow raises anything on a damaged block
        log.warning("the EXIF block of a preview is damaged: %s", error)
        return False


def _canon_exif(content: bytes) -> bytes | None:
    """One block of the TIFF structures that a CR3 has for each directory."""
    main: dict[int, object] = {}
    directories: Directories = {}
    for kind, block in Boxes(content).canon_blocks.items():
        try:
            exif = loaded_exif(block)
            values = {int(tag): value for tag, value in exif.items()}
        except Exception as error:  # Pillow raises anything on a damaged block
            log.warning("a CR3 file's block %s is damaged and left out: %s", kind.decode(), error)
            continue
        if kind == b"CMT1":
            main = {int(tag): values[tag] for tag in DESCRIPTIVE_TAGS if tag in values}
        else:
            directories[int(_CR3_DIRECTORIES[kind])] = values
    return made_block(main, directories) if main or directories else None
