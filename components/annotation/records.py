"""Annotated views as they are kept: the record, and the picture that it is about, rebuilt from its source photo."""

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import overload

import numpy as np
from pydantic import Field
from torch import Tensor

from components.data.crops import Crop, take_crop
from components.data.splits import Split
from components.imaging.photo import Photo, quantize
from components.photometry.operations import Operation, apply_operations
from components.strict import Strict

ANNOTATIONS_FILE = "annotations.jsonl"


class AnnotatedPhoto(Strict):
    """One view of a photo with the text that the Critic should write about it."""

    id: str
    photo_id: str
    path: str = Field(description="Of the source photo, relative to the photo directory.")
    split: Split
    view: Crop
    operations: tuple[Operation, ...] = Field(description="Faults applied to the intact view; none for an intact one.")
    completion: str = Field(description="The verdict in the Critic's grammar.")
    score: float = Field(ge=0, le=100)
    mos: float | None = Field(default=None, description="Opinion score of the source photo, 0 to 100, if there is one.")
    annotator: str


class Annotations(Sequence[AnnotatedPhoto]):
    """Annotated views by number, read when they are asked for: in memory there is only where each one's line lies.

    Args:
        path: an `annotations.jsonl`; every line is checked once, here.
        split: only those of this split; None for all.

    Raises:
        FileNotFoundError: there is no such file.
        pydantic.ValidationError: a line is not an annotation of this version.
    """

    def __init__(self, path: Path, split: Split | None = None):
        if not path.is_file():
            raise FileNotFoundError(f"{path}: expected annotations; run the annotate stage")
        places, offset = [], 0
        with path.open("rb") as file:
            for line in file:
                if split in (None, AnnotatedPhoto.model_validate_json(line).split):
                    places.append((offset, len(line)))
                offset += len(line)
        self._places = np.array(places, dtype=np.int64).reshape(-1, 2)
        self._file = path.open("rb")

    def __len__(self) -> int:
        return len(self._places)

    @overload
    def __getitem__(self, number: int) -> AnnotatedPhoto: ...
    @overload
    def __getitem__(self, number: slice) -> list[AnnotatedPhoto]: ...
    def __getitem__(self, number: int | slice) -> AnnotatedPhoto | list[AnnotatedPhoto]:
        if isinstance(number, slice):
            return [self[index] for index in range(len(self))[number]]
        offset, length = self._places[number].tolist()
        line = os.pread(self._file.fileno(), length, offset)  # as any number of threads may at once
        return AnnotatedPhoto.model_validate_json(line)

    def __iter__(self) -> Iterator[AnnotatedPhoto]:
        return (self[number] for number in range(len(self)))


def read_annotations(directory: Path, split: Split | None = None) -> Annotations:
    """What `annotate` wrote, in order; only one split when it is named. Raises as `Annotations` does."""
    return Annotations(Path(directory) / ANNOTATIONS_FILE, split)


def render_view(photo: Photo, annotated: AnnotatedPhoto) -> Tensor:
    """The picture that was judged, rebuilt bit for bit from its source: (3, h, w) in [0, 1], on the 8-bit grid."""
    return faulty(take_crop(photo.pixels, annotated.view), annotated.operations)


def faulty(intact: Tensor, operations: Iterable[Operation]) -> Tensor:
    """An intact view (3, h, w) with faults, on the 8-bit grid."""
    return quantize(apply_operations(intact, tuple(operations)))
