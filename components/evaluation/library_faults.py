"""A second family of faults to judge by, made with other people's code: what editors and cameras do, not what we do.

A model learns the marks of whatever spoilt its training pictures. These faults are therefore made by Pillow's and
torchvision's adjustments of the gamma-encoded values, by curves drawn for each channel, by a wrong white balance of
linear light and by an under-exposure with lifted blacks; nothing is trained on them. They go down to amounts that can
hardly be seen, since a small fault made larger is the harm that people meet first.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageEnhance
from scipy.interpolate import PchipInterpolator
from torch import Tensor
from torchvision.transforms import functional

from components.imaging.photo import quantize
from components.metrics.full_reference import to_bytes
from components.photometry.colour import linear_to_srgb, srgb_to_linear


class LibraryFault(NamedTuple):
    """One fault: a key of `LIBRARY_FAULTS` and its numbers."""

    name: str
    numbers: tuple[float, ...]

    @property
    def label(self) -> str:
        """The fault in a few words, e.g. ``"brightness (Pillow) 0.71"``."""
        return f"{LIBRARY_FAULTS[self.name].title} {', '.join(f'{number:.2f}' for number in self.numbers)}"


class _Kind(NamedTuple):
    title: str
    draw: Callable[[torch.Generator], tuple[float, ...]]
    apply: Callable[[Tensor, tuple[float, ...]], Tensor]


def sample_library_faults(generator: torch.Generator) -> tuple[LibraryFault, ...]:
    """Draw one or two faults of different kinds, in the order in which they are applied."""
    names = list(LIBRARY_FAULTS)
    count = 1 + int(torch.randint(2, (), generator=generator))
    chosen = torch.randperm(len(names), generator=generator)[:count].tolist()
    return tuple(LibraryFault(names[index], LIBRARY_FAULTS[names[index]].draw(generator)) for index in chosen)


def apply_library_faults(photo: Tensor, faults: tuple[LibraryFault, ...]) -> Tensor:
    """The photo (3, H, W) sRGB in [0, 1] with the faults, on the 8-bit grid after each, as editors keep it."""
    for fault in faults:
        photo = quantize(LIBRARY_FAULTS[fault.name].apply(photo, fault.numbers).clamp(0, 1))
    return photo


def _factor(low: float, high: float) -> Callable[[torch.Generator], tuple[float, ...]]:
    """exp(+-u) with u uniform in [low, high]."""

    def draw(generator: torch.Generator) -> tuple[float, ...]:
        size, sign = torch.rand(2, generator=generator, dtype=torch.float64).tolist()
        return (float(np.exp((low + (high - low) * size) * (1 if sign < 0.5 else -1))),)

    return draw


def _uniform(*ranges: tuple[float, float]) -> Callable[[torch.Generator], tuple[float, ...]]:
    def draw(generator: torch.Generator) -> tuple[float, ...]:
        shares = torch.rand(len(ranges), generator=generator, dtype=torch.float64).tolist()
        return tuple(low + (high - low) * share for (low, high), share in zip(ranges, shares, strict=True))

    return draw


def _pillow(enhance: Callable[[Image.Image], ImageEnhance._Enhance]) -> Callable[[Tensor, tuple[float, ...]], Tensor]:
    def apply(photo: Tensor, numbers: tuple[float, ...]) -> Tensor:
        done = np.asarray(enhance(Image.fromarray(to_bytes(photo))).enhance(numbers[0]))
        return torch.from_numpy(done.transpose(2, 0, 1).astype(np.float32) / 255)

    return apply


def _jitter(photo: Tensor, numbers: tuple[float, ...]) -> Tensor:
    gamma, saturation = numbers
    return functional.adjust_saturation(functional.adjust_gamma(photo, gamma), saturation)


def _curves(photo: Tensor, numbers: tuple[float, ...]) -> Tensor:
    """A smooth monotone curve for each channel through the ends and two points that are moved."""
    levels = np.linspace(0, 1, 256)
    channels = []
    for channel, (low, high) in zip(photo, zip(numbers[::2], numbers[1::2], strict=True), strict=True):
        curve = PchipInterpolator([0, 0.3, 0.7, 1], [0, 0.3 + low, 0.7 + high, 1])(levels)
        index = (channel.clamp(0, 1) * 255).round().long()
        channels.append(torch.from_numpy(curve.astype(np.float32))[index])
    return torch.stack(channels)


def _white_balance(photo: Tensor, numbers: tuple[float, ...]) -> Tensor:
    """Multipliers of red and blue in linear light, as a camera's setting has them, at equal luminance of white."""
    red, blue = numbers
    gains = torch.tensor([red, 1.0, blue])
    gains = gains / (gains * torch.tensor([0.2126, 0.7152, 0.0722])).sum()
    return linear_to_srgb((srgb_to_linear(photo) * gains[:, None, None]).clamp(0, 1))


def _underexposed(photo: Tensor, numbers: tuple[float, ...]) -> Tensor:
    """Fewer stops of light, and blacks lifted by flare or by a hasty editor."""
    stops, black = numbers
    dark = linear_to_srgb(srgb_to_linear(photo) * 2**-stops)
    return black + (1 - black) * dark


LIBRARY_FAULTS: dict[str, _Kind] = {
    "brightness": _Kind("brightness (Pillow)", _factor(0.05, 0.5), _pillow(ImageEnhance.Brightness)),
    "contrast": _Kind("contrast (Pillow)", _factor(0.08, 0.6), _pillow(ImageEnhance.Contrast)),
    "colour": _Kind("colour (Pillow)", _factor(0.1, 0.9), _pillow(ImageEnhance.Color)),
    "jitter": _Kind("gamma and saturation (torchvision)", _uniform((0.65, 1.5), (0.5, 1.6)), _jitter),
    "curves": _Kind("curves for each channel", _uniform(*((-0.12, 0.12),) * 6), _curves),
    "white_balance": _Kind(
        "white balance, red and blue in linear light", _uniform((0.7, 1.4), (0.7, 1.4)), _white_balance
    ),
    "underexposed": _Kind("under-exposed with lifted blacks", _uniform((0.2, 1.5), (0.0, 0.08)), _underexposed),
}
"""The kinds by name."""
