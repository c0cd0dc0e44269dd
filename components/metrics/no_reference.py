"""No-reference quality of a picture, by a measure that needs no weights: PIQE."""

import torch
from pyiqa.archs.piqe_arch import piqe as score
from torch import Tensor


@torch.no_grad()
def piqe(pictures: Tensor) -> Tensor:
    """Perception-based image quality (B,) of pictures (B, 3, H, W) in [0, 1], each side at least 16 pixels.

    Venkatanath et al. (2015), as pyiqa computes it: 0 is best, 100 worst. It looks for noise and for flat edges in
    blocks of 16x16 pixels: blur, banding, blocking and clipped areas raise it. A picture without any structure has 100.
    """
    pictures = pictures.float().clamp(min=1e-6)  # the measure divides by the brightest pixel
    return score(pictures)[0]
