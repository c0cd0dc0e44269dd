"""Pairs that were published as two aligned photos, as they are and with tone faults stacked on their input."""

from typing import Protocol, cast

from torch import Tensor

from components.data.crops import Crop, reduce, sample_crop
from components.data.faults import sample_faults
from components.data.pairs import Pair, PairKind, make_pair
from components.data.published_prompts import published_instruction
from components.data.records import PhotoRecord, recorded_operations
from components.seeding import generator_for


class AlignedSettings(Protocol):
    """What `components.data.synthesis.SynthesisSettings` says about published pairs."""

    short_side: int
    smallest_crop: float
    stacked: int
    seed: int


def aligned_pairs(
    target: PhotoRecord,
    target_pixels: Tensor,
    before: PhotoRecord,
    before_pixels: Tensor,
    number: int,
    settings: AlignedSettings,
) -> list[Pair]:
    """The published pair itself and ``stacked`` multi-edit pairs, whose input has tone faults on top of its own.

    Args:
        target, target_pixels: the better photo (3, H, W) in [0, 1].
        before, before_pixels: the photo to be improved, of the same size.
        number: of the input among those of the target; part of the pairs' ids.

    Raises:
        ValueError: the photos differ in size, so they are not aligned.
    """
    if target_pixels.shape != before_pixels.shape:
        raise ValueError(
            f"{before.path} and {target.path}: expected a pair of one size, found {tuple(before_pixels.shape[1:])} and "
            f"{tuple(target_pixels.shape[1:])}; the pair is not aligned, leave it out"
        )
    plain = _kind(target)
    spoilt, added = recorded_operations(before), recorded_operations(target)
    target_pixels, before_pixels = (reduce(pixels, settings.short_side) for pixels in (target_pixels, before_pixels))
    made = []
    for index in range(1 + settings.stacked):
        kind: PairKind = plain if index == 0 else "multi_edit"
        generator = generator_for(settings.seed, target.sha256, before.sha256, "aligned", index)
        whole = Crop(short_side=settings.short_side)
        view = whole if index == 0 else sample_crop(generator, settings.short_side, settings.smallest_crop)
        operations = sample_faults(generator) if index else ()
        made.append(
            make_pair(
                target,
                target_pixels,
                index=number * (1 + settings.stacked) + index,
                kind=kind,
                view=view,
                operations=operations,
                instruction=published_instruction(
                    plain, before.labels, target.labels, spoilt, added, generator, operations
                ),
                before=(before, before_pixels),
            )
        )
    return made


def _kind(target: PhotoRecord) -> PairKind:
    if any(label.startswith("look=") for label in target.labels):
        return "look"
    return cast(PairKind, target.kind) if target.kind else "enhancement"  # checked when the source was read
