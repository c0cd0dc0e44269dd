"""Operations on large photos of 8 bits: decoded once and encoded once, whatever number of operations lies between.

8 bits have 256 levels of light, so decoding is a table; encoding finds the nearest code by comparing light with the
edges between codes and rounds nothing before. Between the two, a strip of lines that fits the second-level cache goes
through all operations on single pixels before the next strip is read; only blur needs the whole picture, and only JPEG
and low light give 8 bits in between. `components.photometry.operations` defines what the operations do.
"""

import math
from collections.abc import Callable, Sequence
from functools import cache, partial
from itertools import groupby
from pathlib import Path
from typing import Any

import numba
import numpy as np
import scipy.fft
import torch

from components.photometry import fused
from components.photometry.adjustments import retouch_program
from components.photometry.blur import disc_kernel, trajectory_kernel
from components.photometry.colour import srgb_to_linear
from components.photometry.degradations import depth_factors, draw_photons, jpeg_samples
from components.photometry.fused import clamped, compiled
from components.photometry.operations import TONE, Operation, apply_operations
from components.photometry.photons import MOST_TABLED, count_photons, photon_noise, photon_tables

LARGE = 1 << 18
"""Pixels from which on this way is taken. Smaller photos go through `apply_operations`, which rounds one code in some
ten thousand to the other side, so that pairs that were made of them rebuild with the bytes that they have."""

Change = Callable[[np.ndarray, int], None]
"""An operation on single pixels: changes lines of linear light (3, n, W), float32, from the given line on, in place."""

_F = np.float32
_LINES = 32  # a strip of them, of a few megapixels' width, fits the cache
_TILE = 256  # pixels; larger where a kernel would fill most of it
_SPARSE = 8  # every so many pixels each way tell the mean light
_LOG2_E, _LN_2 = math.log2(math.e), math.log(2)
_BINS = 4096  # of linear light; no two edges between codes fall into one
_HERE = frozenset((*TONE, "motion_blur", "defocus_blur", "noise", "jpeg", "haze", "low_light"))


def apply_to_samples(samples: np.ndarray, operations: Sequence[Operation], assets: Path | None = None) -> np.ndarray:
    """`components.photometry.operations.apply_operations` from 8 bits to 8 bits.

    Args:
        samples: (H, W, 3) sRGB, not changed.
        operations, assets: as there, with the same errors.

    Returns:
        (H, W, 3) sRGB, rounded to the nearest; the same for the same samples and operations on the same machine.
    """
    if samples.shape[0] * samples.shape[1] < LARGE or any(operation.name not in _HERE for operation in operations):
        return fused.to_samples(apply_operations(fused.from_samples(samples), operations, assets))
    picture = _Picture(samples)
    for is_tone, run in groupby(operations, key=lambda operation: operation.name in TONE):
        if is_tone:
            program = retouch_program([(operation.name, operation.amount) for operation in run])
            picture.waiting.append(partial(_retouch, program))
            continue
        for operation in run:
            _degrade(picture, operation)
    return picture.samples()


def _retouch(program: tuple[Any, ...], light: np.ndarray, _line: int) -> None:
    fused.retouch_light(light.reshape(3, -1), *program)


class _Picture:
    """A photo half-way: how its light is read, line by line, and changes that wait."""

    def __init__(self, samples: np.ndarray) -> None:
        self.size = samples.shape[:2]
        self.restart(np.ascontiguousarray(samples))

    @property
    def fresh(self) -> bool:
        """Whether these are samples, and nothing waits."""
        return self._samples is not None and not self.waiting

    def read_by(self, read: Change, lines: int = _LINES) -> None:
        """Let ``read`` fill in the light, up to ``lines`` lines at a time, in [0, 1]; all before is in it."""
        self._samples: np.ndarray | None = None
        self._read, self._lines = read, lines
        self.waiting: list[Change] = []

    def samples(self) -> np.ndarray:
        """The photo after all changes, in 8 bits."""
        if self._samples is None or self.waiting:
            result = np.empty((*self.size, 3), np.uint8)
            self._change(lambda light, lines: write_light(light, result[lines]))
            self.restart(result)
            return result
        return self._samples

    def mirrored(self, reach: int) -> np.ndarray:
        """The photo after all changes, continued mirrored on all sides: samples (H, W, 3), or light (3, H, W)."""
        border = ((reach, reach), (reach, reach))
        if self._samples is not None and not self.waiting:
            return np.pad(self._samples, (*border, (0, 0)), mode="symmetric")
        light = np.empty((3, *self.size), np.float32)
        self._change(lambda strip, lines: np.copyto(light[:, lines], strip))
        return np.pad(light, ((0, 0), *border), mode="symmetric")

    def restart(self, samples: np.ndarray) -> None:
        """Go on with other samples."""
        self.read_by(lambda light, top: read_light(samples[top : top + light.shape[1]], light))
        self._samples = samples

    def _change(self, finish: Callable[[np.ndarray, slice], None]) -> None:
        height, width = self.size

        def work(first: int, last: int) -> None:
            for top in range(first, last, self._lines):
                lines = slice(top, min(last, top + self._lines))
                light = np.empty((3, lines.stop - top, width), np.float32)
                self._read(light, top)
                for change in self.waiting:
                    change(light, top)
                finish(light, lines)

        fused.in_strips(height, work, max(1, fused.LEAST_PIXELS // width))


def _degrade(picture: _Picture, operation: Operation) -> None:
    """Let a photo wait for one degradation, or do it where it takes more than single pixels."""
    generator = torch.Generator().manual_seed(operation.seed)
    amount, short_side = operation.amount, min(picture.size)
    match operation.name:
        case "motion_blur":
            _blur(picture, trajectory_kernel(amount * short_side, generator))
        case "defocus_blur":
            _blur(picture, disc_kernel(amount * short_side))
        case "jpeg":
            picture.restart(jpeg_samples(picture.samples(), amount))
        case "haze":
            picture.waiting.append(_haze(picture.size, amount, generator, **operation.parameters))
        case "noise":
            _add_noise(picture, generator, 1.0, amount, **operation.parameters)
        case "low_light":
            _add_noise(picture, generator, 2.0**-amount, **operation.parameters)
            picture.samples()


def _blur(picture: _Picture, kernel: torch.Tensor) -> None:
    """Convolve the light with (2r+1, 2r+1), by FFT of tiles: overlap-save.

    A tile fits the second-level cache, and its rounding errors are as small as its contrast: what is transformed is
    the distance from its mean.
    """
    reach = kernel.shape[-1] // 2
    least = max(_TILE, 6 * reach) - 2 * reach
    tile = [-(-side // -(-side // least)) for side in picture.size]
    fast = [16 * scipy.fft.next_fast_len(-(-(side + 2 * reach) // 16), real=True) for side in tile]
    spectrum = torch.fft.fft(torch.fft.rfft(kernel.float(), n=fast[1]), n=fast[0], dim=-2)
    source, table = picture.mirrored(reach), _light_of_codes()
    in_8_bits = source.dtype == np.uint8

    def read(light: np.ndarray, top: int) -> None:
        extended, product = torch.empty((3, *fast)), torch.empty((3, *spectrum.shape), dtype=torch.complex64)
        lines = slice(top, top + light.shape[1] + 2 * reach)
        for left in range(0, light.shape[2], tile[1]):
            result = light[:, :, left : left + tile[1]]
            columns = slice(left, left + result.shape[2] + 2 * reach)
            part = source[lines, columns] if in_8_bits else source[:, lines, columns]
            extended.zero_()
            if in_8_bits:
                middle = table[part[::_SPARSE, ::_SPARSE]].mean()
                _read_light(part, extended.numpy(), table - middle)
            else:
                middle = part[:, ::_SPARSE, ::_SPARSE].mean()
                np.subtract(part, middle, out=extended.numpy()[:, : part.shape[1], : part.shape[2]])
            torch.fft.rfft2(extended, out=product).mul_(spectrum)
            blurred = torch.fft.irfft2(product, s=fast, out=extended).numpy()[:, 2 * reach :, 2 * reach :]
            _shift_clamped(blurred, middle, result)

    picture.read_by(read, tile[0])


def _haze(size: tuple[int, int], optical_depth: float, generator: torch.Generator, airlight: float = 0.8) -> Change:
    slope, down, across = (factor.contiguous().numpy() for factor in depth_factors(*size, generator))
    return lambda light, top: _scatter(light, slope[top:], down[top:], across, optical_depth, _F(airlight))


def _add_noise(
    picture: _Picture, generator: torch.Generator, gain: float, sigma: float = 0.005, read_share: float = 0.25
) -> None:
    """Sensor noise on ``gain`` times the light; photons are counted by table where light has but 256 levels."""
    height, width = picture.size
    photon, seed = draw_photons(sigma, read_share, generator)
    read = torch.randn((3, height, width), generator=generator).numpy()
    share = _F(sigma * math.sqrt(read_share))
    means = gain / photon * _light_of_codes().astype(np.float64) if photon > 0 else np.full(256, np.inf)
    if picture.fresh and means[-1] <= MOST_TABLED:
        tables = photon_tables(means)
        samples = picture.samples()
        picture.read_by(
            lambda light, top: count_photons(
                samples[top : top + light.shape[1]], light, tables, photon, seed, top, height
            )
        )
    else:

        def expose(light: np.ndarray, top: int) -> None:
            light *= _F(gain)
            for channel in range(3 if photon > 0 else 0):
                line = channel * height + top
                light[channel] = photon_noise(torch.from_numpy(light[channel]), photon, seed, line).numpy()

        picture.waiting.append(expose)
    picture.waiting.append(lambda light, top: _add_clamped(light, read, share, top))


def read_light(samples: np.ndarray, light: np.ndarray) -> None:
    """Decode 8-bit samples (H, W, 3) into linear light (3, H, W), float32."""
    _read_light(samples, light, _light_of_codes())


def write_light(light: np.ndarray, samples: np.ndarray) -> None:
    """Encode linear light (3, H, W), float32, into the nearest 8-bit samples (H, W, 3); what is outside is clamped."""
    _write_light(light, samples, *_code_edges())


@cache
def _light_of_codes() -> np.ndarray:
    """(256,) float32."""
    return srgb_to_linear(torch.arange(256, dtype=torch.float64) / 255).float().numpy()


@cache
def _code_edges() -> tuple[np.ndarray, np.ndarray]:
    """For each bin of linear light the code at its lower end, and the first edge between codes above that, float32."""
    edges = srgb_to_linear((torch.arange(255, dtype=torch.float64) + 0.5) / 255).numpy()
    codes = np.searchsorted(edges, np.arange(_BINS + 1) / _BINS, side="right")
    return codes.astype(np.uint8), np.append(edges, 2.0)[codes].astype(np.float32)


@compiled
def _read_light(samples, light, table):
    for y in range(samples.shape[0]):
        for x in range(samples.shape[1]):
            light[0, y, x] = table[samples[y, x, 0]]
            light[1, y, x] = table[samples[y, x, 1]]
            light[2, y, x] = table[samples[y, x, 2]]


@compiled
def _write_light(light, samples, codes, edges):
    for y in range(samples.shape[0]):
        for x in range(samples.shape[1]):
            for channel in range(3):
                value = clamped(light[channel, y, x])
                position = np.uint32(np.int32(value * _F(_BINS)))
                samples[y, x, channel] = codes[position] + (value >= edges[position])


@compiled
def _shift_clamped(values, shift, result):
    for channel in range(result.shape[0]):
        for y in range(result.shape[1]):
            line, target = values[channel, y], result[channel, y]
            for x in range(target.size):
                target[x] = clamped(line[x] + shift)


@compiled
def _add_clamped(light, read, share, top):
    for channel in range(light.shape[0]):
        for y in range(light.shape[1]):
            lines, errors = light[channel, y], read[channel, top + y]
            for x in range(light.shape[2]):
                lines[x] = clamped(lines[x] + share * errors[x])


@numba.njit(error_model="numpy")
def _falling_exp(x):
    """exp(-x) for x from 0 to 64, to 1e-12: the exponent's whole part in bits, Taylor's series for the rest."""
    whole = np.int64(x * _LOG2_E + 0.5)
    rest = whole * _LN_2 - x
    series = 1.0
    for n in range(11, 0, -1):
        series = 1.0 + series * rest / n
    return series * np.int64((1023 - whole) << 52).view(np.float64)


@compiled
def _scatter(light, slope, down, across, optical_depth, airlight):
    """Haze by the depth that `components.photometry.degradations.depth_cue` gives."""
    transmission = np.empty(light.shape[2], np.float32)
    first, second, third, fourth = across[0], across[1], across[2], across[3]
    for y in range(light.shape[1]):
        near, a, b, c, d = slope[y] - 0.25, 0.5 * down[y, 0], 0.5 * down[y, 1], 0.5 * down[y, 2], 0.5 * down[y, 3]
        for x in range(transmission.size):
            depth = near + a * first[x] + b * second[x] + c * third[x] + d * fourth[x]
            depth = 0.0 if depth < 0.0 else depth
            depth = 1.0 if depth > 1.0 else depth
            transmission[x] = _falling_exp(optical_depth * depth)
        for channel in range(light.shape[0]):
            values = light[channel, y]
            for x in range(transmission.size):
                values[x] = airlight + (values[x] - airlight) * transmission[x]
