"""A user's own photos: every photo in a folder and below it, camera raw files included."""

from collections.abc import Iterator
from typing import ClassVar

from pydantic import Field

from components.data.sources import folders
from components.data.sources.base import Skipped, SourceRecord
from components.data.sources.own_photos import OwnFolder, Preferred, Shot, shots
from components.strict import Strict


class SingleFolder(OwnFolder):
    """Photos without scores, pairs or a split.

    Camera raw beside a picture of the same name is one photo; sidecars and clips are counted and left alone.
    """

    class Settings(Strict):
        dataset: str | None = Field(default=None, min_length=1, description="Name in the records; None: the folder's.")
        labels: tuple[str, ...] = Field(default=(), description="What holds for all of them.")
        licence: str = Field(default="the user's own", min_length=1)
        author: str | None = None
        shots: Preferred = Field(
            default="developed",
            description="What is taken of a shot that lies there as camera raw and as a picture (JPEG, HEIC, ...).",
        )

    name: ClassVar[str] = "single_folder"
    layout: ClassVar[str] = (
        "photos (JPEG, PNG, TIFF, WebP, AVIF, HEIC, BMP, camera raw) in the root and folders below it, with sidecars"
    )
    licence: ClassVar[str] = "the user's own"
    homepage: ClassVar[None] = None

    def scan(self) -> Iterator[SourceRecord | Skipped]:
        chosen = self.settings
        fields = {"labels": chosen.labels, "licence": chosen.licence, "author": chosen.author}
        for folder, names in folders.tree(self.root):
            for entry in shots(folder, names, chosen.shots):
                if isinstance(entry, Shot):
                    scene = entry.scene and self.relative(folder / entry.scene)
                    yield self.record(entry.path, None, scene=scene, **fields)
                else:
                    yield self.skip(*entry)
