"""The arguments of `smartphotocrafter enhance` and `critique`, checked without loading any model."""

from dataclasses import dataclass
from typing import Literal

import click

from components.command_line import FILE, Device, Number, Option, Precision, compute_options

CHAMPION = "champion"
"""Name of the model that is used by default: whatever the registry calls champion."""

_FORMATS = ("jpg", "png", "tif", "webp", "avif", "heic")
_BESIDE = ""  # an option given without a file name: the file lies beside OUT, under its name
_EDIT, _FILES = "The edit", "Files"


@dataclass(frozen=True)
class EnhanceArguments:
    """What the command `enhance` was given; the help of the options says what each means."""

    source: str
    target: str | None
    in_place: bool
    strength: float | None
    tone_only: bool
    restore: Literal["never", "asked", "always"]
    draws: int | None
    seed: int
    quality: int
    format: str | None
    sidecar: bool
    cube: str | None
    compare: str | None
    redo: bool
    overwrite: bool
    model: str
    max_pixels: int | None
    device: Device
    dtype: Precision
    as_json: bool


COMMON: list[click.Parameter] = [
    Option(
        ["--model"], type=FILE, default=CHAMPION, metavar="DIR", help="Folder of a package, or the current champion."
    ),
    Option(["--json", "as_json"], is_flag=True, help="Print one JSON object per photo instead of text."),
    Option(
        ["--max-pixels"],
        type=Number(int, 1),
        metavar="N",
        show_default="268435456, above the 200 million of phones",
        help="Refuse photos of more pixels, undecoded.",
    ),
    *compute_options(),
]
"""Options of both commands."""

CRITIQUE: list[click.Parameter] = [
    click.Argument(["source"], metavar="IN", type=FILE, help="A photo, or a folder, archive or bucket of photos."),
    Option(
        ["--sidecar"],
        is_flag=True,
        help="Also write the verdict beside the photo, as NAME.json and as NAME.xmp for Camera Raw.",
    ),
    *COMMON,
]

ENHANCE: list[click.Parameter] = [
    click.Argument(
        ["source"],
        metavar="IN",
        type=FILE,
        help="A photo; or a folder, a .zip or .tar, or a URL such as s3://bucket/photos.",
    ),
    click.Argument(
        ["target"],
        metavar="[OUT]",
        type=FILE,
        required=False,
        help="Where to write the result (.jpg, .png, .tif, .webp, .avif, .heic); or a folder or URL, where photos done "
        "before are skipped. No photo of IN is ever replaced, nor a file in OUT that this program did not write.",
    ),
    Option(
        ["--in-place"],
        is_flag=True,
        help="Instead of OUT: replace each photo by its result, once it is complete and nothing failed; a photo is "
        "replaced once, whatever the options of a later run. The original is lost.",
    ),
    *COMMON,
    Option(
        ["--strength"],
        section=_EDIT,
        type=Number(float, 0, 2),
        metavar="S",
        show_default="as the model was evaluated, less where the Critic finds the photo good",
        help="0 leaves the photo as it is, 1 is the Artist's edit, at most 2.",
    ),
    Option(
        ["--tone-only"],
        section=_EDIT,
        is_flag=True,
        help="Change tone and colour equally over the whole photo, nothing local.",
    ),
    Option(
        ["--restore"],
        section=_EDIT,
        type=click.Choice(("never", "asked", "always")),
        default="never",
        help="Carry over what the Artist did to blur, noise and other detail: never, where the Critic asks for it, or "
        "always.",
    ),
    Option(
        ["--draws"],
        section=_EDIT,
        type=Number(int, 1),
        metavar="N",
        show_default="as the model was evaluated",
        help="Number of edits that are averaged: more is smoother and slower.",
    ),
    Option(
        ["--seed"],
        section=_EDIT,
        type=Number(int),
        default=0,
        help="Seed of the Artist's noise: the same seed gives the same photo.",
    ),
    Option(
        ["--quality"],
        section=_FILES,
        type=Number(int, 1, 100),
        default=95,
        metavar="Q",
        help="Quality of JPEG, WebP, AVIF and HEIC, 1 to 100.",
    ),
    Option(
        ["--format"],
        section=_FILES,
        type=click.Choice(_FORMATS),
        show_default="that of the photo",
        help="Format of the results of many photos.",
    ),
    Option(
        ["--sidecar"],
        section=_FILES,
        is_flag=True,
        help="Also write the verdict: NAME.json, and NAME.xmp for Camera Raw.",
    ),
    *(
        Option(
            [f"--{name}"],
            section=_FILES,
            type=FILE,
            is_flag=False,
            flag_value=_BESIDE,
            metavar="[FILE]",
            help=f"Also write {what}: to FILE, or beside OUT.",
        )
        for name, what in (
            ("cube", "the global part of the edit as a 3D LUT"),
            ("compare", "before and after in one picture"),
        )
    ),
    Option(
        ["--redo"],
        section=_FILES,
        is_flag=True,
        help="Process photos of a folder again that are already done; with --in-place those that were changed since.",
    ),
    Option(
        ["--overwrite"],
        section=_FILES,
        is_flag=True,
        help="Also replace pictures and tables that this program did not write, or that were changed since; never a "
        "photo of IN, never another program's .json or .xmp.",
    ),
]
