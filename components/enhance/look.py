"""The global part of an edit: one colour map for the whole photo, as a lattice of colours over the RGB cube.

The local field of `components.enhance.transfer` maps the same colour differently in different places. A look does not:
it is the smooth map that on average turns "before" into "after". It is what a 3D lookup table can hold, and what
`--tone-only` applies: tone and colour of the whole photo change, nothing local does.

Source: lattice regression (Garcia, Arora and Gupta 2012, "Lattice Regression", NIPS, equations 2 and 5): the lattice
whose trilinear interpolation fits the pairs of colours best, with its second differences penalised, so that it goes on
linearly where the photo has no colours. What is fitted is the change, so that without data the map is the identity.
"""

import functools

import numpy as np
import torch
from pydantic import Field
from scipy import sparse
from scipy.sparse import linalg
from torch import Tensor
from torch.nn import functional

from components.strict import Strict

LUT_SIZE = 33
"""Colours a side of a lookup table, as colour grading programs expect them."""
_NODES = 17  # of the fit; a table of 33 that is interpolated trilinearly is the same map


class LookSettings(Strict):
    """How a look is fitted."""

    smoothness: float = Field(default=1e-3, gt=0, description="Weight of the squared second differences.")
    ridge: float = Field(default=1e-10, gt=0, description="Weight of the squared change itself, towards the identity.")


def fit_look(before: Tensor, after: Tensor, settings: LookSettings | None = None) -> Tensor:
    """The change of colour that turns ``before`` into ``after``, as one map for all places.

    Args:
        before, after: (3, h, w) sRGB. Pixels whose result is black or white in a channel say only that it is at
            least so dark or bright, and are left out.

    Returns:
        float32 (33, 33, 33, 3), indexed by red, green and blue: the change of the colour at that point of the cube.
        Zero is the identity, and a factor its strength.

    Raises:
        ValueError: the pictures differ in shape, are no RGB pictures or hold values that are not finite.
    """
    settings = settings or LookSettings()
    if before.ndim != 3 or before.shape[0] != 3 or before.shape != after.shape:
        raise ValueError(
            f"expected two pictures of the same shape (3, h, w), found {tuple(before.shape)} and {tuple(after.shape)}"
        )
    if not (before.isfinite().all() and after.isfinite().all()):
        raise ValueError("expected finite colours, found NaN or infinity: the edit failed")
    colours = before.flatten(1).T.double().clamp(0, 1).numpy()
    change = (after - before).flatten(1).T.double().numpy()
    unclipped = ((after > 0.5 / 255) & (after < 1 - 0.5 / 255)).all(0).flatten().numpy()
    if unclipped.sum() >= 16:
        colours, change = colours[unclipped], change[unclipped]
    weights = _trilinear_weights(colours)
    system = weights.T @ weights / len(colours) + settings.smoothness * _roughness()
    system += settings.ridge * sparse.identity(_NODES**3)
    solve = linalg.factorized(system.tocsc())
    fitted = np.stack([solve(weights.T @ channel / len(colours)) for channel in change.T], axis=-1)
    coarse = torch.from_numpy(fitted).float().view(_NODES, _NODES, _NODES, 3).permute(3, 0, 1, 2)
    fine = functional.interpolate(coarse[None], size=(LUT_SIZE,) * 3, mode="trilinear", align_corners=True)
    return fine[0].permute(1, 2, 3, 0).contiguous()


def lookup_table(look: Tensor, strength: float = 1.0) -> Tensor:
    """The table (33, 33, 33, 3) of resulting colours in [0, 1], indexed by red, green and blue."""
    levels = torch.linspace(0, 1, look.shape[0])
    identity = torch.stack(torch.meshgrid(levels, levels, levels, indexing="ij"), dim=-1)
    return (identity + strength * look).clamp(0, 1)


def apply_table(picture: Tensor, table: Tensor) -> Tensor:
    """Colours of a picture (3, H, W) in [0, 1] through a table (n, n, n, 3), interpolated trilinearly: (3, H, W)."""
    volume = table.permute(3, 2, 1, 0)[None].to(picture)  # depth, height, width of the volume: blue, green, red
    where = picture.permute(1, 2, 0)[None, None] * 2 - 1
    return functional.grid_sample(volume, where, mode="bilinear", padding_mode="border", align_corners=True)[0, :, 0]


def _trilinear_weights(colours: np.ndarray) -> sparse.csr_matrix:
    """(N, nodes) weights of the eight lattice points around each of (N, 3) colours."""
    position = colours * (_NODES - 1)
    corner = np.minimum(position.astype(int), _NODES - 2)
    share = position - corner
    rows, columns, values = [], [], []
    for offset in np.ndindex(2, 2, 2):
        index = corner + offset
        rows.append(np.arange(len(colours)))
        columns.append((index[:, 0] * _NODES + index[:, 1]) * _NODES + index[:, 2])
        values.append(np.prod(np.where(offset, share, 1 - share), axis=1))
    shape = (len(colours), _NODES**3)
    return sparse.csr_matrix((np.concatenate(values), (np.concatenate(rows), np.concatenate(columns))), shape)


@functools.cache
def _roughness() -> sparse.csr_matrix:
    """Sum over the three axes of the squared second differences of a lattice, as a quadratic form."""
    one = sparse.identity(_NODES)
    second = sparse.diags_array([1.0, -2.0, 1.0], offsets=[0, 1, 2], shape=(_NODES - 2, _NODES))
    square = second.T @ second
    along = (
        sparse.kron(sparse.kron(square, one), one),
        sparse.kron(sparse.kron(one, square), one),
        sparse.kron(sparse.kron(one, one), square),
    )
    return sparse.csr_matrix(sum(along))
