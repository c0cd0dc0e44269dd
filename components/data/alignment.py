"""How one photo of a pair lies over the other where they differ in size, as numbers that a record can hold."""

import math

import torch
from torch import Tensor
from torch.nn import functional

from components.imaging.photo import resize
from components.strict import Strict


class Alignment(Strict):
    """Where the target's points lie in the input: x' = xx x + xy y + x0, y' = yx x + yy y + y0.

    Both points are shares of the width and height of their own picture, so that the same numbers hold at every size.
    """

    xx: float
    xy: float
    x0: float
    yx: float
    yy: float
    y0: float

    def lay(self, picture: Tensor, size: tuple[int, int]) -> Tensor:
        """The input in the frame of the target.

        Args:
            picture: the input, (C, H, W) in [0, 1].
            size: height and width of the target, at the resolution that is wanted.

        Returns:
            (C, *size) in [0, 1]; bilinear, of the input reduced (never enlarged) to that resolution.
        """
        height, width = size
        down = math.hypot(self.xy * picture.shape[-1], self.yy * picture.shape[-2]) / height
        along = math.hypot(self.xx * picture.shape[-1], self.yx * picture.shape[-2]) / width
        factor = max(1.0, (down + along) / 2)
        if factor > 1:
            high, wide = (max(1, round(side / factor)) for side in size_of(picture))
            picture = resize(picture, (high, wide))
        x = (torch.arange(width, dtype=torch.float64) + 0.5) / width
        y = (torch.arange(height, dtype=torch.float64)[:, None] + 0.5) / height
        grid = torch.stack((self.xx * x + self.xy * y + self.x0, self.yx * x + self.yy * y + self.y0), dim=-1)
        laid = functional.grid_sample(
            picture[None], (2 * grid - 1).to(picture)[None], padding_mode="border", align_corners=False
        )
        return laid[0].clamp(0, 1)


def size_of(picture: Tensor) -> tuple[int, int]:
    """Height and width of (..., H, W)."""
    return picture.shape[-2], picture.shape[-1]
