"""BokehDiff: cut-outs and backgrounds for depth-of-field pairs (Zhu et al. 2025, ICCV).

No pictures are published: the user's own cut-outs and photos take their place. `components.data.rendered` makes pairs
of them, by laying a cut-out over an all-in-focus background and blurring the background alone, at several levels.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from components.data.sources import folders
from components.data.sources.base import Skipped, Source, SourceRecord
from components.imaging.photo import UnreadablePhoto, read_header, read_photo
from components.strict import Strict

NO_ALPHA = "a cut-out without transparency"
UNREADABLE = "the header does not decode"
_ALPHA_MODES = ("RGBA", "LA")
_PALETTES = ("P", "PA")


class Bokehdiff(Source):
    """Cut-outs (labelled "foreground") and photos (labelled "background"). No split is published."""

    class Settings(Strict):
        licence: str = Field(default="the user's own", min_length=1)
        author: str | None = None

    name: ClassVar[str] = "bokehdiff"
    layout: ClassVar[str] = "fg/ cut-outs with transparency (RGBA), bg/ all-in-focus photos"
    licence: ClassVar[str] = "the user's own"
    homepage: ClassVar[str] = "https://github.com/FreeButUselessSoul/bokehdiff"

    def prepare(self) -> None:
        self.foregrounds, self.backgrounds = self.require(self.root, "fg"), self.require(self.root, "bg")

    def scan(self) -> Iterator[SourceRecord | Skipped]:
        rights: dict[str, Any] = {"licence": self.settings.licence, "author": self.settings.author, "source": None}
        for entry in folders.walk(self.foregrounds):
            if isinstance(entry, tuple):
                yield self.skip(*entry)
                continue
            try:
                transparent = _is_transparent(entry)
            except UnreadablePhoto:
                yield self.skip(entry, UNREADABLE)
                continue
            if transparent:
                yield self.record(entry, None, labels=("foreground",), **rights)
            else:
                yield self.skip(entry, NO_ALPHA)
        for entry in folders.walk(self.backgrounds):
            if isinstance(entry, tuple):
                yield self.skip(*entry)
            else:
                yield self.record(entry, None, labels=("background", "all_in_focus"), **rights)


def _is_transparent(path: Path) -> bool:
    """Whether a picture has an alpha channel; of a palette, which may or may not have a transparent colour, decoded.

    Raises:
        UnreadablePhoto: it does not decode. OSError: it cannot be read.
    """
    mode = read_header(path).mode
    return read_photo(path).alpha is not None if mode in _PALETTES else mode in _ALPHA_MODES
