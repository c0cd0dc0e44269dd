"""Which photos a result may take the place of: those that lose nothing but the pixels that were meant to change."""

from pathlib import Path

from PIL import Image

from components.imaging.codecs import FORMATS
from components.imaging.formats import FORMAT_OF_SUFFIX
from components.imaging.photo import read_header
from components.inference.places import Place


class InPlaceError(ValueError):
    """A photo that is not replaced by its result; the message says why and what to do."""


def check_in_place(place: Place, name: str) -> None:
    """Raise `InPlaceError` unless the photo ``name`` in ``place`` can be replaced by its result.

    Raises:
        components.imaging.photo.UnreadablePhoto: it is no usable photo.
        OSError: it cannot be read.
    """
    if (folder := place.folder) is None:
        raise InPlaceError("it is not on this machine's disk: name an OUT")
    path = folder / name
    written = FORMAT_OF_SUFFIX.get(path.suffix.lower())
    if written is None:
        raise InPlaceError(f"{path.suffix} files are only read, never written: name an OUT for the result")
    if path.resolve() != folder.resolve() / name:
        raise InPlaceError("it is reached by a link: enhance it in the folder where it lies")
    header = read_header(path)
    if header.format != written:
        raise InPlaceError(f"its name says {written}, its content is {header.format}: rename it, or name an OUT")
    count = _pictures(path, header.format)
    if count > 1:
        raise InPlaceError(f"it holds {count} pictures, and the result only one: name an OUT")


def _pictures(path: Path, file_format: str) -> int:
    """Frames, pages and companions (a gain map, a second view) in a file."""
    if file_format == "HEIF":
        import pillow_heif

        return len(pillow_heif.open_heif(path.read_bytes(), convert_hdr_to_8bit=False))
    with Image.open(path, formats=FORMATS) as image:
        return getattr(image, "n_frames", 1)
