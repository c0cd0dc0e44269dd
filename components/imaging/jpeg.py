"""JPEG, read and written through libjpeg-turbo itself: half the time and half the memory of the way over Pillow.

Source: ITU-T T.81 (the format), ICC.1 annex B.4 (profiles in it), CIPA DC-008 (EXIF), ISO 16684-1 (XMP), JFIF 1.02 and
Adobe Photoshop File Formats (IPTC).
"""

import io
import logging
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import BinaryIO

import imagecodecs
import numpy as np
from PIL import Image

from components.imaging.formats import Beside, FormatError, Header
from components.imaging.metadata import (
    EXIF_PREFIX,
    JPEG_SEGMENT,
    exif_orientation,
    iptc_resource,
    photoshop_iptc,
    without_maker_note,
)
from components.imaging.source import Source
from components.imaging.xmp import extension, promises_gain_map, video_length

log = logging.getLogger(__name__)

SIGNATURE = b"\xff\xd8\xff"
_JPEG_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
_JPEG_XMP = b"http://ns.adobe.com/xap/1.0/\x00"
_EXTENDED = b"http://ns.adobe.com/xmp/extension/\x00"
_EXTENDED_PIECE = 65_400
_PHOTOSHOP = b"Photoshop 3.0\x00"
_ICC = b"ICC_PROFILE\x00"
_ICC_PIECE = 65_519
_LEAST_JPEG_BITS = 0.03  # per pixel: two bits per block (one for DC, one for its end), 18 blocks for 32 x 32 pixels
_OPTIMIZED_SAMPLES = 3 * 4_000_000
"""Above four megapixels a second pass for the best Huffman codes (2% smaller) costs more than it saves."""
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_SOS, _DRI, _COM, _APP0, _APP1, _APP2, _APP13 = 0xDA, 0xDD, 0xFE, 0xE0, 0xE1, 0xE2, 0xED
_NOT_SHOWN = frozenset((_APP0, _APP1, _APP2, _APP13, _COM))
_MODES = {1: "L", 3: "RGB", 4: "CMYK"}
_END = b"\xff\xd9"
_FILLERS = (b"\x55\xaa\x0f\x33", b"\x2a\x6c\xb5\x91")
"""Data of no picture, two kinds: a decoder that reaches them lacked data, and shows it."""
_MOST_SEGMENTS = 10_000
_MOST_SCANS = 200
"""Of one picture. Encoders write about ten; each costs a pass over all of its blocks, however few bytes it has."""


@dataclass
class Segments:
    """What a JPEG file holds before its first scan.

    Attributes:
        frame: marker and data of the frame header, or None.
        scan: where the first scan begins.
        is_interleaved: whether that one has all components.
        interval: restart interval, in units of T.81; 0 for none.
        shown: all segments that decoding needs.
        blocks: data of the application segments and comments by marker.
    """

    frame: tuple[int, bytes] | None = None
    scan: int = 0
    is_interleaved: bool = False
    interval: int = 0
    shown: bytearray = field(default_factory=bytearray)
    blocks: dict[int, list[bytes]] = field(default_factory=dict)

    @property
    def may_have_scans(self) -> bool:
        """Whether more scans than one are decoded: of a sequential picture whose first scan lacks a component, too."""
        return self.frame is not None and (self.frame[0] not in (0xC0, 0xC1) or not self.is_interleaved)

    @property
    def exif(self) -> bytes | None:
        found = [data[6:] for data in self.blocks.get(_APP1, []) if data.startswith(EXIF_PREFIX)]
        return b"".join(found) or None

    @property
    def xmp(self) -> bytes | None:
        found = [data[len(_JPEG_XMP) :] for data in self.blocks.get(_APP1, []) if data.startswith(_JPEG_XMP)]
        return found[0] or None if found else None

    @property
    def extended_xmp(self) -> bytes | None:
        """What did not fit the XMP packet, or None where it names nothing more or that is not all there."""
        name = extension(self.xmp) if self.xmp else b""
        head = len(_EXTENDED) + len(name) + 8
        pieces = [data for data in self.blocks.get(_APP1, []) if name and data.startswith(_EXTENDED + name)]
        places = sorted(
            (struct.unpack(">II", data[head - 8 : head])[::-1], data[head:]) for data in pieces if len(data) > head
        )
        content = b"".join(data for _, data in places)
        wholes = {whole for (_, whole), _ in places}
        return content if wholes == {len(content)} else None

    @property
    def icc(self) -> bytes | None:
        pieces = sorted(data[len(_ICC) :] for data in self.blocks.get(_APP2, []) if data.startswith(_ICC))
        return b"".join(piece[2:] for piece in pieces) or None

    @property
    def beside(self) -> Beside:
        """IPTC, comment and resolution."""
        resources = b"".join(
            data[len(_PHOTOSHOP) :] for data in self.blocks.get(_APP13, []) if data.startswith(_PHOTOSHOP)
        )
        density = None
        for data in self.blocks.get(_APP0, []):
            if data.startswith(b"JFIF\x00") and len(data) >= 12 and data[7] in (1, 2):
                per_inch = 1.0 if data[7] == 1 else 2.54
                x, y = struct.unpack(">HH", data[8:12])
                density = (x * per_inch, y * per_inch) if x and y else None
        comments = self.blocks.get(_COM, [])
        comment = b"\n".join(comments) or None
        return Beside(photoshop_iptc(resources), comment, density=density, extended_xmp=self.extended_xmp)

    @property
    def pictures(self) -> int:
        """Pictures in the file by its index of several (CIPA DC-007, NumberOfImages), or by XMP's gain map."""
        least = 2 if self.xmp and promises_gain_map(self.xmp) else 1
        for data in self.blocks.get(_APP2, []):
            if data.startswith(b"MPF\x00") and data[4:6] in (b"II", b"MM"):
                return max(least, _indexed(data))
        return least


def _indexed(data: bytes) -> int:
    """NumberOfImages of an index of several pictures; 1 where it is damaged."""
    order = "<" if data[4:6] == b"II" else ">"
    try:
        (first,) = struct.unpack_from(order + "I", data, 8)
        (count,) = struct.unpack_from(order + "H", data, 4 + first)
        for index in range(count):
            tag, _, _, value = struct.unpack_from(order + "HHII", data, 4 + first + 2 + 12 * index)
            if tag == 0xB001:
                return max(1, min(value, 1000))
    except struct.error:
        pass
    return 1


def read_segments(file: BinaryIO) -> Segments:
    """The segments of a JPEG file up to its first scan; of a damaged one those before the damage."""
    segments = Segments(shown=bytearray(SIGNATURE[:2]))
    offset = 2
    for _ in range(_MOST_SEGMENTS):
        file.seek(offset)
        start = file.read(4)
        if len(start) < 4 or start[0] != 0xFF:
            break
        marker = start[1]
        if marker == 0xFF or 0xD0 <= marker <= 0xD7 or marker == 0x01:  # a fill byte, or a marker without data
            offset += 1 if marker == 0xFF else 2
            continue
        if marker == _SOS:
            components = file.read(1)
            segments.is_interleaved = segments.frame is not None and components == segments.frame[1][5:6]
            break
        size = int.from_bytes(start[2:], "big")
        data = file.read(size - 2) if size > 2 else b""
        if len(data) < size - 2 or size < 2:
            break
        if marker in _FRAMES and segments.frame is None:
            segments.frame = (marker, data)
        if marker == _DRI and len(data) >= 2:
            segments.interval = int.from_bytes(data[:2], "big")
        if marker in _NOT_SHOWN:
            segments.blocks.setdefault(marker, []).append(data)
        if marker not in _NOT_SHOWN or (marker == _APP0 and data.startswith(b"JFIF\x00") and len(data) >= 14):
            segments.shown += start + data
        offset += 2 + size
    segments.scan = offset
    return segments


def jpeg_header(source: Source) -> Header:
    """Size and mode by the frame header, and the orientation by EXIF.

    Raises:
        FormatError: there is no frame header, or one of a kind that is not read.
    """
    with source.open() as file:
        segments = read_segments(file)
        file.seek(segments.scan)
        scans = file.read() if segments.may_have_scans else b""
    if segments.frame is None or len(segments.frame[1]) < 6:
        raise FormatError("corrupt or truncated: the file ends before the size of its picture")
    depth, height, width, components = struct.unpack(">BHHB", segments.frame[1][:6])
    if depth != 8:
        raise FormatError(f"JPEG of {depth} bits per sample: save it with 8, or as TIFF")
    if components not in _MODES:
        raise FormatError(f"JPEG of {components} components: save it as greyscale, RGB or CMYK")
    if _has_too_many_scans(scans):
        raise FormatError(f"a JPEG of more than {_MOST_SCANS} scans, each of which goes over the whole picture")
    orientation = exif_orientation(segments.exif)
    return Header(width, height, "JPEG", _MODES[components], 8, orientation, segments.pictures)


def _has_too_many_scans(scans: bytes) -> bool:
    """Whether a picture, from its first scan to its end, has more scans than are decoded."""
    offset = count = 0
    for _ in range(_MOST_SEGMENTS):
        found = _JPEG_MARKER.search(scans, offset)
        if found is None or found[0] == _END:
            return False
        count += found[0][1] == _SOS
        if count > _MOST_SCANS:
            return True
        offset = found.end() + max(2, int.from_bytes(scans[found.end() : found.end() + 2], "big"))
    return True


def jpeg_samples(source: Source, header: Header) -> tuple[np.ndarray, Segments, Beside]:
    """Samples of a JPEG, (H, W) grey, (H, W, 3) RGB or (H, W, 4) CMYK, and what its file holds beside them.

    A file without its end marker is read where all its data is there, and said to be so.

    Raises:
        FormatError: the file ends before its end-of-image marker (ITU-T T.81, annex B) and lacks data, or has fewer
            bits than its frame header needs, which libjpeg would fill up.
    """
    content = source.read_bytes()
    segments = read_segments(io.BytesIO(content))
    beside = segments.beside
    if segments.xmp and (length := video_length(segments.xmp)) and length < len(content) - segments.scan:
        video = content[-length:]
        if video[4:8] == b"ftyp":
            beside = replace(beside, video=video)
    scans = content[segments.scan :]
    del content
    is_baseline = segments.frame is not None and segments.frame[0] in (0xC0, 0xC1)
    if is_baseline and 8 * len(scans) < _LEAST_JPEG_BITS * header.width * header.height:
        raise FormatError("corrupt or truncated: the picture data ends too early")
    if not any(marker[0] == _END for marker in _JPEG_MARKER.finditer(scans, 2)):
        return _mended(segments, scans, header, str(source)), segments, beside
    return _decoded(b"".join((segments.shown, scans)), header), segments, beside


def _decoded(content: bytes, header: Header) -> np.ndarray:
    if header.mode == "RGB":
        samples = np.empty((header.height, header.width, 3), np.uint8)
        return imagecodecs.jpeg8_decode(content, outcolorspace="rgb", out=samples)
    with Image.open(io.BytesIO(content), formats=["JPEG"]) as image:
        image.load()
        return np.asarray(image)


def _mended(segments: Segments, scans: bytes, header: Header, name: str) -> np.ndarray:
    """Samples of a file without end marker, decoded with different things behind it: they must make no difference."""
    error = FormatError("corrupt or truncated: the picture data ends too early")
    data = scans[: _trailer(scans)]
    if len(data) < 12 or segments.frame is None or not _has_all_scans(segments, data):
        raise error
    first, second = (_decoded(b"".join((segments.shown, data, filler * 2500, _END)), header) for filler in _FILLERS)
    if not np.array_equal(first, second):
        raise error
    more = f", but {len(scans) - len(data):,} bytes of another kind," if len(data) < len(scans) else ""
    log.warning("%s: its JPEG has no end marker%s though all its picture data is there: mended", name, more)
    return first


def _trailer(scans: bytes) -> int:
    """Where the data of the picture ends: before the blocks that Samsung's phones put behind it, if any."""
    if not scans.endswith(b"SEFT"):
        return len(scans)
    head = scans.rfind(b"SEFH")
    if head < 0:
        return len(scans)
    (count,) = struct.unpack_from("<I", scans.ljust(head + 12, b"\x00"), head + 8)
    try:
        offsets = [struct.unpack_from("<I", scans, head + 16 + 12 * index)[0] for index in range(min(count, 1000))]
    except struct.error:
        offsets = []
    start = head - max(offsets, default=0)
    return start if 0 < start <= head else head


def _has_all_scans(segments: Segments, scans: bytes) -> bool:
    """Whether every scan that the frame needs has begun, and every restart marker is there."""
    assert segments.frame is not None
    marker, frame = segments.frame
    components = {frame[6 + 3 * index]: frame[7 + 3 * index] for index in range(frame[5]) if 8 + 3 * index < len(frame)}
    if segments.interval:
        if len(components) != frame[5] or marker not in (0xC0, 0xC1):
            return False
        across, down = (max(factor >> 4 for factor in components.values()), max(f & 15 for f in components.values()))
        height, width = struct.unpack(">HH", frame[1:5])
        if len(components) == 1:
            across = down = 1
        if not across or not down:
            return False
        units = -(-width // (8 * across)) * -(-height // (8 * down))
        return len(re.findall(rb"\xff[\xd0-\xd7]", scans)) == -(-units // segments.interval) - 1
    missing = {(name, place) for name in components for place in (range(64) if marker == 0xC2 else range(1))}
    for found in re.finditer(rb"\xff\xda", scans):
        body = scans[found.end() + 2 : found.end() + 2 + 12]
        if not body or len(body) < 4 + 2 * body[0]:
            return False
        names = [body[1 + 2 * index] for index in range(body[0])]
        first, last, approximation = body[1 + 2 * body[0] : 4 + 2 * body[0]]
        if marker != 0xC2:
            missing -= {(name, 0) for name in names}
        elif not approximation & 15:
            missing -= {(name, place) for name in names for place in range(first, last + 1)}
    return not missing


def encode_jpeg(
    samples: np.ndarray,
    icc: bytes | None = None,
    exif: bytes | None = None,
    xmp: bytes | None = None,
    quality: int = 95,
    beside: Beside | None = None,
) -> bytes:
    """(H, W, 3) uint8 samples as baseline JPEG without chroma subsampling.

    EXIF, XMP and the like are written as they are; what does not fit is left out, with a warning.
    """
    beside = beside or Beside()
    optimize = samples.size <= _OPTIMIZED_SAMPLES
    content = imagecodecs.jpeg8_encode(
        np.ascontiguousarray(samples), level=quality, colorspace="rgb", subsampling="444", optimize=optimize
    )
    segments = []
    if exif := _fitting(exif, "EXIF"):
        segments.append((_APP1, EXIF_PREFIX + exif))
    if xmp := _fitting(xmp, "XMP"):
        segments.append((_APP1, _JPEG_XMP + xmp))
        segments += [(_APP1, piece) for piece in _extended_pieces(extension(xmp), beside.extended_xmp or b"")]
    pieces = [icc[start : start + _ICC_PIECE] for start in range(0, len(icc), _ICC_PIECE)] if icc else []
    if len(pieces) > 255:
        log.warning("the colour profile of %d bytes does not fit a JPEG and is left out", len(icc or b""))
        pieces = []
    for number, piece in enumerate(pieces, start=1):  # ICC.1, annex B.4
        segments.append((_APP2, _ICC + bytes((number, len(pieces))) + piece))
    if iptc := _fitting(beside.iptc, "IPTC"):
        segments.append((_APP13, _PHOTOSHOP + iptc_resource(iptc)))
    if comment := _fitting(beside.comment or _described(beside), "comment"):
        segments.append((_COM, comment))
    jfif = content[2:4] == b"\xff\xe0"
    head = 4 + int.from_bytes(content[4:6], "big") if jfif else 2  # JFIF comes first
    start = bytearray(content[:head])
    if beside.density and jfif and head >= 20:
        x, y = (min(max(round(value), 1), 65_535) for value in beside.density)
        start[13:18] = struct.pack(">BHH", 1, x, y)
    blocks = [struct.pack(">BBH", 0xFF, marker, len(data) + 2) + data for marker, data in segments]
    return b"".join((bytes(start), *blocks, content[head:], beside.video or b""))


def _extended_pieces(name: bytes, extended: bytes) -> Iterator[bytes]:
    """The extension of an XMP packet as it is spread over segments (XMP 3, 1.1.3.1)."""
    for start in range(0, len(extended), _EXTENDED_PIECE):
        yield _EXTENDED + name + struct.pack(">II", len(extended), start) + extended[start : start + _EXTENDED_PIECE]


def _described(beside: Beside) -> bytes | None:
    """A comment of a PNG's text of that name."""
    return next((text.encode("utf-8", "surrogateescape") for name, text in beside.texts if name == "Comment"), None)


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
