"""GoPro: frames blurred by averaging a fast video, and the sharp middle frame (Nah, Kim, Lee 2017, CVPR).

Frame numbers repeat across sequences. ``blur_gamma`` averages frames in linear light under a gamma of 2.2, ``blur`` as
stored: which of them a model is trained on changes its results, so it is a setting.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field

from components.data.sources import folders
from components.data.sources.base import Skipped, Source, SourceRecord
from components.data.splits import PUBLISHED, Split
from components.strict import Strict


class Gopro(Source):
    """Motion-blurred frames (input) and sharp ones (target). The flat repack has one kind of blur only."""

    class Settings(Strict):
        blurred: Literal["blur", "blur_gamma"] = Field(default="blur_gamma", description="Folder of the inputs.")

    name: ClassVar[str] = "gopro"
    layout: ClassVar[str] = (
        "GOPRO_Large/{train,test}/GOPRxxxx_xx_xx/{blur,blur_gamma,sharp}/000001.png, same name; "
        "or the repack {train,test}/{input,target}"
    )
    licence: ClassVar[str] = "CC BY 4.0"
    homepage: ClassVar[str] = "https://seungjunnah.github.io/Datasets/gopro"

    def prepare(self) -> None:
        base = self.below("GOPRO_Large")
        self.parts: list[tuple[Split, str, Path, Path]] = []
        for split in PUBLISHED:
            folder = self.find(base, split)
            if folder is None:
                continue
            if self.find(folder, "input") is not None:
                self.parts.append((split, "", self.require(folder, "input"), self.require(folder, "target")))
                continue
            for sequence in folders.subfolders(folder):
                inputs = self.require(sequence, self.settings.blurred)
                self.parts.append((split, f"{sequence.name}/", inputs, self.require(sequence, "sharp")))
        if not self.parts:
            raise self.error(base / "train", "no sequence, and none in test")

    def scan(self) -> Iterator[SourceRecord | Skipped]:
        for split, sequence, inputs, targets in self.parts:
            prefix = f"{split}/{sequence}"
            yield from self.paired_folders(inputs, targets, split, prefix, labels=("motion_blur",))
