"""Views: the small pictures that models look at, each a recorded crop of a photo, taken again bit for bit."""

import torch
from pydantic import Field, model_validator
from torch import Tensor

from components.imaging.photo import quantize, resize_short_side
from components.strict import Strict

_HEADROOM = 3  # photos are first reduced to this many times the view's short side, once for all views of a photo


class Crop(Strict):
    """A crop of a photo in shares of its width and height, its size, and whether it is mirrored left to right."""

    left: float = Field(default=0.0, ge=0, lt=1)
    top: float = Field(default=0.0, ge=0, lt=1)
    width: float = Field(default=1.0, gt=0, le=1)
    height: float = Field(default=1.0, gt=0, le=1)
    mirrored: bool = False
    short_side: int = Field(ge=8, description="Pixels of the shorter side; smaller crops are not enlarged.")

    @model_validator(mode="after")
    def _inside_the_photo(self) -> "Crop":
        if self.left + self.width > 1 + 1e-6 or self.top + self.height > 1 + 1e-6:
            raise ValueError(f"the crop reaches outside the photo: {self.model_dump()}")
        return self


def sample_crop(generator: torch.Generator, short_side: int, smallest: float) -> Crop:
    """Draw a crop with sides of ``smallest`` to 1 of the photo's (one share for both), mirrored half the time."""
    share, x, y, mirror = torch.rand(4, generator=generator, dtype=torch.float64).tolist()
    side = round(smallest + (1 - smallest) * share, 4)
    return Crop(
        left=round(x * (1 - side), 4),
        top=round(y * (1 - side), 4),
        width=side,
        height=side,
        mirrored=mirror < 0.5,
        short_side=short_side,
    )


def reduce(pixels: Tensor, short_side: int) -> Tensor:
    """Shrink (3, H, W) to what views of ``short_side`` are taken from; views of the result have the same bytes."""
    return resize_short_side(pixels, _HEADROOM * short_side)


def take_crop(pixels: Tensor, view: Crop) -> Tensor:
    """Cut a view out of a photo.

    Args:
        pixels: (3, H, W) of the whole photo in [0, 1], or `reduce` of it.

    Returns:
        (3, h, w) on the 8-bit grid in [0, 1], at least one pixel each way.
    """
    source = reduce(pixels, view.short_side)
    height, width = source.shape[-2:]
    top, left = min(height - 1, round(view.top * height)), min(width - 1, round(view.left * width))
    bottom = max(top + 1, round((view.top + view.height) * height))
    right = max(left + 1, round((view.left + view.width) * width))
    crop = resize_short_side(source[:, top:bottom, left:right], view.short_side)
    return quantize(crop.flip(-1) if view.mirrored else crop)
