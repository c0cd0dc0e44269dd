"""The classical automatic corrections that a user has for free, as rows of every table beside ours.

All are global or tiled histogram and colour rules in wide use, through Pillow and scikit-image with their usual
settings; none has been tuned on our photos.
"""

from collections.abc import Callable

import numpy as np
import torch
from PIL import Image, ImageFilter, ImageOps
from skimage.exposure import equalize_adapthist, equalize_hist
from torch import Tensor

from components.metrics.full_reference import to_bytes
from components.photometry.colour import linear_to_srgb, srgb_to_linear


def auto_contrast(photo: Tensor) -> Tensor:
    """Stretch every channel between its 0.5% and 99.5% quantile, as photo viewers do (Pillow's autocontrast)."""
    return _through_pillow(photo, lambda image: ImageOps.autocontrast(image, cutoff=0.5))


def grey_world(photo: Tensor) -> Tensor:
    """Scale the linear channels so that their means agree, keeping the mean (Buchsbaum 1980)."""
    linear_photo = srgb_to_linear(photo)
    means = linear_photo.mean((-2, -1), keepdim=True).clamp(min=1e-6)
    return linear_to_srgb(linear_photo * (means.mean() / means)).clamp(0, 1)


def clahe(photo: Tensor) -> Tensor:
    """Contrast-limited adaptive histogram equalisation of the HSV value (Zuiderveld 1994), scikit-image's defaults."""
    return _tensor(equalize_adapthist(photo.permute(1, 2, 0).contiguous().numpy()))


def histogram_equalisation(photo: Tensor) -> Tensor:
    """Equalise the histogram of luma in YCbCr, keeping chroma."""
    image = Image.fromarray(to_bytes(photo)).convert("YCbCr")
    luma, blue, red = image.split()
    equalised = Image.fromarray((equalize_hist(np.asarray(luma)) * 255).round().astype(np.uint8))
    return _tensor(np.asarray(Image.merge("YCbCr", (equalised, blue, red)).convert("RGB")) / 255)


def unsharp_mask(photo: Tensor) -> Tensor:
    """Sharpen: add 150% of the difference from a Gaussian blur of 2 pixels above a threshold of 3 (Pillow's)."""
    return _through_pillow(
        photo, lambda image: image.filter(ImageFilter.UnsharpMask(radius=2, percent=150, threshold=3))
    )


BASELINES: dict[str, Callable[[Tensor], Tensor]] = {
    "auto_contrast": auto_contrast,
    "grey_world": grey_world,
    "clahe": clahe,
    "histogram_equalisation": histogram_equalisation,
    "unsharp_mask": unsharp_mask,
}
"""Each takes and gives (3, H, W) sRGB in [0, 1]. The untouched input is not listed: it is the photo itself."""


def check_known(names: tuple[str, ...]) -> tuple[str, ...]:
    """The names, if each is a key of `BASELINES`.

    Raises:
        ValueError: one is not.
    """
    if unknown := set(names) - set(BASELINES):
        raise ValueError(f"unknown baselines {sorted(unknown)}; expected some of {', '.join(BASELINES)}")
    return names


def _through_pillow(photo: Tensor, correct: Callable[[Image.Image], Image.Image]) -> Tensor:
    return _tensor(np.asarray(correct(Image.fromarray(to_bytes(photo)))) / 255)


def _tensor(array: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array.transpose(2, 0, 1), dtype=np.float32))
