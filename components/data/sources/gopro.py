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

_FLAT = (("input", "target"), ("input_crops", "target_crops"), ("blur_crops", "sharp_crops"))
"""Folders of the inputs and targets of repacks."""


class Gopro(Source):
    """Motion-blurred frames (input) and sharp ones (target). The flat repacks have one kind of blur only."""

    class Settings(Strict):
        blurred: Literal["blur", "blur_gamma"] = Field(default="blur_gamma", description="Folder of the inputs.")

    name: ClassVar[str] = "gopro"
    layout: ClassVar[str] = (
        "GOPRO_Large/{train,test}/GOPRxxxx_xx_xx/{blur,blur_gamma,sharp}/000001.png, same name; "
        "or a repack, {train,test}/{input,target} (NAFNet) or {train,test}/GoPro/{input,target} (Restormer), or of "
        "pieces, {input_crops,target_crops} or {blur_crops,sharp_crops}"
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
            folder = self.find(folder, "GoPro") or folder
            flat = next((names for names in _FLAT if self.find(folder, names[0])), None)
            if flat is not None:
                self.parts.append((split, "", self.require(folder, flat[0]), self.require(folder, flat[1])))
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
