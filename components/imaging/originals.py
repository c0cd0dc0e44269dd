"""Photos at full resolution, kept in their file's own samples and worked on in strips.

`components.imaging.photo.Photo` holds floats: 12 bytes per pixel, and as much again for every step. Here a photo of
any size is held once in the 3 or 6 bytes per pixel that its file has, and only strips of rows become floats, so the
memory for working on it does not grow with the photo. Colours outside of sRGB survive an edit: it is computed inside
sRGB and its difference is added to the photo's own colour, in the photo's own profile.

    >>> original = read_original(Path("in.jpg"))                              # doctest: +SKIP
    >>> edited = original.edited(lambda strip, top: strip * 0.9)              # doctest: +SKIP
    >>> write_original(edited, Path("out.jpg"))                               # doctest: +SKIP
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from components import files
from components.imaging import photo as images
from components.imaging import profiles
from components.imaging.formats import Beside
from components.imaging.source import PictureFile

Edit = Callable[[Tensor, int], Tensor]
"""Given (3, n, W) sRGB in [0, 1] and its first row in the photo: the edited strip, which may be the same tensor."""

_STRIP_SAMPLES = 2**20


@dataclass(frozen=True)
class Original:
    """A decoded photo in the samples of its file.

    Attributes:
        samples: (H, W, 3) uint8 or uint16 RGB, upright, in the profile ``icc``, or sRGB where that is None.
        alpha: (H, W) uint8 or uint16, or None when the file is opaque by construction.
        format: Pillow's name of the file format, such as "JPEG", or "RAW".
        bit_depth: bits per sample in the file, 8 or 16.
        exif, xmp: metadata blocks as read, or None.
        icc: RGB profile of ``samples`` that works in both directions, or None.
        white_kelvin: white balance as shot of camera raw, where it is known.
        beside: what else the file carried.
    """

    samples: np.ndarray
    alpha: np.ndarray | None = None
    format: str = "PNG"
    bit_depth: int = 8
    exif: bytes | None = None
    icc: bytes | None = None
    xmp: bytes | None = None
    white_kelvin: float | None = None
    beside: Beside = field(default_factory=Beside)

    @property
    def width(self) -> int:
        return self.samples.shape[1]

    @property
    def height(self) -> int:
        return self.samples.shape[0]

    def strips(self) -> Iterator[tuple[int, int]]:
        """First row and row after the last of each strip, from top to bottom."""
        rows = self._strip_rows
        for top in range(0, self.height, rows):
            yield top, min(top + rows, self.height)

    def srgb(self, top: int, bottom: int, room: Tensor | None = None) -> Tensor:
        """Rows of the photo, float32 (3, bottom - top, W), extended sRGB: beyond [0, 1] outside of the gamut.

        Args:
            room: float32 values of which as many as are needed are used for the result, as `_room` makes them.
        """
        strip = self.samples[top:bottom]
        room = torch.empty(strip.size) if room is None else room
        planes = room[: strip.size].view(3, *strip.shape[:2])
        top_level = np.float32(np.iinfo(strip.dtype).max)
        for channel, plane in enumerate(planes.numpy()):
            np.divide(strip[..., channel], top_level, out=plane, dtype=np.float32)
        if self._profile is None:
            return planes
        colours = profiles.to_extended(planes.permute(1, 2, 0).numpy(), self._profile)
        return torch.from_numpy(colours).permute(2, 0, 1).contiguous()

    def reduced(self, sizes: Sequence[tuple[int, int]]) -> list[Tensor]:
        """The photo reduced to each of some sizes (height, width), float32 (3, h, w) sRGB in [0, 1], in one pass.

        The same as `components.imaging.photo.resize` of the whole photo, the rows first.
        """
        totals = [torch.zeros(height, 3 * self.width) for height, _ in sizes]
        shares = [torch.zeros(height, 1) for height, _ in sizes]
        room, unit = self._room(), 1.0 if self._profile else float(np.iinfo(self.samples.dtype).max)
        for top, bottom in self.strips():
            if self._profile:
                strip = self.srgb(top, bottom, room).clamp_(0, 1).permute(1, 2, 0).flatten(1)
            else:
                strip = room[: (bottom - top) * 3 * self.width].view(bottom - top, -1)
                strip.view(-1, self.width, 3).numpy()[:] = self.samples[top:bottom]
            for total, share in zip(totals, shares, strict=True):
                near, weights = _row_weights(top, bottom, self.height, len(total))
                total[near].addmm_(weights, strip)
                share[near] += weights.sum(dim=1, keepdim=True)
        planes = [
            total.div_(share * unit).view(-1, self.width, 3).permute(2, 0, 1)
            for total, share in zip(totals, shares, strict=True)
        ]
        return [_resampled(rows, size).clamp(0, 1) for rows, size in zip(planes, sizes, strict=True)]

    def edited(self, edit: Edit, in_place: bool = False) -> "Original":
        """The photo with every strip edited; metadata, profile, alpha and depth stay.

        Args:
            in_place: overwrite this photo's samples, where the decoder left them writable, instead of holding both.
        """
        reuse = in_place and self.samples.flags.writeable
        result = self.samples if reuse else np.empty(self.samples.shape, self.samples.dtype)
        top_level, room = float(np.iinfo(result.dtype).max), self._room()
        for top, bottom in self.strips():
            strip = self.srgb(top, bottom, room)
            if self._profile is None:
                levels = edit(strip, top).clamp_(0, 1)
            else:
                inside = strip.clamp(0, 1)
                colours = (strip - inside + edit(inside.clone(), top)).permute(1, 2, 0).contiguous().numpy()
                levels = torch.from_numpy(profiles.from_extended(colours, self._profile)).permute(2, 0, 1)
            for channel, plane in enumerate(levels):  # one by one, so that it stays in the processor's cache
                result[top:bottom, :, channel] = plane.mul_(top_level).round_().numpy()
        return replace(self, samples=result)

    @property
    def _strip_rows(self) -> int:
        return min(self.height, max(1, _STRIP_SAMPLES // (3 * self.width)))

    def _room(self) -> Tensor:
        """Memory for one strip after another: allocating it for each takes longer than the work done in it."""
        return torch.empty(3 * self._strip_rows * self.width)

    @property
    def _profile(self) -> bytes | None:
        """The profile to convert by; None for sRGB."""
        return None if self.icc is None or profiles.is_srgb(self.icc) else self.icc


def read_original(file: PictureFile, max_pixels: int = images.MAX_PIXELS) -> Original:
    """Decode a picture file: upright, RGB, in the profile it came with.

    Grey and CMYK samples become sRGB, as do samples in a profile that colours cannot be converted back into.

    Raises: as `components.imaging.photo.read_photo`.
    """
    raw = images.decode(file, max_pixels)
    samples, icc = raw.colour, raw.icc
    if raw.space != "RGB" or (icc and not profiles.is_two_way(icc)):
        samples = images.srgb_samples(raw, file)
        icc = profiles.srgb_profile() if icc else None
    orientation = raw.header.orientation
    return Original(
        samples=images.upright(samples, orientation),
        alpha=None if raw.alpha is None else images.upright(raw.alpha, orientation),
        format=raw.header.format,
        bit_depth=raw.header.bit_depth,
        exif=raw.exif,
        icc=icc,
        xmp=raw.xmp,
        white_kelvin=raw.white_kelvin,
        beside=raw.beside,
    )


def write_original(original: Original, path: Path, quality: int = 95) -> None:
    """Write a photo in the format of the suffix, whole or not at all. See `components.imaging.photo.write_photo`."""
    files.write_bytes(path, encode_original(original, Path(path).name, quality))


def encode_original(original: Original, name: str, quality: int = 95) -> bytes:
    """A photo as a file in the format of the suffix. See `components.imaging.photo.encode_photo`."""
    bits = images.stored_bits(name, original.bit_depth)
    alpha = None if original.alpha is None else _with_bits(original.alpha, bits)
    samples = _with_bits(original.samples, bits)
    metadata = (original.icc, original.exif, original.xmp)
    return images.encode(name, samples, alpha, *metadata, quality=quality, beside=original.beside)


def _with_bits(samples: np.ndarray, bits: int) -> np.ndarray:
    """Samples of 8 or 16 bits as samples of ``bits``, rounded to nearest."""
    if samples.dtype.itemsize * 8 == bits:
        return samples
    if bits == 16:
        return samples.astype(np.uint16) * 257
    result = np.empty(samples.shape, np.uint8)
    for row, values in zip(result, samples, strict=True):
        row[:] = (values.astype(np.uint32) + 128) // 257
    return result


def _row_weights(top: int, bottom: int, rows: int, reduced: int) -> tuple[slice, Tensor]:
    """What rows ``top`` to ``bottom`` of ``rows`` weigh in the rows of a picture of ``reduced`` rows.

    Keys' cubic convolution (1981, a = -0.5), its support widened by the reduction factor as `images.resize` does.

    Returns:
        the rows of the small picture that they may weigh in, m of them, and the weights (m, bottom - top), of which all
        that a row of the small picture has from anywhere are to be divided by their sum.
    """
    scale = rows / reduced
    width = max(1.0, scale)
    first = max(0, math.floor((top - 2 * width) / scale))
    last = min(reduced, math.ceil((bottom + 2 * width) / scale))
    centres = (torch.arange(first, last, dtype=torch.float64)[:, None] + 0.5) * scale
    away = (torch.arange(top, bottom, dtype=torch.float64) + 0.5 - centres).abs() / width
    inner, outer = (1.5 * away - 2.5) * away**2 + 1, ((-0.5 * away + 2.5) * away - 4) * away + 2
    return slice(first, last), torch.where(away < 1, inner, torch.where(away < 2, outer, 0)).float()


def _resampled(planes: Tensor, size: tuple[int, int]) -> Tensor:
    if tuple(planes.shape[-2:]) == tuple(size):
        return planes
    return functional.interpolate(planes[None], size=size, mode="bicubic", antialias=True, align_corners=False)[0]
