"""Which photos a result may take the place of: those that lose nothing but the pixels that were meant to change."""

import sys

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
    header = read_header(path, sys.maxsize)  # what is too large is refused where it is decoded
    if header.format != written:
        raise InPlaceError(f"its name says {written}, its content is {header.format}: rename it, or name an OUT")
    if header.pictures > 1:
        raise InPlaceError(f"it holds {header.pictures} pictures, and the result only one: name an OUT")
