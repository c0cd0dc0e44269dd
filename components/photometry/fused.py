"""Compiled pixel loops: decode, retouch and encode in one pass.

They do what `colour` defines with tensor operations, on float32 pictures in main memory, in a fraction of the time
(`make benchmark-data`, rows "synthesis"); definitions in float64 lie with the tests (tests/photometry/reference.py).
Each pixel is read once and written once, in blocks that stay in the processor's cache. Powers are taken by root finding
with additions, multiplications, divisions and square roots only, each rounded as IEEE 754 prescribes and never
contracted, so decoding, retouching and encoding give the same bits on every machine. Pictures are split into strips for
as many threads as torch uses; no result depends on their number.
"""

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import pairwise
from typing import Any

import numba
import numpy as np
import torch
from torch import Tensor

_F = np.float32
BLOCK = 1024  # pixels handled at a time: three channels of them fit the first-level cache
LEAST_PIXELS = 1 << 15  # smaller strips are not worth a thread

_ONE_BITS = 127 * 2**23  # the bits of 1.0
_CBRT_SHIFT = _F(round((1 - 1 / 3) * (_ONE_BITS - 0.0450466 * 2**23)))  # Blinn (1997): roots by halving exponents
_FIFTH_SHIFT = _F(round((1 - 1 / 5) * (_ONE_BITS - 0.0450466 * 2**23)))
_THIRD, _FIFTH, _TWO, _FOUR, _ONE, _ZERO = _F(1 / 3), _F(1 / 5), _F(2), _F(4), _F(1), _F(0)
_DECODE_KNEE, _DECODE_SLOPE, _OFFSET, _SCALE = _F(0.04045), _F(1 / 12.92), _F(0.055), _F(1 / 1.055)
_ENCODE_KNEE, _ENCODE_SLOPE, _GAIN = _F(0.0031308), _F(12.92), _F(1.055)
_DELTA, _DELTA_3 = _F(6 / 29), _F((6 / 29) ** 3)
_LAB_SLOPE, _LAB_UNSLOPE, _LAB_OFFSET = _F(1 / (3 * (6 / 29) ** 2)), _F(3 * (6 / 29) ** 2), _F(4 / 29)
_TOP, _ROUND = _F(255), _F(2**23)
_MIDDLE_F = _F((50 + 16) / 116)  # f(Y) at L* = 50


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a function without the interpreter lock; kept on disk where there is a writable place for it."""
    options = {"nogil": True, "error_model": "numpy"}  # Python's check of every division would forbid vector code
    try:
        return numba.njit(cache=True, **options)(function)
    except RuntimeError:  # numba found no writable cache folder
        return numba.njit(**options)(function)


def decode(image: Tensor) -> Tensor:
    """Linear light of sRGB, any shape: `colour.srgb_to_linear`."""
    return _map_values(_decode_strip, image)


def encode(linear_image: Tensor) -> Tensor:
    """sRGB of linear light, any shape, clamped to [0, 1]: `colour.linear_to_srgb` of what fits the gamut."""
    return _map_values(_encode_strip, linear_image)


def from_samples(samples: np.ndarray) -> Tensor:
    """8-bit samples (H, W, 3) as a picture, float32 (3, H, W) in [0, 1]."""
    samples = np.ascontiguousarray(samples)
    result = torch.empty((3, *samples.shape[:2]))
    target = result.numpy()
    least = max(1, LEAST_PIXELS // samples.shape[1])
    in_strips(samples.shape[0], lambda a, b: _read_lines(samples, target, a, b), least)
    return result


def to_samples(image: Tensor) -> np.ndarray:
    """A picture (3, H, W), float32, as 8-bit samples (H, W, 3): clamped, and rounded to the nearest, halves to even."""
    source = _values(image)
    samples = np.empty((*source.shape[1:], 3), np.uint8)
    least = max(1, LEAST_PIXELS // source.shape[2])
    in_strips(source.shape[1], lambda a, b: _write_lines(source, samples, a, b), least)
    return samples


def retouch(
    image: Tensor, matrices: Sequence[Tensor], slopes: Sequence[float], scales: Sequence[float], clamp: bool = False
) -> Tensor:
    """Alternate matrices on linear light with retouches of CIELAB: M0, lab 0, M1, lab 1, ..., and encode.

    Args:
        image: (..., 3, H, W) sRGB, float32.
        matrices: one more than slopes: the first takes linear sRGB to XYZ relative to white, those between take
            relative XYZ to relative XYZ, the last to linear sRGB. A single one takes linear sRGB to linear sRGB.
        slopes: of L* about 50, one per retouch.
        scales: of chroma, one per retouch.
        clamp: hold the result within [0, 1].

    Raises:
        ValueError: the picture is not float32 in main memory without gradient; so for all functions here.
    """
    pixels = _values(image).reshape(-1, 3, image.shape[-2] * image.shape[-1])
    result = torch.empty(pixels.shape)
    program, lab = _program(matrices, slopes, scales)
    for source, target in zip(pixels, result.numpy(), strict=True):
        in_strips(source.shape[1], partial(_retouch_strip, source, target, program, lab, clamp))
    return result.reshape(image.shape)


def retouch_light(
    light: np.ndarray, matrices: Sequence[Tensor], slopes: Sequence[float], scales: Sequence[float]
) -> None:
    """`retouch` of linear light (3, N), float32, in place and clamped to [0, 1]; neither decoded nor encoded."""
    _retouch_light(light, *_program(matrices, slopes, scales))


def _program(
    matrices: Sequence[Tensor], slopes: Sequence[float], scales: Sequence[float]
) -> tuple[np.ndarray, np.ndarray]:
    program = torch.stack([matrix.double() for matrix in matrices]).to(torch.float32).numpy()
    return program, np.array([slopes, scales], dtype=np.float32).reshape(2, -1)


def in_strips(count: int, work: Callable[[int, int], None], least: int = LEAST_PIXELS) -> None:
    """Call ``work(start, stop)`` on strips of 0..count, on as many threads as torch may use."""
    threads = min(torch.get_num_threads(), max(1, count // least))
    if threads == 1:
        work(0, count)
        return
    bounds = [count * part // threads for part in range(threads + 1)]
    with ThreadPoolExecutor(threads - 1) as pool:
        others = [pool.submit(work, a, b) for a, b in pairwise(bounds[1:])]
        work(0, bounds[1])
        for other in others:
            other.result()


def _map_values(strip: Callable[[np.ndarray, np.ndarray], None], image: Tensor) -> Tensor:
    source = _values(image).reshape(-1)
    result = torch.empty(source.shape)
    target = result.numpy()
    in_strips(len(source), lambda a, b: strip(source[a:b], target[a:b]), 3 * LEAST_PIXELS)
    return result.reshape(image.shape)


def _values(image: Tensor) -> np.ndarray:
    if image.dtype != torch.float32 or image.device.type != "cpu" or image.requires_grad:
        gradient = " that asks for a gradient" if image.requires_grad else ""
        raise ValueError(
            f"expected a float32 picture in main memory and no gradient, found {image.dtype} on {image.device}"
            f"{gradient}: operations on photos are no layers; pass picture.detach().float().cpu()"
        )
    return image.contiguous().numpy()


@numba.njit(error_model="numpy")
def clamped(value):
    value = _ZERO if value < _ZERO else value
    return _ONE if value > _ONE else value


@numba.njit(error_model="numpy")
def _cbrt(x):
    """Cube root of a positive float32: two steps of Halley's iteration, whose error is cubed each time."""
    y = np.int32(_F(_F(x).view(np.int32)) * _THIRD + _CBRT_SHIFT).view(np.float32)
    cube = y * y * y
    y = y * (cube + _TWO * x) / (_TWO * cube + x)
    cube = y * y * y
    return y * (cube + _TWO * x) / (_TWO * cube + x)


@numba.njit(error_model="numpy")
def _decoded(value):
    magnitude = abs(value)
    base = ((_DECODE_KNEE if magnitude < _DECODE_KNEE else magnitude) + _OFFSET) * _SCALE
    root = np.int32(_F(_F(base).view(np.int32)) * _FIFTH + _FIFTH_SHIFT).view(np.float32)
    square = root * root  # three steps of Newton's iteration for the fifth root
    root = (_FOUR * root + base / (square * square)) * _FIFTH
    square = root * root
    root = (_FOUR * root + base / (square * square)) * _FIFTH
    square = root * root
    root = (_FOUR * root + base / (square * square)) * _FIFTH
    curve = base * root
    curve = math.copysign(curve * curve, value)  # base^2.4
    return value * _DECODE_SLOPE if magnitude <= _DECODE_KNEE else curve


@numba.njit(error_model="numpy")
def _encoded(value):
    magnitude = abs(value)
    root = _cbrt(_ENCODE_KNEE if magnitude < _ENCODE_KNEE else magnitude)
    curve = math.copysign(_GAIN * (root * math.sqrt(math.sqrt(root))) - _OFFSET, value)  # x^(1/3) x^(1/12) = x^(1/2.4)
    return value * _ENCODE_SLOPE if magnitude <= _ENCODE_KNEE else curve


@numba.njit(error_model="numpy")
def _lab_f(ratio):
    root = _cbrt(_DELTA_3 if ratio < _DELTA_3 else ratio)
    return root if ratio > _DELTA_3 else ratio * _LAB_SLOPE + _LAB_OFFSET


@numba.njit(error_model="numpy")
def _lab_ratio(f):
    cube = f * f * f
    return cube if f > _DELTA else (f - _LAB_OFFSET) * _LAB_UNSLOPE


@compiled
def _decode_strip(source, target):
    for i in range(source.size):
        target[i] = _decoded(source[i])


@compiled
def _encode_strip(source, target):
    for i in range(source.size):
        target[i] = _encoded(clamped(source[i]))


@numba.njit(error_model="numpy")
def _retouch_block(red, green, blue, count, matrices, lab):
    for stage in range(matrices.shape[0]):
        m = matrices[stage]
        m00, m01, m02 = m[0, 0], m[0, 1], m[0, 2]
        m10, m11, m12 = m[1, 0], m[1, 1], m[1, 2]
        m20, m21, m22 = m[2, 0], m[2, 1], m[2, 2]
        for i in range(count):
            r, g, b = red[i], green[i], blue[i]
            red[i] = m00 * r + m01 * g + m02 * b
            green[i] = m10 * r + m11 * g + m12 * b
            blue[i] = m20 * r + m21 * g + m22 * b
        if stage < lab.shape[1]:
            slope, scale = lab[0, stage], lab[1, stage]
            for i in range(count):
                fx, fy, fz = _lab_f(red[i]), _lab_f(green[i]), _lab_f(blue[i])
                moved = _MIDDLE_F + (fy - _MIDDLE_F) * slope
                red[i] = _lab_ratio(moved + (fx - fy) * scale)
                green[i] = _lab_ratio(moved)
                blue[i] = _lab_ratio(moved + (fz - fy) * scale)


@compiled
def _retouch_strip(source, target, matrices, lab, clamp, first, last):
    red, green, blue = np.empty(BLOCK, np.float32), np.empty(BLOCK, np.float32), np.empty(BLOCK, np.float32)
    for start in range(first, last, BLOCK):
        count = min(BLOCK, last - start)
        stop = start + count  # slices begin at 0, so no index can be negative, whose check would forbid vector code
        reds, greens, blues = source[0, start:stop], source[1, start:stop], source[2, start:stop]
        for i in range(count):
            red[i], green[i], blue[i] = _decoded(reds[i]), _decoded(greens[i]), _decoded(blues[i])
        _retouch_block(red, green, blue, count, matrices, lab)
        if clamp:
            for i in range(count):
                red[i], green[i], blue[i] = clamped(red[i]), clamped(green[i]), clamped(blue[i])
        reds, greens, blues = target[0, start:stop], target[1, start:stop], target[2, start:stop]
        for i in range(count):
            reds[i], greens[i], blues[i] = _encoded(red[i]), _encoded(green[i]), _encoded(blue[i])


@compiled
def _retouch_light(light, matrices, lab):
    for start in range(0, light.shape[1], BLOCK):
        count = min(BLOCK, light.shape[1] - start)
        stop = start + count
        red, green, blue = light[0, start:stop], light[1, start:stop], light[2, start:stop]
        _retouch_block(red, green, blue, count, matrices, lab)
        for i in range(count):
            red[i], green[i], blue[i] = clamped(red[i]), clamped(green[i]), clamped(blue[i])


@compiled
def _read_lines(samples, target, first, last):
    for y in range(first, last):
        for x in range(samples.shape[1]):
            target[0, y, x] = _F(samples[y, x, 0]) / _TOP
            target[1, y, x] = _F(samples[y, x, 1]) / _TOP
            target[2, y, x] = _F(samples[y, x, 2]) / _TOP


@compiled
def _write_lines(source, samples, first, last):
    for y in range(first, last):
        for x in range(samples.shape[1]):
            for channel in range(3):
                # Adding 2^23 leaves no bits after the point: the sum is rounded to nearest, halves to even.
                samples[y, x, channel] = np.uint8(np.int32(clamped(source[channel, y, x]) * _TOP + _ROUND - _ROUND))
