"""What decoders read a picture file from, a path or bytes in memory, and whether reading it failed.

A decoder that meets a read error (a bad sector, a mount that is away) reports it in words of its own, often as a
truncated picture. So every decoder here reads through a `Source`, which keeps the error that the system gave: only a
file that was read without one can be called damaged.
"""

import io
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from PIL import Image, UnidentifiedImageError

from components.imaging.formats import FormatError

log = logging.getLogger(__name__)

_IN_MEMORY = re.compile(r"<[\w.]+ object at 0x[0-9a-f]+>")
_NUMBER_ONLY = re.compile(r"(?:decoder|encoder) error -?\d+")
_LIBHEIF = ("Invalid input", "Unsupported", "Memory allocation", "Security limit", "Decoder plugin", "End of file")
_MOST_WORDS = 200

Image.MAX_IMAGE_PIXELS = None  # every reader here has a limit of its own, which may be above Pillow's


@dataclass(frozen=True)
class MemoryFile:
    """A picture file whose bytes are in memory, such as one out of an archive or a request; it has no place on disk.

    Attributes:
        name: with the suffix, which tells camera raw from other TIFF files.
        content: all bytes.
    """

    name: str
    content: bytes = field(repr=False)

    @property
    def stem(self) -> str:
        return PurePosixPath(self.name).stem

    def read_bytes(self) -> bytes:
        return self.content

    def __str__(self) -> str:
        return self.name


PictureFile = Path | MemoryFile
"""What pictures are read from."""


class UnreadablePhoto(Exception):  # noqa: N818 (reads as a sentence where it is caught)
    """A file whose bytes are no usable photo. ``path`` names the file, ``reason`` is a phrase fit for a report."""

    def __init__(self, path: PictureFile, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = Path(str(path))
        self.reason = reason

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.path, self.reason)


class Source:
    """A picture file as decoders read it.

    Attributes:
        error: the first error of the system while the file was opened or read, or None. Decoders may hide it.
    """

    def __init__(self, file: PictureFile):
        self.file = file if isinstance(file, MemoryFile) else Path(file)
        self.error: OSError | None = None

    @property
    def suffix(self) -> str:
        return PurePosixPath(self.file.name).suffix.lower()

    def open(self) -> BinaryIO:
        """A new reader of the whole file, without a descriptor, so that no library reads past it.

        Raises:
            OSError: the file cannot be opened.
        """
        if isinstance(self.file, MemoryFile):
            return io.BytesIO(self.file.content)
        try:
            return io.BufferedReader(_Watched(self, self.file))
        except OSError as error:
            self.failed(error)
            raise

    def read_bytes(self) -> bytes:
        """The whole file. Raises: as `open`."""
        if isinstance(self.file, MemoryFile):
            return self.file.content
        with self.open() as file:
            return file.read()

    def failed(self, error: OSError) -> None:
        """Remember that reading failed."""
        self.error = self.error or error

    def __str__(self) -> str:
        return str(self.file)


@contextmanager
def decoding(file: PictureFile) -> Iterator[Source]:
    """Decode a file through the `Source` that is given: whatever a decoder raises is told as what it is.

    Raises:
        OSError: the system could not read the file, which says nothing of its bytes.
        UnreadablePhoto: its bytes are no usable picture.
    """
    source = Source(file)
    try:
        yield source
    except (MemoryError, UnreadablePhoto):
        raise
    except Exception as error:  # decoders raise anything on a corrupt file
        if source.error is None:
            raise UnreadablePhoto(file, _reason(error)) from error
        if isinstance(source.error, IsADirectoryError):
            raise UnreadablePhoto(file, "a folder, not a file") from error
        raise source.error from None


def _reason(error: Exception) -> str:
    if isinstance(error, FormatError):
        return str(error)
    if isinstance(error, UnidentifiedImageError):
        return "not a picture in a known format (JPEG, PNG, TIFF, WebP, AVIF, HEIC, camera raw, BMP, GIF)"
    log.debug("a decoder failed", exc_info=error)
    words = decoder_text(error) if _is_decoders(error) else ""
    if words.lower().startswith("unsupported"):
        return f"of a kind that is not read here: {words}"
    return f"corrupt or truncated: {words or 'its parts do not fit together'}"


def decoder_text(error: Exception) -> str:
    """The words of a decoder's own error, which LibRaw gives as bytes: one line, without names of things in memory."""
    first = error.args[0] if error.args else ""
    text = first.decode("utf-8", "replace") if isinstance(first, bytes) else str(error)
    text = _IN_MEMORY.sub("the file", " ".join(text.split()))
    return text if len(text) <= _MOST_WORDS else f"{text[:_MOST_WORDS]}..."


def _is_decoders(error: Exception) -> bool:
    """Whether an error is a decoder's judgement of the file, and not one of Python on the way to it."""
    if isinstance(error, ValueError):  # libheif's are such, and so are Python's
        return str(error).startswith(_LIBHEIF)
    if isinstance(error, RecursionError | NotImplementedError) or _NUMBER_ONLY.match(str(error)):
        return False
    return isinstance(error, OSError | SyntaxError | RuntimeError)


class _Watched(io.FileIO):
    """A file that tells its source of read errors."""

    def __init__(self, source: Source, path: Path):
        super().__init__(str(path), "rb")
        self._source = source

    def readinto(self, buffer: Any) -> int | None:
        return self._watch(super().readinto, buffer)

    def readall(self) -> bytes:
        return self._watch(super().readall)

    def fileno(self) -> int:
        raise io.UnsupportedOperation("read it through this object")

    def _watch(self, read: Any, *arguments: Any) -> Any:
        try:
            return read(*arguments)
        except OSError as error:
            if error.filename is None:
                error.filename = str(self._source)
            self._source.failed(error)
            raise
