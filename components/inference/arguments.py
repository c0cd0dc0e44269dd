"""The arguments of the command `smartphotocrafter`, parsed and checked without loading any model."""

import argparse
from argparse import ArgumentParser
from collections.abc import Callable
from typing import Any

CHAMPION = "champion"
"""Name of the model that is used by default: whatever the registry calls champion."""

_Command = Callable[[argparse.Namespace], int]
_FORMATS = ("jpg", "png", "tif", "webp", "avif", "heic")
_BESIDE = ""  # an option given without a file name: the file lies beside OUT, under its name


def parser(enhance: _Command, critique: _Command) -> ArgumentParser:
    """The parser of the command line; ``command`` of what it gives is the function that does what was asked for."""
    whole = ArgumentParser(
        prog="smartphotocrafter", description="Photo in, better photo out, with the reasons in words."
    )
    commands = whole.add_subparsers(required=True, metavar="COMMAND")
    _add_enhance(commands, enhance)
    judge = commands.add_parser(
        "critique",
        help="print what the Critic says about a photo",
        description="Print the Critic's reasoning, suggestions and score, without editing anything.",
    )
    judge.add_argument("source", metavar="IN", help="a photo, or a folder, archive or bucket of photos")
    judge.add_argument(
        "--sidecar",
        action="store_true",
        help="also write the verdict beside the photo, as NAME.json and as NAME.xmp for Camera Raw",
    )
    judge.set_defaults(command=critique)
    for command in (*commands.choices.values(),):
        command.add_argument(
            "--model", default=CHAMPION, metavar="DIR", help="package directory (default: the current champion)"
        )
        command.add_argument("--json", action="store_true", help="print one JSON object per photo instead of text")
    return whole


def _add_enhance(commands: Any, function: _Command) -> None:
    enhance = commands.add_parser(
        "enhance",
        help="enhance a photo, or every photo of a folder, archive or bucket",
        description="Enhance a photo at its full resolution, keeping EXIF, colour profile, alpha and bit depth, and "
        "print the Critic's text. Reads JPEG, PNG, TIFF, WebP, AVIF, HEIC, camera raw, BMP and GIF.",
    )
    enhance.add_argument(
        "source", metavar="IN", help="a photo; or a folder, a .zip or .tar, or a URL such as s3://bucket/photos"
    )
    enhance.add_argument(
        "target",
        metavar="OUT",
        nargs="?",
        help="where to write the result (.jpg, .png, .tif, .webp, .avif, .heic); or a folder "
        "or URL, where photos done before are skipped. No photo of IN is ever replaced, nor a file in OUT that this "
        "program did not write",
    )
    enhance.add_argument(
        "--in-place",
        action="store_true",
        help="instead of OUT: replace each photo by its result, once it is complete and nothing failed; a photo is "
        "replaced once, whatever the options of a later run. The original is lost",
    )
    edit = enhance.add_argument_group("the edit")
    edit.add_argument(
        "--strength",
        type=_strength,
        metavar="S",
        help="0 leaves the photo as it is, 1 is the Artist's edit, at most 2; default: as the model was evaluated",
    )
    edit.add_argument(
        "--tone-only", action="store_true", help="change tone and colour equally over the whole photo, nothing local"
    )
    edit.add_argument(
        "--restore",
        choices=("never", "asked", "always"),
        default="never",
        help="carry over what the Artist did to blur, noise and other detail: never (the default), where the Critic "
        "asks for it, or always",
    )
    edit.add_argument(
        "--draws",
        type=_positive,
        metavar="N",
        help="edits that are averaged: more is smoother and slower; default: as the model was evaluated",
    )
    edit.add_argument(
        "--seed", type=int, default=0, help="seed of the Artist's noise: the same seed gives the same photo"
    )
    files = enhance.add_argument_group("files")
    files.add_argument(
        "--quality", type=_quality, default=95, metavar="Q", help="of JPEG, WebP, AVIF and HEIC: 1 to 100, default 95"
    )
    files.add_argument(
        "--format", choices=_FORMATS, help="format of the results of many photos (default: that of the source)"
    )
    files.add_argument(
        "--sidecar", action="store_true", help="also write the verdict: NAME.json, and NAME.xmp for Camera Raw"
    )
    for option, what in (
        ("cube", "the global part of the edit as a 3D LUT"),
        ("compare", "before and after in one picture"),
    ):
        files.add_argument(
            f"--{option}", nargs="?", const=_BESIDE, metavar="FILE", help=f"also write {what} (default: beside OUT)"
        )
    files.add_argument(
        "--redo",
        action="store_true",
        help="process photos of a folder again that are already done; with --in-place those that were changed since",
    )
    files.add_argument(
        "--overwrite",
        action="store_true",
        help="also replace pictures and tables that this program did not write, or that were changed since; never a "
        "photo of IN, never another program's .json or .xmp",
    )
    enhance.set_defaults(command=function)


def _strength(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 2:
        raise argparse.ArgumentTypeError(f"expected a number from 0 to 2, found {text}")
    return value


def _quality(text: str) -> int:
    value = int(text)
    if not 1 <= value <= 100:
        raise argparse.ArgumentTypeError(f"expected a number from 1 to 100, found {text}")
    return value


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected a number from 1 up, found {text}")
    return value
