"""The tasks of the paper's tables: their measures and degradations, their settings, and the pictures of each case."""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

from pydantic import Field, field_validator
from torch import Tensor

from components.data.degradations import sample_degradation
from components.data.faults import sample_faults
from components.data.records import PhotoRecord
from components.data.splits import Split
from components.evaluation.baselines import BASELINES, check_known
from components.evaluation.generative import GenerativeBaseline
from components.evaluation.library_faults import apply_library_faults, sample_library_faults
from components.imaging.photo import quantize, read_photo, resize
from components.metrics.tables import BootstrapSettings
from components.models.compute import ComputeSettings
from components.photometry.operations import TONE, Operation, apply_operations
from components.seeding import generator_for
from components.strict import Strict

Task = Literal["enhancement", "library_faults", "intact", "restoration", "deblurring", "dehazing", "multi_edit"]
TASKS: dict[Task, tuple[str, ...]] = {
    "enhancement": (),
    "library_faults": (),
    "intact": (),
    "restoration": ("noise", "jpeg", "low_light"),
    "deblurring": ("motion_blur", "defocus_blur"),
    "dehazing": ("haze",),
    "multi_edit": ("motion_blur", "defocus_blur", "noise", "jpeg", "haze", "low_light"),
}
"""The degradations of which each case of a task has one; enhancement and multi-edit have tone faults (as well).

The library's faults are those of `components.evaluation.library_faults`; photos without a fault have one case each.
"""

_COLOUR = ("ciede2000", *(f"{name}_error" for name in TONE))
MEASURES: dict[Task, tuple[str, ...]] = {
    "enhancement": ("musiq", "nima", "clip", "fid", "lpips", "dists", *_COLOUR),
    "library_faults": ("lpips", "dists", *_COLOUR),
    "intact": ("lpips", "dists", *_COLOUR),
    "restoration": ("psnr", "ssim", "lpips", "dists", "fid"),
    "deblurring": ("psnr", "ssim", "lpips", "dists", "fid"),
    "dehazing": ("psnr", "ssim", "lpips", "dists", "fid"),
    "multi_edit": ("lpips", "ssim", "fid", "clip"),
}
TITLES: dict[Task, str] = {
    "enhancement": "Automatic enhancement",
    "library_faults": "Automatic enhancement: faults that other people's code makes",
    "intact": "Photos without a fault: what is done to them",
    "restoration": "Restoration: noise, compression, low light",
    "deblurring": "Deblurring",
    "dehazing": "Dehazing",
    "multi_edit": "Multi-edit instruction following",
}


class PaperSettings(Strict):
    """What the tables are made of."""

    tasks: tuple[Task, ...] = Field(default=tuple(TASKS), description="Tables to make, one for each task.")
    split: Split = Field(default="test", description="Split whose photos the cases are made of.")
    views: int = Field(default=3, ge=1, description="Cases of each photo and task.")
    max_side: int = Field(default=512, ge=32, description="Photos are reduced to this longer side first. Pixels.")
    baselines: tuple[str, ...] = Field(default=tuple(BASELINES), description="Keys of the classical baselines.")
    generative: tuple[GenerativeBaseline, ...] = Field(default=(), description="Editing models to compare with.")
    compute: ComputeSettings = Field(
        default_factory=ComputeSettings, description="Of the packages, the learned measures and the editing models."
    )
    seed: int = Field(default=0, ge=0, description="Of the cases and of every method's noise.")
    bootstrap: BootstrapSettings = Field(default_factory=BootstrapSettings)

    @field_validator("baselines")
    @classmethod
    def _known(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        return check_known(names)


class TaskCase(NamedTuple):
    """A photo as it should be and as it comes, both (3, H, W) on the 8-bit grid, and what is recorded of the way."""

    record: PhotoRecord
    view: int
    intact: Tensor
    spoilt: Tensor
    operations: tuple[Operation, ...]


def intact_picture(record: PhotoRecord, photos_dir: Path, max_side: int) -> Tensor:
    """The photo (3, H, W) with a longer side of at most ``max_side`` pixels, on the 8-bit grid as a file holds it."""
    pixels = read_photo(Path(photos_dir) / record.path).pixels
    scale = min(1.0, max_side / max(pixels.shape[-2:]))
    height, width = (max(1, round(side * scale)) for side in pixels.shape[-2:])
    return quantize(resize(pixels, (height, width)))


def task_cases(record: PhotoRecord, photos_dir: Path, task: Task, settings: PaperSettings) -> Iterator[TaskCase]:
    """The cases of one photo; the same record, task and seed always give the same pictures.

    Those of "enhancement" and "library_faults" are the views on which `components.evaluation.evaluate` judges.
    """
    intact = intact_picture(record, photos_dir, settings.max_side)
    if task == "intact":
        yield TaskCase(record, 0, intact, intact, ())
        return
    for view in range(settings.views):
        if task == "library_faults":
            faults = sample_library_faults(generator_for(settings.seed, record.sha256, "evaluation/library", view))
            yield TaskCase(record, view, intact, apply_library_faults(intact, faults), ())
            continue
        purpose = "evaluation" if task == "enhancement" else f"tables/{task}"
        generator = generator_for(settings.seed, record.sha256, purpose, view)
        operations: tuple[Operation, ...] = (sample_degradation(generator, TASKS[task]),) if TASKS[task] else ()
        if task in ("enhancement", "multi_edit"):
            operations += sample_faults(generator)
        yield TaskCase(record, view, intact, quantize(apply_operations(intact, operations)), operations)
