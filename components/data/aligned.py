"""Pairs that were published as two photos, as they are and with tone faults stacked on their input."""

from typing import Protocol, cast

from torch import Tensor

from components.data.alignment import size_of
from components.data.crops import Crop, reduce, sample_crop
from components.data.faults import sample_faults
from components.data.pairs import Pair, PairKind, make_pair
from components.data.published_prompts import published_instruction
from components.data.records import PhotoRecord, recorded_operations
from components.data.registration import registered
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
        before, before_pixels: the photo to be improved; of another size, it is laid over the target by its content.
        number: of the input among those of the target; part of the pairs' ids.

    Raises:
        ValueError: the photos differ in size, and their content does not tell how the one lies over the other.
    """
    target_small = reduce(target_pixels, settings.short_side)
    alignment = registered(before_pixels, target_pixels, f"{before.path} and {target.path}")
    if alignment is None:
        before_small = reduce(before_pixels, settings.short_side)
    else:
        before_small = alignment.lay(before_pixels, size_of(target_small))
    plain = _kind(target)
    spoilt, added = recorded_operations(before), recorded_operations(target)
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
                target_small,
                index=number * (1 + settings.stacked) + index,
                kind=kind,
                view=view,
                operations=operations,
                instruction=published_instruction(
                    plain, before.labels, target.labels, spoilt, added, generator, operations
                ),
                before=(before, before_small),
                alignment=alignment,
            )
        )
    return made


def _kind(target: PhotoRecord) -> PairKind:
    if any(label.startswith("look=") for label in target.labels):
        return "look"
    return cast(PairKind, target.kind) if target.kind else "enhancement"  # checked when the source was read
