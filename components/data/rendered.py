"""Depth-of-field pairs rendered from a cut-out and a background that blurs at several levels, the subject not."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from components.data.crops import Crop, reduce, sample_crop
from components.data.degradations import BOKEH_LEVELS
from components.data.pairs import Pair, make_pair
from components.data.prompts import instruction
from components.data.records import PhotoRecord
from components.imaging.photo import Photo, resize_short_side
from components.photometry.assets import encode_cutout, keep_asset
from components.photometry.operations import Operation
from components.seeding import generator_for

CUTOUT, BACKGROUND = "foreground", "background"
"""Labels in the manifest of photos that such pairs are rendered from."""


class RenderedSettings(Protocol):
    """What `components.data.synthesis.SynthesisSettings` says about rendered pairs."""

    short_side: int
    smallest_crop: float
    rendered: int
    seed: int


def rendered_pairs(
    background: PhotoRecord,
    pixels: Tensor,
    cutouts: Sequence[PhotoRecord],
    read: Callable[[PhotoRecord], Photo],
    settings: RenderedSettings,
    assets: Path,
) -> list[Pair]:
    """Pairs with one of the cut-outs, drawn for the background, standing before it; a level of blur after the other.

    The blur of the background is exact, as all of it is known: the target is the blurred background with the subject
    composited over it, the input the sharp one.

    Args:
        background, pixels: the photo (3, H, W) in [0, 1].
        cutouts: photos with transparency; ``read`` decodes one.
        assets: folder in which the cut-outs are kept at working size for rebuilding the pairs.

    Raises:
        ValueError: a cut-out is opaque.
    """
    pixels = reduce(pixels, settings.short_side)
    made = []
    for index in range(settings.rendered):
        generator = generator_for(settings.seed, background.sha256, "rendered", index)
        record = cutouts[int(torch.randint(len(cutouts), (1,), generator=generator))]
        photo = read(record)
        if photo.alpha is None:
            raise ValueError(
                f"{record.path}: expected a cut-out with transparency, found an opaque photo; leave it out"
            )
        cutout = resize_short_side(torch.cat((photo.pixels, photo.alpha)), settings.short_side)
        height, x = torch.rand(2, generator=generator, dtype=torch.float64).tolist()
        subject = Operation(
            name="subject",
            amount=round(0.45 + 0.4 * height, 4),
            parameters={"x": round(0.15 + 0.7 * x, 4), "y": 1.0},
            asset=keep_asset(assets, encode_cutout(cutout), ".png"),
        )
        level = list(BOKEH_LEVELS.values())[index % len(BOKEH_LEVELS)]
        whole = Crop(short_side=settings.short_side)
        operations = (Operation(name="defocus_blur", amount=level),)
        pair = make_pair(
            background,
            pixels,
            index=index,
            kind="depth_of_field",
            view=whole if index == 0 else sample_crop(generator, settings.short_side, settings.smallest_crop),
            operations=operations,
            instruction=instruction("depth_of_field", operations, generator),
            scene=(subject,),
            assets=assets,
        )
        made.append(pair.model_copy(update={"id": f"{background.id}#rendered-{index:02d}"}))
    return made
