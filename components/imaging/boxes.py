"""The boxes of HEIC and AVIF files: whether all data is there, and what the file says of its main picture's colours.

Decoders fill tiles whose data is missing with a colour of their own, and tell neither that nor the code points of the
colours, nor whether a rotation is the file's own. Source: ISO/IEC 14496-12 (boxes, iloc, iref), ISO/IEC 23008-12
(item properties) and the AV1 binding for ISO base media files (av1C).
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from components.imaging.formats import FormatError

_MOST_BOXES = 100_000
"""Boxes that are looked at in one file; a file that holds more is a trap."""
_MOST_EXTENTS = 100_000
"""Pieces of data of all items together; a grid of 200 megapixels has 800."""
VIDEO_BOX = b"mpvd"
_CANON = bytes.fromhex("85c0b687820f11e08111f4ce462b6a48")
_IN_FILE = 0  # construction method of iloc: offsets count from the beginning of the file


@dataclass(frozen=True)
class Boxes:
    """A HEIC or AVIF file by its boxes. Where they are damaged, nothing is found: the decoder says what is wrong.

    Attributes:
        content: all bytes of the file.
    """

    content: bytes

    def check_whole(self) -> None:
        """Refuse a file that ends before the data of a picture in it.

        Raises:
            FormatError: it does.
        """
        try:
            ends = [end for end in self._extents() if end > len(self.content)]
        except (struct.error, IndexError):
            return
        if ends:
            found, expected = len(self.content), max(ends)
            raise FormatError(f"corrupt or truncated: the file ends after {found:,} of at least {expected:,} bytes")

    @property
    def is_turned(self) -> bool:
        """Whether the main picture has a rotation or mirroring of its own, so that EXIF's does not count."""
        return any(kind in (b"irot", b"imir") for kind, _ in self._properties)

    @property
    def code_points(self) -> tuple[int, int] | None:
        """Colour primaries and transfer characteristics (ITU-T H.273) of the main picture, or None where none are told.

        An ICC profile goes before them (ISO/IEC 23000-22, 7.3.6.4), so that None is given beside one.
        """
        colours = [data for kind, data in self._properties if kind == b"colr" and len(data) >= 4]
        if any(data[:4] in (b"prof", b"rICC") for data in colours):
            return None
        for data in colours:
            if data[:4] == b"nclx" and len(data) >= 8:
                primaries, transfer = struct.unpack_from(">HH", data, 4)
                return primaries, transfer
        return None

    @property
    def video(self) -> bytes | None:
        """The film of a motion photo with the box around it (Google's Motion Photo 1.0, mpvd), or None."""
        for kind, start, end in self._boxes(0, len(self.content)):
            if kind == VIDEO_BOX and self.content[start + 4 : start + 8] == b"ftyp":
                return struct.pack(">I4s", end - start + 8, VIDEO_BOX) + self.content[start:end]
        return None

    @property
    def bit_depth(self) -> int:
        """Bits a sample of the main picture: by pixi, or by AV1's own configuration; 8 where neither tells."""
        properties = dict(self._properties)
        channels, stream = properties.get(b"pixi", b""), properties.get(b"av1C", b"")
        if len(channels) > 5:
            return channels[5]
        if len(stream) < 4 or not stream[2] & 0x40:
            return 8
        return 12 if stream[2] & 0x20 else 10

    @property
    def canon_blocks(self) -> dict[bytes, bytes]:
        """The blocks CMT1, CMT2 and CMT4 of a CR3 file, each a TIFF structure of one directory of EXIF."""
        found: dict[bytes, bytes] = {}
        for kind, start, end in self._boxes(0, len(self.content)):
            if kind == b"moov":
                for inner, first, last in self._boxes(start, end):
                    if inner == b"uuid" and self.content[first : first + 16] == _CANON:
                        for name, begin, stop in self._boxes(first + 16, last):
                            if name in (b"CMT1", b"CMT2", b"CMT4"):
                                found.setdefault(name, self.content[begin:stop])
        return found

    @cached_property
    def _meta(self) -> dict[bytes, tuple[int, int]]:
        """Where the boxes in the file's meta box lie, by kind."""
        for kind, start, end in self._boxes(0, len(self.content)):
            if kind == b"meta":
                return {inner: (first, last) for inner, first, last in self._boxes(start + 4, end)}
        return {}

    @cached_property
    def _properties(self) -> list[tuple[bytes, bytes]]:
        """Kind and data of every property of the main picture."""
        try:
            return self._read_properties()
        except (struct.error, IndexError, KeyError):
            return []

    def _read_properties(self) -> list[tuple[bytes, bytes]]:
        start, _ = self._meta[b"pitm"]
        primary = struct.unpack_from(">I" if self.content[start] else ">H", self.content, start + 4)[0]
        parts = {kind: (first, last) for kind, first, last in self._boxes(*self._meta[b"iprp"])}
        known = [(kind, self.content[first:last]) for kind, first, last in self._boxes(*parts[b"ipco"])]
        offset, _ = parts[b"ipma"]
        version, is_wide = self.content[offset], self.content[offset + 3] & 1
        (items,) = struct.unpack_from(">I", self.content, offset + 4)
        offset += 8
        for _ in range(min(items, _MOST_BOXES)):
            (item,) = struct.unpack_from(">I" if version else ">H", self.content, offset)
            offset += 4 if version else 2
            count = self.content[offset]
            kind = f">{count}{'H' if is_wide else 'B'}"
            numbers = struct.unpack_from(kind, self.content, offset + 1)
            offset += 1 + struct.calcsize(kind)
            if item == primary:
                mask = 0x7FFF if is_wide else 0x7F
                return [known[(number & mask) - 1] for number in numbers if 0 < number & mask <= len(known)]
        return []

    def _extents(self) -> Iterator[int]:
        """Where each piece of the data of all items ends, counted from the beginning of the file."""
        if b"iloc" not in self._meta:
            return
        offset, _ = self._meta[b"iloc"]
        version, sizes, more = self.content[offset], self.content[offset + 4], self.content[offset + 5]
        offset_size, length_size, base_size = sizes >> 4, sizes & 15, more >> 4
        index_size = more & 15 if version in (1, 2) else 0
        id_size = 4 if version == 2 else 2
        items = self._number(offset + 6, id_size)
        offset += 6 + id_size
        room = _MOST_EXTENTS
        for _ in range(min(items, _MOST_BOXES)):
            offset += id_size
            method = _IN_FILE
            if version in (1, 2):
                method = self._number(offset, 2) & 15
                offset += 2
            base = self._number(offset + 2, base_size)
            count = self._number(offset + 2 + base_size, 2)
            offset += 4 + base_size
            room -= count
            if room < 0:
                raise FormatError(f"its items are in more than {_MOST_EXTENTS:,} pieces, which no photo's are")
            for _ in range(count):
                offset += index_size
                start, length = self._number(offset, offset_size), self._number(offset + offset_size, length_size)
                offset += offset_size + length_size
                if method == _IN_FILE:
                    yield base + start + length

    def _number(self, offset: int, size: int) -> int:
        if offset + size > len(self.content):
            raise IndexError(offset)
        return int.from_bytes(self.content[offset : offset + size], "big")

    def _boxes(self, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
        """Kind of each box between two offsets, and where its data begins and ends."""
        for _ in range(_MOST_BOXES):
            if start + 8 > end:
                return
            size, kind = struct.unpack_from(">I4s", self.content, start)
            head = 8
            if size == 1 and start + 16 <= end:
                (size,) = struct.unpack_from(">Q", self.content, start + 8)
                head = 16
            elif size == 0:
                size = end - start
            if size < head:
                return
            yield kind, start + head, min(start + size, end)
            start += size
