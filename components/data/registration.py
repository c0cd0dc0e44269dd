"""Two photos of one pair that differ in size: how the one lies over the other, found by their content.

Editors crop, straighten, reduce and turn; cameras develop a few pixels more than converters. Where the published or
the user's pair shows one scene all the same, a similarity (turn, scale, shift) takes each point of the target to its
point of the input. It is sought twice: as the whole picture, turned by quarters, where the proportions allow it, and by
local features (SIFT: Lowe 2004, Distinctive Image Features from Scale-Invariant Keypoints) agreed upon by RANSAC
(Fischler and Bolles 1981). What is kept has the best correlation of small blocks, which edits of tone and colour hardly
touch, and lies inside the input.
"""

import math
import warnings
from collections.abc import Iterator

import numpy as np
import torch
from skimage.feature import SIFT, match_descriptors
from skimage.measure import ransac
from skimage.registration import phase_cross_correlation
from skimage.transform import SimilarityTransform
from torch import Tensor
from torch.nn import functional

from components.data.alignment import Alignment, size_of
from components.imaging.photo import resize_short_side

warnings.filterwarnings("ignore", message="No inliers found", module="skimage")  # said by returning none
_WORKING_SHORT_SIDE = 480  # pixels at which features are sought and blocks compared
_BLOCK = 16  # side of the compared blocks, pixels
_LEAST_CORRELATION = 0.6  # median over blocks; different photos stay below 0.3
_SURE = 0.97  # of the whole picture: nothing better is sought
_PROPORTIONS = 0.02  # by which those of the whole picture may differ
_OUTSIDE = 0.01  # of the input's sides, by which corners of the target may lie outside: their pixels are repeated
_LEAST_SIDE = 0.2  # of the input's, that the target has to show
_MANY = 200  # features of a picture that are enough
_INLIERS = 12  # features that have to agree
_APART = 3  # working pixels by which the content of two photos has to be shifted to count as that
_BETTER = 0.1  # by which the blocks have to agree better then
_RESIDUAL = 2.0  # working pixels within which they agree


def align(picture: Tensor, target: Tensor) -> Alignment | None:
    """How the input lies over its target, or None where their content does not tell.

    Args:
        picture, target: (3, H, W) in [0, 1] of any size.
    """
    small, wanted = (resize_short_side(one.mean(0, keepdim=True), _WORKING_SHORT_SIDE) for one in (picture, target))
    best, found = _LEAST_CORRELATION, None
    for candidates in (_whole(small, wanted), _by_features(small, wanted)):
        for one in candidates:
            correlation = _correlation(one.lay(small, size_of(wanted)), wanted)
            if _inside(one) and correlation > best:
                best, found = correlation, one
        if best > _SURE:
            break
    return found


def registered(picture: Tensor, target: Tensor, names: str) -> Alignment | None:
    """How the input of a pair lies over its target; None where both have one size and are taken to be aligned.

    Args:
        picture, target: (3, H, W) in [0, 1].
        names: of the two files, for the error.

    Raises:
        ValueError: the sizes differ and the content does not tell how the one lies over the other.
    """
    if picture.shape == target.shape:
        return None
    found = align(picture, target)
    if found is None:
        raise ValueError(
            f"{names}: expected a pair of one size, or of one content, found {tuple(picture.shape[1:])} and "
            f"{tuple(target.shape[1:])}, which cannot be laid over each other; leave the pair out"
        )
    return found


def is_displaced(picture: Tensor, target: Tensor) -> bool:
    """Whether two photos of one size show the same content, but shifted: taken by hand, or cropped apart.

    The shift is that of the phase correlation (Kuglin and Hines 1975), if blocks agree clearly better with it.

    Args:
        picture, target: (3, H, W) in [0, 1].
    """
    small, wanted = (resize_short_side(one.mean(0, keepdim=True), _WORKING_SHORT_SIDE) for one in (picture, target))
    shift, _, _ = phase_cross_correlation(wanted[0].numpy(), small[0].numpy(), normalization="phase")
    down, across = (round(float(value)) for value in shift)
    if max(abs(down), abs(across)) < _APART:
        return False
    height, width = wanted.shape[1] - abs(down), wanted.shape[2] - abs(across)
    if min(height, width) < _LEAST_SIDE * min(wanted.shape[1:]):
        return False
    moved = [
        one[:, max(sign * down, 0) :, max(sign * across, 0) :][:, :height, :width]
        for one, sign in ((small, -1), (wanted, 1))
    ]
    agreed = _correlation(*moved)
    return agreed > _LEAST_CORRELATION and agreed > _correlation(small, wanted) + _BETTER


def _whole(picture: Tensor, target: Tensor) -> Iterator[Alignment]:
    """The whole input as the whole target, turned by quarters, where the proportions agree."""
    shape, other = (one.shape[-1] / one.shape[-2] for one in (picture, target))
    if abs(math.log(shape / other)) < _PROPORTIONS:
        yield Alignment(xx=1.0, xy=0.0, x0=0.0, yx=0.0, yy=1.0, y0=0.0)
        yield Alignment(xx=-1.0, xy=0.0, x0=1.0, yx=0.0, yy=-1.0, y0=1.0)
    if abs(math.log(shape * other)) < _PROPORTIONS:
        yield Alignment(xx=0.0, xy=1.0, x0=0.0, yx=-1.0, yy=0.0, y0=1.0)
        yield Alignment(xx=0.0, xy=-1.0, x0=1.0, yx=1.0, yy=0.0, y0=0.0)


def _by_features(picture: Tensor, target: Tensor) -> Iterator[Alignment]:
    """The similarity on which most features agree, if enough do."""
    there, wanted = (_features(one[0].numpy()) for one in (picture, target))
    if there is None or wanted is None:
        return
    pairs = match_descriptors(wanted[1], there[1], max_ratio=0.85, cross_check=True)
    if len(pairs) < _INLIERS:
        return
    points, places = wanted[0][pairs[:, 0], ::-1] + 0.5, there[0][pairs[:, 1], ::-1] + 0.5
    model, inliers = ransac((points, places), SimilarityTransform, 3, _RESIDUAL, max_trials=2000, rng=0)
    if model is None or inliers is None or inliers.sum() < _INLIERS:
        return
    refined = SimilarityTransform.from_estimate(points[inliers], places[inliers])
    if not refined:
        return
    matrix = refined.params
    (width, height), (wide, high) = (one.shape[:0:-1] for one in (target, picture))
    values = (
        *(matrix[0, 0] * width / wide, matrix[0, 1] * height / wide, matrix[0, 2] / wide),
        *(matrix[1, 0] * width / high, matrix[1, 1] * height / high, matrix[1, 2] / high),
    )
    names = ("xx", "xy", "x0", "yx", "yy", "y0")
    yield Alignment(**{name: round(float(value), 7) for name, value in zip(names, values, strict=True)})


def _features(grey: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Places (N, 2) as row and column and descriptors (N, 128) of a grey picture; None where it has no texture."""
    found: tuple[np.ndarray, np.ndarray] | None = None
    for upsampling in (1, 2):  # fog, sky and water have few features, and small ones
        detector = SIFT(upsampling=upsampling)
        try:
            detector.detect_and_extract(grey)
        except RuntimeError:  # what it raises where it finds nothing
            continue
        found = detector.keypoints, detector.descriptors
        if len(detector.keypoints) >= _MANY:
            break
    return found


def _inside(alignment: Alignment) -> bool:
    """Whether the target shows a part of the input, of some size, and nothing beside it."""
    corners = [
        (alignment.xx * x + alignment.xy * y + alignment.x0, alignment.yx * x + alignment.yy * y + alignment.y0)
        for x in (0, 1)
        for y in (0, 1)
    ]
    area = abs(alignment.xx * alignment.yy - alignment.xy * alignment.yx)
    return area >= _LEAST_SIDE**2 and all(-_OUTSIDE <= value <= 1 + _OUTSIDE for corner in corners for value in corner)


def _correlation(one: Tensor, other: Tensor) -> float:
    """Median correlation of the blocks of two grey pictures (1, H, W), weighted towards those with texture in both."""
    blocks = torch.stack([functional.unfold(grey[None], _BLOCK, stride=_BLOCK)[0].T for grey in (one, other)])
    blocks = blocks - blocks.mean(dim=-1, keepdim=True)
    spread = blocks.square().mean(dim=-1).sqrt()  # (2, blocks)
    textured = (spread > 0.01).all(dim=0)
    if textured.sum() < 4:
        return 0.0
    product = blocks.prod(dim=0).mean(dim=-1)[textured] / spread.prod(dim=0)[textured]
    return float(product.median())
