"""Operation: the one record of anything that can be done to a photo, and the functions that replay, undo and name it.

Faulty training pictures, recorded pairs, the Critic's suggestions and rewards all speak in these operations. A record
holds all that its result depends on, so the same picture and the same records give the same pixels.

What compiles its kernels is imported where it is used: whoever only speaks in operations, as the grammar of verdicts
does, need not wait for a compiler.
"""

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import torch
from pydantic import Field, model_validator
from torch import Tensor

from components.photometry.assets import ASSET_PATTERN, decode_cutout, decode_mask, read_asset
from components.photometry.attributes import check_image
from components.photometry.looks import apply_look, parse_cube
from components.strict import Strict

TONE = ("exposure", "contrast", "saturation", "temperature")
"""Operations with an inverse: global changes of tone and colour."""
DEGRADATIONS = ("motion_blur", "defocus_blur", "noise", "jpeg", "haze", "low_light", "bokeh")
"""Operations that lose information; "bokeh" is wanted as often as not. Amounts grow with severity from 0."""
CREATIVE = ("look", "subject")
"""Operations that need a file: a film look's table, or the cut-out of a subject."""


class Kind(NamedTuple):
    """What the amount of an operation means and which values it may take."""

    unit: str
    low: float
    high: float
    parameters: dict[str, tuple[float, float]]
    """Optional parameters by name: (lowest, highest); the function of the operation documents the default."""
    asset: str = ""
    """Suffix of the file that holds the rest of the parameters, or nothing when there is none."""
    asset_required: bool = False


KINDS: dict[str, Kind] = {
    "exposure": Kind("EV: linear light times 2^amount", -6.0, 6.0, {}),
    "contrast": Kind("log2 of the slope of L* about 50", -4.0, 4.0, {}),
    "saturation": Kind("log2 of the scale of CIELAB chroma", -4.0, 4.0, {}),
    "temperature": Kind("mired by which the white moves, positive is warmer", -400.0, 400.0, {}),
    "motion_blur": Kind("extent of the camera's path as a fraction of the short side", 0.0, 0.5, {}),
    "defocus_blur": Kind("disc radius as a fraction of the short side", 0.0, 0.25, {}),
    "noise": Kind("standard deviation at mid-grey in linear light", 0.0, 0.3, {"read_share": (0.0, 1.0)}),
    "jpeg": Kind("100 minus the libjpeg quality factor", 1.0, 99.0, {}),
    "haze": Kind("optical depth of the farthest point", 0.0, 6.0, {"airlight": (0.0, 1.0)}),
    "low_light": Kind("EV by which light is short", 0.0, 8.0, {"sigma": (0.0, 0.3), "read_share": (0.0, 1.0)}),
    "bokeh": Kind("largest disc radius of the background as a fraction of the short side", 0.0, 0.25, {}, ".png"),
    "look": Kind("share of the look, 1 is the whole", 0.0, 1.0, {}, ".cube", True),
    "subject": Kind(
        "height of the cut-out as a fraction of the picture's",
        0.05,
        1.0,
        {"x": (0.0, 1.0), "y": (0.0, 1.0)},
        ".png",
        True,
    ),
}


class Operation(Strict):
    """One thing done to a photo; immutable, JSON-able, and checked on construction.

    Raises:
        pydantic.ValidationError: for an unknown name or parameter, or an amount outside the range in :data:`KINDS`.
    """

    name: str = Field(description="A key of KINDS.")
    amount: float = Field(description="How much, in the unit and range that KINDS gives for the name.")
    seed: int = Field(default=0, ge=0, lt=2**63, description="Seed of all randomness in the operation.")
    parameters: dict[str, float] = Field(default_factory=dict, description="Overrides of the kind's defaults.")
    asset: str | None = Field(
        default=None,
        pattern=ASSET_PATTERN,
        description="File with further parameters, named by its SHA-256: a .cube table (look), a .png mask of the "
        "subject (bokeh; an ellipse drawn from the seed without it) or a .png cut-out with alpha (subject).",
    )

    @model_validator(mode="after")
    def _within_kind(self) -> "Operation":
        kind = KINDS.get(self.name)
        if kind is None:
            raise ValueError(f"unknown operation {self.name!r}; expected one of {', '.join(KINDS)}")
        if not kind.low <= self.amount <= kind.high:
            raise ValueError(
                f"{self.name} amount must lie in [{kind.low:g}, {kind.high:g}] ({kind.unit}), found {self.amount:g}"
            )
        for key, value in self.parameters.items():
            if key not in kind.parameters:
                allowed = ", ".join(kind.parameters) or "none"
                raise ValueError(f"{self.name} has no parameter {key!r}; expected: {allowed}")
            low, high = kind.parameters[key]
            if not low <= value <= high:
                raise ValueError(f"{self.name} parameter {key} must lie in [{low:g}, {high:g}], found {value:g}")
        if self.asset is None and kind.asset_required:
            raise ValueError(f"{self.name} needs an asset, a {kind.asset} file")
        if self.asset is not None and not (kind.asset and self.asset.endswith(kind.asset)):
            raise ValueError(
                f"{self.name} takes {f'a {kind.asset} file' if kind.asset else 'no file'}, found {self.asset}"
            )
        return self

    def __hash__(self) -> int:
        return hash((self.name, self.amount, self.seed, tuple(sorted(self.parameters.items())), self.asset))


def inverse(operation: Operation) -> Operation:
    """The tone operation that undoes ``operation`` where nothing clipped: the same with the opposite amount.

    To undo a sequence, apply the inverses in reverse order.

    Raises:
        ValueError: for a degradation, which loses information and has no inverse.
    """
    if operation.name not in TONE:
        raise ValueError(f"{operation.name} loses information and has no inverse; only {', '.join(TONE)} have one")
    return operation.model_copy(update={"amount": -operation.amount})


def apply_operations(image: Tensor, operations: Sequence[Operation], assets: Path | None = None) -> Tensor:
    """Apply operations in the order listed.

    A run of tone operations is clamped to [0, 1] only after its last one, as one retouch; a degradation starts from
    and ends in [0, 1].

    Args:
        image: (..., 3, H, W) sRGB, float32 in main memory.
        operations: may be empty.
        assets: folder of the files that operations name (`components.photometry.assets`).

    Returns:
        (..., 3, H, W) sRGB in [0, 1]; the same bytes for the same image and operations on the same machine.

    Raises:
        ValueError: when ``image`` is not such a picture or asks for a gradient, or an asset is not what its name says.
        FileNotFoundError: an asset is not in ``assets``.
    """
    from components.photometry.adjustments import adjust

    check_image(image)
    for is_tone, run in groupby(operations, key=lambda operation: operation.name in TONE):
        if is_tone:
            image = adjust(image, [(operation.name, operation.amount) for operation in run], clamp=True)
            continue
        for operation in run:
            image = _degrade(_within_gamut(image), operation, assets)
    return _within_gamut(image)


def _within_gamut(image: Tensor) -> Tensor:
    """The image clamped to [0, 1], and not copied where nothing is outside."""
    low, high = image.aminmax()
    return image if low >= 0 and high <= 1 else image.clamp(0, 1)


def _degrade(image: Tensor, operation: Operation, assets: Path | None) -> Tensor:
    """Apply one operation to an image in [0, 1], all randomness from the operation's seed."""
    from components.photometry.bokeh import bokeh, elliptic_foreground, place_subject
    from components.photometry.degradations import defocus_blur, haze, jpeg, low_light, motion_blur, noise

    generator = torch.Generator().manual_seed(operation.seed)
    content = read_asset(assets, operation.asset) if operation.asset else b""
    match operation.name:
        case "motion_blur":
            return motion_blur(image, operation.amount, generator)
        case "defocus_blur":
            return defocus_blur(image, operation.amount)
        case "noise":
            return noise(image, operation.amount, generator, **operation.parameters)
        case "jpeg":
            return jpeg(image, operation.amount)
        case "haze":
            return haze(image, operation.amount, generator, **operation.parameters)
        case "low_light":
            return low_light(image, operation.amount, generator, **operation.parameters)
        case "bokeh":
            height, width = image.shape[-2:]
            size = (height, width)
            mask = decode_mask(content, size) if content else elliptic_foreground(height, width, generator)
            return bokeh(image, operation.amount, mask)
        case "look":
            return apply_look(image, parse_cube(content.decode("utf-8")), operation.amount)
        case "subject":
            return place_subject(image, decode_cutout(content), operation.amount, **operation.parameters)
    raise AssertionError(f"{operation.name} is in KINDS but has no implementation")


def label(operation: Operation) -> str:
    """The operation as a fault in a few words, e.g. ``"underexposed by 0.8 EV"``."""
    amount = operation.amount
    match operation.name:
        case "exposure":
            return f"{'overexposed' if amount > 0 else 'underexposed'} by {abs(amount):.1f} EV"
        case "contrast" | "saturation":
            return f"{operation.name} {'raised' if amount > 0 else 'reduced'} to {100 * 2**amount:.0f}%"
        case "temperature":
            return f"too {'warm' if amount > 0 else 'cool'} by {abs(amount):.0f} mired"
        case "motion_blur":
            return f"motion blur over {100 * amount:.1f}% of the short side"
        case "defocus_blur":
            return f"out of focus by {100 * amount:.1f}% of the short side"
        case "noise":
            return f"noise of {100 * amount:.1f}% at mid-grey"
        case "jpeg":
            return f"JPEG compression at quality {round(100 - amount)}"
        case "haze":
            return f"haze of optical depth {amount:.1f}"
        case "low_light":
            return f"low light, short by {amount:.1f} EV"
        case "bokeh":
            return f"background blurred by {100 * amount:.1f}% of the short side"
        case "look":
            return f"film look at {100 * amount:.0f}%"
        case "subject":
            return f"a subject of {100 * amount:.0f}% of the height put in front"
    raise AssertionError(f"{operation.name} is in KINDS but has no words")
