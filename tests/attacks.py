"""Small files that make a decoder work or take memory without end: each costs its sender next to nothing."""

import io
import struct
import zlib

import imagecodecs
import numpy as np
from PIL import Image

from tests.hostile_files import chunk, picture


def jpeg_of_scans(scans: int, size: int = 64) -> bytes:
    """A progressive JPEG whose last scan is repeated: ten bytes each, for a pass over all blocks."""
    stream = io.BytesIO()
    Image.new("RGB", (size, size)).save(stream, "JPEG", progressive=True)
    content = stream.getvalue()
    last = content.rindex(b"\xff\xda")
    return content[:last] + content[last:-2] * scans + b"\xff\xd9"


def tiff_of_one_tile(side: int, bits: int = 8, padding: int = 0) -> bytes:
    """A TIFF of 64x48 pixels in one tile of ``side`` x ``side``, of which next to nothing is there."""
    data = zlib.compress(bytes(padding or 4096), 9)
    tags = {256: 64, 257: 48, 258: bits, 259: 8, 262: 2, 277: 3, 322: side, 323: side, 324: 8, 325: len(data)}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    return struct.pack("<2sHI", b"II", 42, 8 + len(data)) + data + struct.pack("<H", len(tags)) + entries + bytes(4)


def exif_of_pointers(entries: int, length: int) -> bytes:
    """An EXIF block whose entries all point to the same ``length`` bytes."""
    place = 10 + 12 * entries + 4
    table = b"".join(struct.pack("<HHII", 40_000 + index, 7, length, place) for index in range(entries))
    return b"II*\0\x08\0\0\0" + struct.pack("<H", entries) + table + bytes(4) + bytes(length)


def with_exif(block: bytes, file_format: str = "PNG") -> bytes:
    """A sound picture with that block."""
    stream = io.BytesIO()
    Image.fromarray(picture()).save(stream, file_format, exif=b"Exif\0\0" + block)
    return stream.getvalue()


def with_profile(length: int) -> bytes:
    """A sound PNG with a sound profile of ``length`` bytes, most of them zeros behind its tags."""
    profile = bytearray(imagecodecs.cms_profile("adobergb"))
    profile += bytes(length - len(profile))
    profile[:4] = struct.pack(">I", length)
    stream = io.BytesIO()
    Image.fromarray(picture()).save(stream, "PNG", icc_profile=bytes(profile))
    return stream.getvalue()


def grey_png(width: int, height: int, *chunks: bytes) -> bytes:
    """A whole grey PNG of any shape, whose rows are all alike."""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    squeezer = zlib.compressobj(9)
    row = bytes(1 + width)
    data = b"".join(squeezer.compress(row) for _ in range(height)) + squeezer.flush()
    parts = (chunk(b"IHDR", header), *chunks, chunk(b"IDAT", data), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def png_of_texts(texts: int) -> bytes:
    """A PNG with texts of 15 MiB each after decompression, 15 KB in the file."""
    text = chunk(b"zTXt", b"x\0\0" + zlib.compress(bytes(15 * 2**20), 9))
    return grey_png(8, 8, *[text] * texts)


def png_of_chunks(chunks: int) -> bytes:
    """A PNG with that many chunks of a kilobyte which nobody knows, before its pixels."""
    return grey_png(8, 8, *[chunk(b"spAm", bytes(1000))] * chunks)


def heic_of_extents(heic: bytes) -> bytes:
    """A HEIC file of 65,535 items of 65,535 pieces each, which take no byte to say."""
    count = struct.pack(">H", 0xFFFF)
    location = b"\0\0\0\0" + b"\0\0" + count + (bytes(4) + count) * 0x4000
    box = struct.pack(">I4s", 8 + len(location), b"iloc") + location
    meta = struct.pack(">I4sI", 12 + len(box), b"meta", 0) + box
    size = struct.unpack(">I", heic[:4])[0]
    return heic[:size] + meta + heic[size:]


def xmp_of_lists(items: int) -> bytes:
    """A packet of unclosed list items and of spaces, over which a backtracking pattern would go again and again."""
    names = b'xmlns:C="http://ns.google.com/photos/1.0/container/" xmlns:G="http://ns.google.com/photos/1.0/camera/"'
    head = b"<x " + names + b"><C:Directory>" + b"<rdf:li>" * items
    return head + b"</C:Directory>" + b"<G:MotionPhoto>" * items + b" " * items + b"</x>"


def noise(width: int, height: int) -> np.ndarray:
    """(H, W, 3) uint8 that nothing compresses, the same every time."""
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
