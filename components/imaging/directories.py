"""Directories of TIFF files and EXIF blocks, walked before a decoder reads them.

A directory is a list of pointers, and nothing in the format keeps ten thousand of them from pointing to the same
hundred kilobytes, which decoders would copy for each. So entries, and the bytes that they point to, are counted first.
Source: TIFF 6.0 section 2, and BigTIFF.
"""

import io
import struct
from typing import BinaryIO

from components.imaging.formats import FormatError

_MOST_ENTRIES = 20_000
"""Of all directories of a file together; a thousand pages of a scanner have fifteen each."""
_MOST_TIMES = 2
"""How often all the bytes of a file may be pointed to."""
_GRACE = 2**16
"""Bytes that may be pointed to in any case: a few directories of one small file often share a value."""
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_POINTERS = frozenset((330, 34_665, 34_853, 40_965))  # inner pages, EXIF, GPS, interoperability


def check_directories(file: BinaryIO) -> None:
    """Walk all directories of a TIFF structure; where they are damaged the walk ends, which decoders will tell.

    Raises:
        FormatError: they have more entries, or point to more bytes, than any photo's.
    """
    length = file.seek(0, io.SEEK_END)
    file.seek(0)
    start = file.read(16)
    if len(start) < 8:
        return
    order = "<" if start[:2] == b"II" else ">"
    is_big = start[2:4] in (b"+\x00", b"\x00+") and len(start) == 16
    layout = _Layout(order, is_big)
    (first,) = struct.unpack_from(layout.pointer, start, 8 if is_big else 4)
    waiting, seen = [first], set()
    entries = pointed = 0
    while waiting:
        offset = waiting.pop()
        if offset in seen or not 8 <= offset < length:
            continue
        seen.add(offset)
        file.seek(offset)
        head = file.read(struct.calcsize(layout.count))
        if len(head) < struct.calcsize(layout.count):
            continue
        (count,) = struct.unpack(layout.count, head)
        size = struct.calcsize(layout.entry)
        entries += min(count, (length - offset) // size)
        if entries > _MOST_ENTRIES:
            raise FormatError(f"its directories have more than {_MOST_ENTRIES:,} entries, which no photo has")
        table = file.read(count * size)
        for tag, kind, number, value in struct.iter_unpack(layout.entry, table[: len(table) // size * size]):
            taken = number * _SIZES.get(kind, 0)
            is_inside = taken <= len(value)
            place = struct.unpack(layout.pointer, value)[0]
            if not is_inside:
                pointed += max(0, min(taken, length - place))
            if pointed > _MOST_TIMES * length + _GRACE:
                raise FormatError(f"its directories point to more than {pointed:,} bytes in a file of {length:,}")
            if tag in _POINTERS:
                waiting += [place] if is_inside else layout.pointers(file, place, min(number, _MOST_ENTRIES))
        following = file.read(struct.calcsize(layout.pointer)) if len(table) == count * size else b""
        if len(following) == struct.calcsize(layout.pointer):
            waiting += struct.unpack(layout.pointer, following)


class _Layout:
    """How numbers are written: ``count`` of a directory, ``entry`` of tag, type, count and value, and a ``pointer``."""

    def __init__(self, order: str, is_big: bool):
        self.count = order + ("Q" if is_big else "H")
        self.entry = order + ("HHQ8s" if is_big else "HHI4s")
        self.pointer = order + ("Q" if is_big else "I")

    def pointers(self, file: BinaryIO, place: int, number: int) -> list[int]:
        """The pointers at a place of a file; the file is left where it was."""
        before, size = file.tell(), struct.calcsize(self.pointer)
        file.seek(place)
        content = file.read(number * size)
        file.seek(before)
        return [pointer for (pointer,) in struct.iter_unpack(self.pointer, content[: len(content) // size * size])]
