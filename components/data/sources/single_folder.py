"""A user's own photos: every photo in a folder and below it, camera raw files included."""

from collections.abc import Iterator
from functools import cached_property
from typing import ClassVar

from pydantic import Field

from components.data.sources import folders
from components.data.sources.base import Skipped, Source, SourceRecord
from components.imaging.formats import RAW_SUFFIXES
from components.strict import Strict


class SingleFolder(Source):
    """Photos without scores, pairs or a split."""

    class Settings(Strict):
        dataset: str | None = Field(default=None, min_length=1, description="Name in the records; None: the folder's.")
        labels: tuple[str, ...] = Field(default=(), description="What holds for all of them.")
        licence: str = Field(default="the user's own", min_length=1)
        author: str | None = None

    name: ClassVar[str] = "single_folder"
    layout: ClassVar[str] = (
        "photos (JPEG, PNG, TIFF, WebP, AVIF, HEIC, BMP, camera raw) in the root and folders below it"
    )
    licence: ClassVar[str] = "the user's own"
    homepage: ClassVar[None] = None

    @cached_property
    def dataset(self) -> str:
        return self.settings.dataset or self.root.resolve().name

    def scan(self) -> Iterator[SourceRecord | Skipped]:
        chosen = self.settings
        for entry in folders.walk(self.root, folders.PHOTO_SUFFIXES | RAW_SUFFIXES):
            if isinstance(entry, tuple):
                yield self.skip(*entry)
            else:
                yield self.record(entry, None, labels=chosen.labels, licence=chosen.licence, author=chosen.author)
