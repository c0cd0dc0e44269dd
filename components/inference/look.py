"""The global part of an edit: one colour map for the whole photo, as a table of colours over the RGB cube.

The local field of `components.inference.transfer` maps the same colour differently in different places. A look does
not: it is the smooth map that on average turns "before" into "after" (`components.photometry.looks`). It is what a
.cube file can hold, and what `--tone-only` applies: tone and colour of the whole photo change, nothing local does.

The fit is smoother than that of a film look, and its pull towards the identity too weak to matter where the photo has
colours nearby, because an edit goes on linearly where the photo has none.
"""

import torch
from torch import Tensor
from torch.nn import functional

from components.inference.seal import BLANK, sealed
from components.inference.transfer import check_pair
from components.photometry import looks
from components.photometry.looks import Look, LookSettings

LUT_SIZE = 33
"""Colours a side of a table, as colour grading programs expect them."""
_NODES = 17  # of the fit; a table of 33 that is interpolated trilinearly is the same map
_SMOOTHNESS, _IDENTITY = 1e-3, 1e-10
_LEVEL = 1 / 255


def fit_look(before: Tensor, after: Tensor) -> Look:
    """The look that turns ``before`` into ``after``, whose colours may lie outside of [0, 1].

    Args:
        before, after: (3, h, w) sRGB. Pixels whose result is black or white in a channel say only that it is at
            least so dark or bright, and are left out.

    Raises:
        ValueError: the pictures differ in shape, are no RGB pictures or hold values that are not finite.
    """
    check_pair(before, after)
    before, after = before.flatten(1), after.flatten(1)
    unclipped = ((after > 0.5 * _LEVEL) & (after < 1 - 0.5 * _LEVEL)).all(0)
    if unclipped.sum() >= 16:
        before, after = before[:, unclipped], after[:, unclipped]
    settings = LookSettings(size=_NODES, smoothness=_SMOOTHNESS, identity=_IDENTITY, pixels=before.shape[1])
    coarse = looks.fit_look([(before[:, None], after[:, None])], "", settings).look.table
    channels = coarse.permute(3, 0, 1, 2)[None]
    fine = functional.interpolate(channels, size=(LUT_SIZE,) * 3, mode="trilinear", align_corners=True)
    return Look("", fine[0].permute(1, 2, 3, 0).contiguous())


def with_strength(look: Look, strength: float = 1.0) -> Look:
    """The look with ``strength`` times its change of colour, within [0, 1] as files and screens hold it."""
    levels = torch.linspace(0, 1, look.table.shape[0])
    blue, green, red = torch.meshgrid(levels, levels, levels, indexing="ij")
    identity = torch.stack((red, green, blue), dim=-1)
    return Look(look.title, torch.lerp(identity, look.table, strength).clamp(0, 1))


def cube_text(look: Look, title: str) -> str:
    """A look as the text of a .cube file with a seal in its first line; colours are gamma-encoded sRGB, in and out."""
    title = "".join(character for character in title if character.isprintable())
    return sealed(f"# {BLANK}\n{looks.format_cube(Look(title, look.table))}")
