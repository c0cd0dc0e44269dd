"""What one reading of a photo's file tells (hashes, size, depth), and a store that remembers it across builds.

A build asks the store first, by path, size and time of modification, so it reads only files that are new or changed,
and one that was killed goes on where it was. The store is a SQLite file: complete after a kill at any moment, and of
no size in memory.
"""

import hashlib
import os
import sqlite3
import struct
import time
from contextlib import suppress
from dataclasses import astuple, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import imagehash
import torch
from PIL import Image
from torch import Tensor

from components.data.shots import shot_of
from components.imaging import png
from components.imaging.metadata import loaded_exif
from components.imaging.photo import UnreadablePhoto, read_header, read_photo, resize_short_side
from components.imaging.source import MemoryFile, PictureFile, decoding

_HASHED_SHORT_SIDE = 256
_DRAFT_SHORT_SIDE = 64  # least, of a JPEG that is decoded at a fraction; the hash looks at 32 x 32
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What undoes each EXIF orientation."""
_IN_MEMORY = 64 * 2**20  # larger files are hashed from disk, piece by piece
_RECIPE = 5  # raise it when the same file gives other facts
_TABLE = "facts_and_shots"
_FORMER_TABLE = "facts"  # of versions that did not know of shots
_COMMIT_SECONDS = 1.0


@dataclass(frozen=True)
class FileFacts:
    """What the file says: SHA-256, 64-bit pHash, upright size in pixels, bits per sample, Pillow's mode, and the shot.

    ``shot`` is when and with which camera it was taken, as `components.data.shots.shot_of` writes it. Of a file that is
    not a usable picture all are empty but ``reason``.
    """

    sha256: str = ""
    perceptual_hash: str = ""
    width: int = 0
    height: int = 0
    bit_depth: int = 0
    mode: str = ""
    reason: str | None = None
    shot: str = ""


def read_facts(path: Path, max_pixels: int, size: int | None = None) -> FileFacts:
    """Read a file once: hash its bytes, read its header, decode it completely for the perceptual hash.

    JPEG is decoded at a fraction of its size, which reads (and so checks) all of its data. Nothing is raised for a
    file whose bytes are no usable picture: the facts say why.

    Args:
        size: of the file in bytes, where the caller knows it. Files of up to 64 MiB are opened once and held in memory.

    Raises:
        OSError: the file cannot be read, now; of its bytes that says nothing.
    """
    path = Path(path)
    try:
        file = _opened(path, path.stat().st_size if size is None else size)
        header = read_header(file, max_pixels)
        upright = (header.width, header.height) if header.orientation < 5 else (header.height, header.width)
        hashes = None
        if header.bit_depth == 8 and header.format in ("JPEG", "PNG", "WEBP") and header.mode in ("RGB", "L"):
            with suppress(UnreadablePhoto):  # that Pillow does not read it says nothing of what the library reads
                hashes = _of_plain_picture(file, header.orientation)
        if hashes is None:
            photo = read_photo(file, max_pixels)
            hashes = perceptual_hash(photo.pixels), _shot(photo.exif)
        fingerprint, shot = hashes
    except UnreadablePhoto as error:
        return FileFacts(reason=error.reason)
    digest = hashlib.sha256(file.content).hexdigest() if isinstance(file, MemoryFile) else sha256_of(path)
    return FileFacts(digest, fingerprint, *upright, header.bit_depth, header.mode, shot=shot)


def _opened(path: Path, size: int) -> PictureFile:
    """The file with its bytes, read in one go, or its path if it is large."""
    if size > _IN_MEMORY:
        return path
    with decoding(path) as source:
        return MemoryFile(str(path), source.read_bytes())


def _shot(exif: bytes | None) -> str:
    try:
        return shot_of(loaded_exif(exif))
    except (ValueError, SyntaxError, struct.error):
        return ""


def perceptual_hash(image: Tensor) -> str:
    """64-bit pHash of (3, H, W) as 16 hexadecimal digits: low DCT frequencies of a 32x32 grey picture against their
    median (Zauner 2010, Implementation and Benchmarking of Perceptual Image Hash Functions)."""
    small = resize_short_side(image, _HASHED_SHORT_SIDE)
    samples = (small * 255).round().to(torch.uint8).permute(1, 2, 0).contiguous().numpy()
    return str(imagehash.phash(Image.fromarray(samples)))


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's bytes, 64 hexadecimal digits."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _of_plain_picture(file: PictureFile, orientation: int) -> tuple[str, str]:
    """pHash and shot of an 8-bit RGB or grey file; its colour profile is ignored, since it hardly changes the hash.

    Raises:
        UnreadablePhoto: the picture is truncated or corrupt.
        OSError: the file cannot be read.
    """
    formats = ("JPEG", "PNG", "WEBP", "MPO")
    with decoding(file) as source, source.open() as opened, Image.open(opened, formats=formats) as image:
        exif = image.info.get("exif")
        if image.format == "PNG":
            with source.open() as again:
                exif = png.read_chunks(again).exif
        if min(image.size) >= 2 * _DRAFT_SHORT_SIDE:
            image.draft("L", (_DRAFT_SHORT_SIDE, _DRAFT_SHORT_SIDE))  # JPEG only: luma at 1/2, 1/4 or 1/8 size
        upright = image.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else image
        return str(imagehash.phash(upright)), _shot(exif)


class FactStore:
    """Facts of files on disk, by absolute path; valid while size and time of modification stay as they were.

    Only what the bytes of a file prove is kept. That it could not be read is no fact about it.

    Args:
        path: the SQLite file, made when it is missing; None keeps the facts in memory, for this build only.
    """

    def __init__(self, path: Path | None) -> None:
        if path is not None:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
        self._database = sqlite3.connect(":memory:" if path is None else path)
        self._database.execute("PRAGMA journal_mode=WAL")
        self._database.execute("PRAGMA synchronous=NORMAL")
        self._database.execute(
            f"CREATE TABLE IF NOT EXISTS {_TABLE} (path TEXT PRIMARY KEY, size INTEGER, modified INTEGER, "
            "recipe INTEGER, max_pixels INTEGER, sha256 TEXT, perceptual_hash TEXT, width INTEGER, height INTEGER, "
            "bit_depth INTEGER, mode TEXT, reason TEXT, shot TEXT) WITHOUT ROWID"
        )
        self._database.execute(f"DROP TABLE IF EXISTS {_FORMER_TABLE}")
        self._database.execute("CREATE TABLE IF NOT EXISTS lengths (root TEXT PRIMARY KEY, records INTEGER)")
        self._written = time.monotonic()
        # Rows to be written together: each statement is a wait for the readers.
        self._waiting: dict[str, tuple[Any, ...]] = {}
        self._empty = self._database.execute(f"SELECT 1 FROM {_TABLE} LIMIT 1").fetchone() is None

    def __enter__(self) -> "FactStore":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._write()
        self._database.close()

    def get(self, path: Path, status: os.stat_result, max_pixels: int) -> FileFacts | None:
        """The facts of an unchanged file, or None. That a file is unusable holds for the same ``max_pixels`` only."""
        if str(path) in self._waiting:
            self._write()
        if self._empty:
            return None
        row = self._database.execute(
            f"SELECT sha256, perceptual_hash, width, height, bit_depth, mode, reason, shot FROM {_TABLE} "
            "WHERE path = ? AND size = ? AND modified = ? AND recipe = ? "
            "AND (max_pixels = ? OR reason IS NULL AND width * height <= ?)",
            (str(path), status.st_size, status.st_mtime_ns, _RECIPE, max_pixels, max_pixels),
        ).fetchone()
        return FileFacts(*row) if row else None

    def put(self, path: Path, status: os.stat_result, max_pixels: int, facts: FileFacts) -> None:
        """Remember facts that were read after ``status`` was taken; on disk within a second."""
        key = (str(path), status.st_size, status.st_mtime_ns, _RECIPE, max_pixels)
        self._waiting[key[0]] = (*key, *astuple(facts))
        if time.monotonic() - self._written > _COMMIT_SECONDS:
            self._write()

    def _write(self) -> None:
        marks = ", ".join("?" * 13)
        self._database.executemany(f"INSERT OR REPLACE INTO {_TABLE} VALUES ({marks})", self._waiting.values())
        self._database.commit()
        self._empty = self._empty and not self._waiting
        self._waiting.clear()
        self._written = time.monotonic()

    def length(self, root: Path) -> int | None:
        """How many records a dataset had in the last build, for the time that is left of this one."""
        row = self._database.execute("SELECT records FROM lengths WHERE root = ?", (str(root),)).fetchone()
        return row[0] if row else None

    def remember_length(self, root: Path, records: int) -> None:
        """Remember how many records a dataset has."""
        self._database.execute("INSERT OR REPLACE INTO lengths VALUES (?, ?)", (str(root), records))
