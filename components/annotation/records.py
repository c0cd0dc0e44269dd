"""Annotated views as they are kept: the record, and the picture that it is about, rebuilt from its source photo."""

from collections.abc import Iterable
from pathlib import Path

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


def read_annotations(directory: Path, split: Split | None = None) -> list[AnnotatedPhoto]:
    """Read what `annotate` wrote, in order; only one split when it is named.

    Raises:
        FileNotFoundError: the directory holds no annotations.
        pydantic.ValidationError: a line is not an annotation of this version.
    """
    path = Path(directory) / ANNOTATIONS_FILE
    if not path.is_file():
        raise FileNotFoundError(f"{path}: expected annotations; run the annotate stage")
    with path.open(encoding="utf-8") as file:
        annotated = (AnnotatedPhoto.model_validate_json(line) for line in file)
        return [entry for entry in annotated if split in (None, entry.split)]


def render_view(photo: Photo, annotated: AnnotatedPhoto) -> Tensor:
    """The picture that was judged, rebuilt bit for bit from its source: (3, h, w) in [0, 1], on the 8-bit grid."""
    return faulty(take_crop(photo.pixels, annotated.view), annotated.operations)


def faulty(intact: Tensor, operations: Iterable[Operation]) -> Tensor:
    """An intact view (3, h, w) with faults, on the 8-bit grid."""
    return quantize(apply_operations(intact, tuple(operations)))
