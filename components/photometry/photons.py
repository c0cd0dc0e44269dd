"""Compiled photon noise: Poisson counts for every pixel, the same for the same seed on any number of threads."""

import math
from typing import NamedTuple

import numba
import numpy as np
import torch
from torch import Tensor

from components.photometry.fused import BLOCK, LEAST_PIXELS, compiled, in_strips

_WEYL, _MIX_1, _MIX_2 = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_TO_UNIT, _TO_UNIT_31 = 2.0**-32, 2.0**-31
_MOST_QUICK = 1e8  # counts beyond it do not fit 32 bits
_GUIDES, _GUIDE_SHIFT = 64, 26  # a draw of 32 bits begins with one of 64
MOST_TABLED = 20_000.0
"""Means beyond it make tables that no cache holds."""


def photon_noise(light: Tensor, photon: float, seed: int, first: int = 0) -> Tensor:
    """Light as a sensor counts it: photons of Poisson distribution around what arrives, each worth ``photon``.

    Args:
        light: (..., W) float32 linear light, not negative.
        photon: linear light of one photon, positive.
        seed: of all draws, 0 to 2^63 - 1. Each line of pixels has a stream of its own.
        first: number of the first line, where this is a part of a picture.

    Source: transformed rejection, Hoermann (1993), "The transformed rejection method for generating Poisson random
    variables", algorithm PTRS, and inversion below a mean of 10; random bits by SplitMix64 (Steele et al. 2014).
    """
    lines = light.contiguous().reshape(-1, light.shape[-1])
    result = torch.empty_like(lines)
    source, target, state = lines.numpy(), result.numpy(), np.uint64(seed)
    least = max(1, LEAST_PIXELS // source.shape[1])
    in_strips(source.shape[0], lambda a, b: _count_photons(source, target, float(photon), state, first, a, b), least)
    return result.reshape(light.shape)


class PhotonTables(NamedTuple):
    """Poisson distributions of a few means, for drawing by inversion with a guide (Chen and Asau 1974)."""

    shares: np.ndarray
    """uint32: of every mean in turn, the chance of at most so many photons, 1 being 2^32; the last is 2^32 - 1."""
    starts: np.ndarray
    """(M, _GUIDES) int32: where in ``shares`` to begin for the first bits of a draw."""
    offsets: np.ndarray
    """(M,) int32: the number of photons at place 0 of ``shares``, were it of that mean."""


def photon_tables(means: np.ndarray) -> PhotonTables:
    """Tables of means (M,), float64, 0 to `MOST_TABLED`; counts as rare as 1e-15 are left out."""
    reach = 8 * np.sqrt(means) + 20
    low, high = np.maximum(0, means - reach).astype(np.int64), (means + reach).astype(np.int64)
    ends = np.cumsum(high - low + 1)
    begins = ends - (high - low + 1)
    shares = np.empty(ends[-1], np.uint32)
    starts = np.empty((means.size, _GUIDES), np.int32)
    _fill_tables(means, low, begins, ends, shares, starts)
    return PhotonTables(shares, starts, (low - begins).astype(np.int32))


def count_photons(
    samples: np.ndarray, light: np.ndarray, tables: PhotonTables, photon: float, seed: int, first: int, height: int
) -> None:
    """Photon noise where light takes the few values of samples: lines of `photon_noise`, drawn by table.

    Args:
        samples: (n, W, C) uint8, each the number of its mean in ``tables``.
        light: (C, n, W) float32, the result: counts times ``photon``.
        seed: of all draws; each line of each channel has a stream of its own.
        first, height: number of the first line, and of all lines of the picture.
    """
    _count_by_table(samples, light, *tables, np.float32(photon), np.uint64(seed), first, height)


@compiled
def _fill_tables(means, low, begins, ends, shares, starts):
    chances = np.empty(np.max(ends - begins), np.float64)
    for row in range(means.size):
        mean, size = means[row], ends[row] - begins[row]
        usual = min(size - 1, np.int64(mean) - low[row])  # from the likeliest count outwards
        chances[usual] = 1.0
        for i in range(usual + 1, size):
            chances[i] = chances[i - 1] * mean / (low[row] + i)
        for i in range(usual, 0, -1):
            chances[i - 1] = chances[i] * (low[row] + i) / mean
        total, sum_, guide = chances[:size].sum(), 0.0, 0
        for i in range(size):
            sum_ += chances[i] / total
            share = np.uint32(min(sum_ * 2.0**32, 2.0**32 - 1))
            shares[begins[row] + i] = share if i < size - 1 else np.uint32(0xFFFFFFFF)
            while guide < _GUIDES and np.uint32(guide << _GUIDE_SHIFT) < shares[begins[row] + i]:
                starts[row, guide] = begins[row] + i
                guide += 1


@compiled
def _count_by_table(samples, light, shares, starts, offsets, photon, seed, first, height):
    draws = np.empty(samples.shape[1], np.uint32)
    for channel in range(samples.shape[2]):
        for y in range(samples.shape[0]):
            state = _bits(_bits(seed + _WEYL) + _WEYL * np.uint64(channel * height + first + y + 1))
            low = np.uint32(state & np.uint64(0xFFFFFFFF))
            for x in range(draws.size):
                draws[x] = _mixed(np.uint32(np.uint32(x) * np.uint32(0x9E3779B9) + low))
            for x in range(draws.size):
                row, draw = samples[y, x, channel], draws[x]
                place = np.uint32(starts[row, draw >> np.uint32(_GUIDE_SHIFT)])
                while shares[place] <= draw and shares[place] != np.uint32(0xFFFFFFFF):
                    place += np.uint32(1)
                light[channel, y, x] = np.float32(np.int32(place) + offsets[row]) * photon


@numba.njit(error_model="numpy")
def _bits(state):
    """64 random bits for a counter: SplitMix64."""
    z = (state ^ (state >> np.uint64(30))) * _MIX_1
    z = (z ^ (z >> np.uint64(27))) * _MIX_2
    return z ^ (z >> np.uint64(31))


@numba.njit(error_model="numpy")
def _uniform_pair(state):
    """Two numbers in (0, 1), on the middles of 2^32 intervals."""
    bits = _bits(state)
    upper, lower = np.int64(bits >> np.uint64(32)), np.int64(bits & np.uint64(0xFFFFFFFF))
    return (upper + 0.5) * _TO_UNIT, (lower + 0.5) * _TO_UNIT


@numba.njit(error_model="numpy")
def _mixed(x):
    """A permutation of 32 bits that leaves no trace of its argument: Wellons (2018), "lowbias32"."""
    x = np.uint32(x ^ (x >> np.uint32(16)))
    x = np.uint32(x * np.uint32(0x7FEB352D))
    x = np.uint32(x ^ (x >> np.uint32(15)))
    x = np.uint32(x * np.uint32(0x846CA68B))
    return np.uint32(x ^ (x >> np.uint32(16)))


@numba.njit(error_model="numpy")
def _photons(mean, u, v, state):
    """A Poisson count, beginning with the draws u and v, and the counter of further draws."""
    if mean < 10.0:
        probability = math.exp(-mean)
        count = 0.0
        while u > probability and count < 200.0:
            u -= probability
            count += 1.0
            probability *= mean / count
        return count, state
    b = 0.931 + 2.53 * math.sqrt(mean)
    a = -0.059 + 0.02483 * b
    quick = 0.9277 - 3.6224 / (b - 2.0)
    while True:
        u -= 0.5
        edge = 0.5 - abs(u)
        count = math.floor((2.0 * a / edge + b) * u + mean + 0.43)
        if edge >= 0.07 and v <= quick:
            return count, state
        if count >= 0.0 and (edge >= 0.013 or v <= edge):
            hat = v * (1.1239 + 1.1328 / (b - 3.4)) / (a / (edge * edge) + b)
            if count < 10.0:
                if math.log(hat) <= count * math.log(mean) - mean - math.lgamma(count + 1.0):
                    return count, state
            else:  # Stirling's series of the factorial, to 1e-8
                rest = 1.0 / (12.0 * count) - 1.0 / (360.0 * count * count * count)
                if (
                    math.log(hat * math.sqrt(2.0 * math.pi * count))
                    <= count * (1.0 - math.log(count / mean)) - mean - rest
                ):
                    return count, state
        state += _WEYL
        u, v = _uniform_pair(state)


@numba.njit(error_model="numpy")
def _draw_pairs(us, vs, first, low, high):
    """Two draws of 31 bits for each pixel of a line from ``first`` on."""
    for i in range(us.size):
        u = _mixed(np.uint32(np.uint32(first + i) * np.uint32(0x9E3779B9) + low))
        us[i] = np.int32(u >> np.uint32(1))
        vs[i] = np.int32(_mixed(np.uint32(u ^ high)) >> np.uint32(1))


@numba.njit(error_model="numpy")
def _count_quickly(light, photon, us, vs, counts):
    """The quick acceptance of PTRS without a branch: counts, not rounded down yet, and -1 where more has to be done."""
    for i in range(light.size):
        mean = np.float64(light[i]) / photon
        u, v = (np.float64(us[i]) + 0.5) * _TO_UNIT_31 - 0.5, (np.float64(vs[i]) + 0.5) * _TO_UNIT_31
        edge = 0.5 - abs(u)
        usual = 10.0 if mean < 10.0 else mean
        usual = _MOST_QUICK if usual > _MOST_QUICK else usual
        b = 0.931 + 2.53 * math.sqrt(usual)
        a = -0.059 + 0.02483 * b
        count = (2.0 * a / edge + b) * u + usual + 0.43
        count = -1.0 if edge < 0.07 else count
        count = -1.0 if v > 0.9277 - 3.6224 / (b - 2.0) else count
        counts[i] = -1.0 if mean != usual else count


@compiled
def _count_photons(source, target, photon, seed, first, start, stop):
    counts, us, vs = np.empty(BLOCK, np.float64), np.empty(BLOCK, np.int32), np.empty(BLOCK, np.int32)
    for line in range(start, stop):
        state = _bits(_bits(seed + _WEYL) + _WEYL * np.uint64(first + line + 1))
        low, high = np.uint32(state & np.uint64(0xFFFFFFFF)), np.uint32(state >> np.uint64(32))
        for left in range(0, source.shape[1], BLOCK):
            size = min(BLOCK, source.shape[1] - left)
            light, result = source[line, left : left + size], target[line, left : left + size]
            _draw_pairs(us[:size], vs[:size], left, low, high)
            _count_quickly(light, photon, us[:size], vs[:size], counts)
            for i in range(size):
                if counts[i] < 0.0:
                    mean = np.float64(light[i]) / photon
                    counts[i] = 0.0
                    if mean > 0.0:
                        u, v = (us[i] + 0.5) * _TO_UNIT_31, (vs[i] + 0.5) * _TO_UNIT_31
                        counts[i], state = _photons(mean, u, v, state)
                else:
                    counts[i] = np.float64(np.int32(counts[i]))
            for i in range(size):
                result[i] = counts[i] * photon
