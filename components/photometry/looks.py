"""Film looks: a colour table learnt from photos before and after grading, kept as a .cube file, applied to any photo.

A grade maps colours to colours, whatever the picture shows. Its table holds the result at the nodes of a lattice over
the RGB cube; between nodes it is trilinear. The table is the regularised least-squares solution over all pixels:
smooth where few pixels lie, and the identity where none do.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from components.photometry.attributes import check_image
from components.strict import Strict

if TYPE_CHECKING:  # imported where looks are fitted; who applies one does not need it
    import scipy.sparse

_CORNERS = np.array([(r, g, b) for b in (0, 1) for g in (0, 1) for r in (0, 1)])


class LookSettings(Strict):
    """How a look is learnt."""

    size: int = Field(default=17, ge=2, le=65, description="Nodes along each side of the table.")
    smoothness: float = Field(default=3e-5, gt=0, description="Weight of squared second differences between nodes.")
    identity: float = Field(default=1e-6, gt=0, description="Weight of the squared distance from the identity.")
    pixels: int = Field(default=65536, ge=1, description="Pixels taken of each pair, evenly over the picture.")


class Look(NamedTuple):
    """A colour table."""

    title: str
    table: Tensor
    """(S, S, S, 3) float32 sRGB at nodes [blue, green, red] evenly from 0 to 1; values may leave [0, 1]."""


class LookFit(NamedTuple):
    """A learnt look and how well it explains the pairs it was learnt from."""

    look: Look
    pixels: int
    error_before: float
    """Root mean square of target minus input, code values in [0, 1]."""
    error_after: float
    """Root mean square of target minus the look of the input: noise, grain and what is not a function of colour."""


def fit_look(pairs: Iterable[tuple[Tensor, Tensor]], title: str, settings: LookSettings | None = None) -> LookFit:
    """Learn the colour table that takes inputs to targets.

    With A the trilinear weights of the input pixels (n x S^3) and D the table's distance from the identity, solves
    (A'A / n + smoothness L'L + identity I) D = A'(target - input) / n for each channel, L being second differences.

    Args:
        pairs: aligned pictures (3, H, W) of equal size in [0, 1], input first.
        title: of the look, for the file.

    Raises:
        ValueError: no pair, or two pictures of different size.

    Source: Zeng et al. (2020), "Learning image-adaptive 3D lookup tables", for trilinear tables with a smoothness
    term; Garcia and Gupta (2009), "Lattice regression", for the least-squares solution.
    """
    import scipy.sparse
    import scipy.sparse.linalg

    settings = settings or LookSettings()
    nodes = settings.size**3
    normal, right = scipy.sparse.csr_array((nodes, nodes)), np.zeros((nodes, 3))
    square_before = square_target = 0.0
    count = 0
    for before, after in pairs:
        source, change = _sampled(before, after, settings.pixels)
        weights = _trilinear(source, settings.size)
        normal = normal + weights.T @ weights
        right += weights.T @ change
        square_before += float((change**2).sum())
        count += len(source)
    if count == 0:
        raise ValueError("expected at least one pair of pictures, found none")
    bend = _bending(settings.size)
    system = normal / count + settings.smoothness * bend + settings.identity * scipy.sparse.eye_array(nodes)
    distance = scipy.sparse.linalg.splu(system.tocsc()).solve(right / count)
    # |A D - change|^2 from the sums alone, so that pairs need not be seen twice.
    square_target = square_before - 2 * (distance * right).sum() + (distance * (normal @ distance)).sum()
    table = _identity(settings.size) + torch.from_numpy(distance.reshape(*[settings.size] * 3, 3))
    values = 3 * count
    return LookFit(
        look=Look(title, table.float()),
        pixels=count,
        error_before=(square_before / values) ** 0.5,
        error_after=(max(0.0, float(square_target)) / values) ** 0.5,
    )


def apply_look(image: Tensor, look: Look, amount: float = 1.0) -> Tensor:
    """Map colours through a look's table, trilinear between nodes.

    Args:
        image: (..., 3, H, W) sRGB; held within [0, 1].
        amount: share of the look, 0 to 1: how far colours move towards their graded values.

    Returns:
        (..., 3, H, W) sRGB in [0, 1].
    """
    check_image(image)
    pictures = image.clamp(0, 1).reshape(-1, *image.shape[-3:])
    volume = look.table.to(image).permute(3, 0, 1, 2)[None].expand(len(pictures), -1, -1, -1, -1)
    positions = (2 * pictures - 1).permute(0, 2, 3, 1)[:, None]  # x is red, the last axis of the table
    graded = functional.grid_sample(volume, positions, mode="bilinear", padding_mode="border", align_corners=True)
    return torch.lerp(pictures, graded[:, :, 0], amount).clamp(0, 1).reshape(image.shape)


def format_cube(look: Look) -> str:
    """The look as the text of a .cube file (Adobe Cube LUT specification 1.0), exact in float32; red varies fastest."""
    size = look.table.shape[0]
    title = look.title.replace('"', "'").replace("\n", " ")
    rows = "\n".join(" ".join(f"{value:.9g}" for value in row) for row in look.table.reshape(-1, 3).tolist())
    return f'TITLE "{title}"\nLUT_3D_SIZE {size}\nDOMAIN_MIN 0 0 0\nDOMAIN_MAX 1 1 1\n{rows}\n'


def parse_cube(text: str) -> Look:
    """Read a three-dimensional .cube file over the domain [0, 1].

    Raises:
        ValueError: something else; the message says what.
    """
    title, size, rows = "", 0, []
    for number, line in enumerate(text.splitlines(), start=1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        keyword = words[0].upper()
        if keyword == "TITLE":
            title = line.strip()[len("TITLE") :].strip().strip('"')
        elif keyword == "LUT_3D_SIZE":
            size = _whole_number(words, number)
        elif keyword in ("DOMAIN_MIN", "DOMAIN_MAX"):
            expected = [0.0 if keyword == "DOMAIN_MIN" else 1.0] * 3
            if _three(words[1:], number) != expected:
                raise ValueError(f"line {number}: expected a domain from 0 to 1, found {line.strip()!r}")
        elif keyword[0].isalpha():
            raise ValueError(f"line {number}: expected a three-dimensional .cube table, found {line.strip()!r}")
        else:
            rows.append(_three(words, number))
    if size < 2 or len(rows) != size**3:
        raise ValueError(f"expected LUT_3D_SIZE of 2 or more and its cube of rows, found {size} and {len(rows)} rows")
    table = torch.tensor(rows, dtype=torch.float32).reshape(size, size, size, 3)
    if not table.isfinite().all():
        raise ValueError("expected finite numbers in the table, found NaN or infinity")
    return Look(title, table)


def _whole_number(words: list[str], number: int) -> int:
    if len(words) != 2 or not words[1].isdigit() or int(words[1]) > 256:
        raise ValueError(f"line {number}: expected LUT_3D_SIZE and a number up to 256, found {' '.join(words)!r}")
    return int(words[1])


def _three(words: list[str], number: int) -> list[float]:
    try:
        values = [float(word) for word in words]
    except ValueError:
        values = []
    if len(values) != 3:
        raise ValueError(f"line {number}: expected three numbers, found {' '.join(words)!r}")
    return values


def _sampled(before: Tensor, after: Tensor, most: int) -> tuple[np.ndarray, np.ndarray]:
    """Input colours (n, 3) and their changes (n, 3), float64, at pixels spread evenly over the picture."""
    check_image(before)
    if before.shape != after.shape or before.ndim != 3:
        raise ValueError(
            f"expected two pictures (3, H, W) of one size, found {tuple(before.shape)} and {tuple(after.shape)}"
        )
    pixels = before.shape[-2] * before.shape[-1]
    index = torch.linspace(0, pixels - 1, min(most, pixels), dtype=torch.float64).long()
    source, target = (picture.flatten(1)[:, index].T.double().cpu().numpy() for picture in (before, after))
    source = source.clip(0, 1)
    return source, target - source


def _trilinear(colours: np.ndarray, size: int) -> "scipy.sparse.csr_array":
    """(n, S^3) weights of the eight nodes around each colour (n, 3)."""
    import scipy.sparse

    position = colours * (size - 1)
    corner = np.minimum(position.astype(np.int64), size - 2)
    fraction = position - corner
    node = corner[:, None, :] + _CORNERS[None]
    weight = np.where(_CORNERS[None] == 1, fraction[:, None, :], 1 - fraction[:, None, :]).prod(-1)
    column = (node[..., 2] * size + node[..., 1]) * size + node[..., 0]
    row = np.repeat(np.arange(len(colours)), 8)
    return scipy.sparse.csr_array((weight.ravel(), (row, column.ravel())), shape=(len(colours), size**3))


def _bending(size: int) -> "scipy.sparse.csr_array":
    """L'L (S^3, S^3) of the second differences along the three axes of the table."""
    import scipy.sparse

    if size < 3:
        return scipy.sparse.csr_array((size**3, size**3))
    second = scipy.sparse.diags_array([1.0, -2.0, 1.0], offsets=[0, 1, 2], shape=(size - 2, size))
    square, one = second.T @ second, scipy.sparse.eye_array(size)
    axes = ((square, one, one), (one, square, one), (one, one, square))
    return sum(scipy.sparse.kron(scipy.sparse.kron(a, b), c) for a, b, c in axes).tocsr()


def _identity(size: int) -> Tensor:
    """(S, S, S, 3) float64: the table that changes nothing."""
    steps = torch.linspace(0, 1, size, dtype=torch.float64)
    blue, green, red = torch.meshgrid(steps, steps, steps, indexing="ij")
    return torch.stack((red, green, blue), dim=-1)
