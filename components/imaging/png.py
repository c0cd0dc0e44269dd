"""PNG by its chunks: what lies beside the pixels, colours included, and files written with it.

Pillow refuses a whole picture over one text of more than a megabyte or one malformed text, and libpng reads no text and
no colours here. So the chunks are walked by this module, and a decoder is shown only those that the pixels need.
Source: Portable Network Graphics, third edition (W3C 2025); "Raw profile type" texts are ImageMagick's and ExifTool's.
"""

import logging
import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import BinaryIO

import imagecodecs
import numpy as np

from components.imaging import profiles
from components.imaging.formats import Beside
from components.imaging.metadata import EXIF_PREFIX, iptc_resource, photoshop_iptc

log = logging.getLogger(__name__)

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_TEXTS = (b"tEXt", b"zTXt", b"iTXt")
_UNSHOWN = (*_TEXTS, b"eXIf", b"iCCP", b"gAMA", b"cHRM", b"sRGB", b"cICP")
_MOST_TEXT = 16 * 2**20
"""Bytes of one text or profile after decompression; a longer one is left out."""
_MOST_TEXTS = 2 * _MOST_TEXT
"""Bytes of all texts of a file after decompression; those beyond it are left out."""
_MOST_INFLATED = 1032  # bytes that one byte of deflate can become
_MOST_CHUNKS = 100_000
_XMP = "XML:com.adobe.xmp"
_RAW_PROFILE = "Raw profile type "
_METRES_AN_INCH = 0.0254
_SRGB_GAMMA, _INSIGNIFICANT = 1 / 2.2, 0.05
"""A gAMA this near to sRGB's is meant as sRGB: libpng's PNG_GAMMA_THRESHOLD."""


@dataclass
class Chunks:
    """What a PNG file holds beside its pixels.

    Attributes:
        head: the file up to its pixels, without what decoders need not see.
        found: the data of the first chunk of each name, pixels and texts left out.
        texts: keyword and text of every text chunk.
    """

    head: bytearray = field(default_factory=lambda: bytearray(SIGNATURE))
    found: dict[bytes, bytes] = field(default_factory=dict)
    texts: list[tuple[str, str]] = field(default_factory=list)

    @property
    def exif(self) -> bytes | None:
        """The EXIF block: of eXIf, or of the text that was its forerunner."""
        raw = self.found.get(b"eXIf") or self._raw_profile("exif") or self._raw_profile("APP1")
        return raw.removeprefix(EXIF_PREFIX) or None if raw else None

    @property
    def xmp(self) -> bytes | None:
        texts = dict(reversed(self.texts))
        if _XMP in texts:
            return texts[_XMP].encode("utf-8", "surrogateescape") or None
        return self._raw_profile("xmp")

    @property
    def beside(self) -> Beside:
        """Texts, IPTC and resolution."""
        iptc = self._raw_profile("iptc")
        if iptc and iptc.startswith(b"8BIM"):
            iptc = photoshop_iptc(iptc)
        texts = tuple((name, text) for name, text in self.texts if name != _XMP and not name.startswith(_RAW_PROFILE))
        density = None
        physical = self.found.get(b"pHYs", b"")
        if len(physical) == 9 and physical[8] == 1:
            x, y = struct.unpack(">II", physical[:8])
            density = (x * _METRES_AN_INCH, y * _METRES_AN_INCH) if x and y else None
        return Beside(iptc=iptc, texts=texts, density=density)

    @property
    def code_points(self) -> tuple[int, int] | None:
        """Colour primaries and transfer characteristics (ITU-T H.273) of a cICP chunk."""
        data = self.found.get(b"cICP", b"")
        return (data[0], data[1]) if len(data) == 4 else None

    @property
    def profile(self) -> bytes | None:
        """The ICC profile: as it is, or made of gamma and chromaticities; None where the colours are sRGB's.

        Raises:
            components.imaging.formats.FormatError: the chromaticities span no colour space.
        """
        if (data := self.found.get(b"iCCP")) is not None:
            name, _, rest = data.partition(b"\x00")
            return _inflated(rest[1:], f"the colour profile {name[:79]!r}")
        if b"sRGB" in self.found:
            return None
        gamma = self._numbers(b"gAMA", 1)[:1] or (_SRGB_GAMMA,)
        points = self._numbers(b"cHRM", 8)
        chromaticities = points if len(points) == 8 and not np.allclose(points, profiles.SRGB, atol=2e-3) else None
        is_srgb_curve = abs(gamma[0] / _SRGB_GAMMA - 1) <= _INSIGNIFICANT
        if gamma[0] <= 0 or (is_srgb_curve and chromaticities is None):
            return None
        exponent = 2.2 if is_srgb_curve else 1 / gamma[0]
        if not 0.1 <= exponent <= 10:
            log.warning("a gAMA chunk of %g is no display's, and the samples are taken as sRGB", gamma[0])
            return None
        return profiles.gamma_profile(exponent, chromaticities or profiles.SRGB, f"gamma {exponent:.4g}")

    def _numbers(self, name: bytes, count: int) -> tuple[float, ...]:
        data = self.found.get(name, b"")
        return tuple(value / 100_000 for value in struct.unpack(f">{count}I", data)) if len(data) == 4 * count else ()

    def _raw_profile(self, kind: str) -> bytes | None:
        """A block that is written as hexadecimal text: a line for its name, one for its length, and the digits."""
        for name, text in self.texts:
            if name == _RAW_PROFILE + kind:
                digits = re.sub(r"\s+", "", "".join(text.strip("\n").split("\n")[2:]))
                if re.fullmatch(r"(?:[0-9a-fA-F]{2})*", digits):
                    return bytes.fromhex(digits) or None
                log.warning("the text %r is no block of metadata in hexadecimal digits, and is left out", name)
        return None


def read_chunks(file: BinaryIO, with_texts: bool = True) -> Chunks:
    """The chunks of a PNG file, whose pixels are passed over. A file that breaks off gives what it has.

    Args:
        with_texts: also what comes behind the pixels.
    """
    chunks = Chunks()
    whole = file.seek(0, 2)
    file.seek(len(SIGNATURE))
    is_head, room = True, _MOST_TEXTS
    for _ in range(_MOST_CHUNKS):
        start = file.read(8)
        if len(start) < 8:
            break
        length, name = struct.unpack(">I4s", start)
        if name == b"IDAT":
            if is_head and not with_texts:
                chunks.head += start
                break
            if is_head:
                chunks.head += start
            is_head = False
            file.seek(length + 4, 1)
            continue
        if length > whole - file.tell():  # which no memory is taken for
            break
        data = file.read(length)
        check = file.read(4)
        if len(data) < length or name == b"IEND":
            break
        if is_head and name not in _UNSHOWN:
            chunks.head += start + data + check
        if name in _TEXTS:
            if room <= 0:
                continue
            text = _text(name, data)
            if text is not None:
                chunks.texts.append(text)
            room -= min(_MOST_TEXT, _MOST_INFLATED * length) if text is None else len(text[1])
            if room <= 0:
                log.warning("texts of more than %d bytes are in the file; the rest is left out", _MOST_TEXTS)
        elif zlib.crc32(name + data) == int.from_bytes(check, "big"):
            chunks.found.setdefault(name, data)
    return chunks


def pixels_only(content: bytes) -> bytes:
    """The file without texts, metadata and colours, for decoders that stumble over them."""
    pieces, offset = [content[: len(SIGNATURE)]], len(SIGNATURE)
    for _ in range(_MOST_CHUNKS):
        if offset + 8 > len(content):
            break
        length, name = struct.unpack_from(">I4s", content, offset)
        if name not in _UNSHOWN:
            pieces.append(content[offset : offset + length + 12])
        offset += length + 12
    return b"".join(pieces)


def encode_png(
    samples: np.ndarray,
    icc: bytes | None = None,
    exif: bytes | None = None,
    xmp: bytes | None = None,
    fast: bool = False,
    beside: Beside | None = None,
) -> bytes:
    """(H, W[, C]) uint8 or uint16 samples, 1 to 4 channels, as PNG, with profile, EXIF, XMP and what else there is.

    ``fast`` takes a fifth of the time for about 5% more bytes, measured on photos.
    """
    png = imagecodecs.PNG
    options = {"strategy": png.STRATEGY.RLE, "filter": png.FILTER.SUB} if fast else {}
    content = imagecodecs.png_encode(np.ascontiguousarray(samples), level=1 if fast else 6, **options)
    header_end = len(SIGNATURE) + 25  # IHDR is always first and 25 bytes long
    chunks = _chunk(b"iCCP", b"ICC profile\x00\x00" + zlib.compress(icc)) if icc else b""
    chunks += _chunk(b"eXIf", exif) if exif else b""
    chunks += _chunk(b"iTXt", _XMP.encode() + b"\x00\x00\x00\x00\x00" + xmp) if xmp else b""
    if beside is not None:
        chunks += b"".join(_beside_chunks(beside))
    return bytes(content[:header_end] + chunks + content[header_end:])


def _beside_chunks(beside: Beside) -> Iterator[bytes]:
    if beside.density:
        x, y = (min(round(value / _METRES_AN_INCH), 2**31 - 1) for value in beside.density)
        yield _chunk(b"pHYs", struct.pack(">IIB", x, y, 1))
    texts = list(beside.texts)
    if beside.comment and not any(name == "Comment" for name, _ in texts):
        texts.append(("Comment", beside.comment.decode("utf-8", "replace")))
    for name, text in texts:
        try:
            yield _chunk(b"tEXt", name.encode("latin-1") + b"\x00" + text.encode("latin-1"))
        except UnicodeEncodeError:
            keyword = name.encode("latin-1", "replace")
            yield _chunk(b"iTXt", keyword + b"\x00\x00\x00\x00\x00" + text.encode("utf-8", "surrogateescape"))
    if beside.iptc:
        digits = iptc_resource(beside.iptc).hex()
        lines = "\n".join(digits[start : start + 72] for start in range(0, len(digits), 72))
        raw = f"\niptc\n{len(digits) // 2:8d}\n{lines}\n".encode()
        yield _chunk(b"zTXt", f"{_RAW_PROFILE}iptc".encode() + b"\x00\x00" + zlib.compress(raw))


def _text(kind: bytes, data: bytes) -> tuple[str, str] | None:
    """Keyword and text of a text chunk; None for one that is damaged or too long."""
    keyword, mark, rest = data.partition(b"\x00")
    name = keyword.decode("latin-1")
    if not mark or not 1 <= len(name) <= 79:
        return None
    if kind == b"tEXt":
        return name, rest.decode("latin-1")
    if kind == b"zTXt":
        text = _inflated(rest[1:], f"the text {name!r}")
        return None if text is None else (name, text.decode("latin-1"))
    if len(rest) < 2:
        return None
    is_compressed = rest[0] == 1
    _, _, rest = rest[2:].partition(b"\x00")  # the language
    _, _, rest = rest.partition(b"\x00")  # the keyword in it
    inflated = _inflated(rest, f"the text {name!r}") if is_compressed else rest
    return None if inflated is None else (name, inflated.decode("utf-8", "surrogateescape"))


def _inflated(data: bytes, what: str) -> bytes | None:
    try:
        inflater = zlib.decompressobj()
        content = inflater.decompress(data, _MOST_TEXT)
    except zlib.error as error:
        log.warning("%s is damaged and left out: %s", what, error)
        return None
    if inflater.unconsumed_tail:
        log.warning("%s has more than %d bytes and is left out", what, _MOST_TEXT)
        return None
    return content or None


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
