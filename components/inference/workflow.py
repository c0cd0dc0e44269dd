"""One photo judged and edited at full resolution, with whatever was asked for beside it, as files in memory."""

from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Protocol

import torch
from pydantic import Field
from torch import Tensor

from components.imaging.originals import Edit, Original, encode_original, read_original
from components.imaging.photo import MAX_PIXELS, Photo, encode_photo
from components.imaging.source import PictureFile
from components.inference.edit import EditOptions, Restore, fit_edit
from components.inference.enhancer import EditPlan, Enhancer, Reducible
from components.inference.look import cube_text, fit_look, with_strength
from components.inference.sidecar import (
    Sidecar,
    camera_raw_settings,
    check_sidecars,
    json_text,
    write_sidecars,
    xmp_packet,
)
from components.strict import Strict

_COMPARE_HEIGHT = 1080


class EnhanceOptions(Strict):
    """How photos are enhanced; what is None is as the model was judged."""

    strength: float | None = Field(default=None, ge=0, le=2)
    tone_only: bool = False
    restore: Restore = "never"
    draws: int | None = Field(default=None, ge=1)
    seed: int = 0
    quality: int = Field(default=95, ge=1, le=100, description="Of JPEG, WebP, AVIF and HEIC.")
    max_pixels: int | None = Field(
        default=None,
        ge=1,
        exclude=True,
        description="Larger photos are refused undecoded. It changes no result, so it is not part of what is recorded.",
    )


@dataclass(frozen=True)
class Extras:
    """Names of the files to make beside the enhanced photo; None for those that are not wanted.

    Attributes:
        sidecar: JSON sidecar; the XMP sidecar has the same name ending in .xmp.
        cube: 3D lookup table of the global part of the edit.
        compare: picture with before and after side by side.
    """

    sidecar: str | None = None
    cube: str | None = None
    compare: str | None = None

    def names(self) -> list[str]:
        """Names of all the files that will be made."""
        sidecars = [self.sidecar, _xmp(self.sidecar)] if self.sidecar else []
        return [*sidecars, *filter(None, (self.cube, self.compare))]


class OpenPhoto(Reducible, Protocol):
    """A decoded photo, wherever its samples are: in this process (`Original`) or in one of its own."""

    @property
    def format(self) -> str: ...

    @property
    def white_kelvin(self) -> float | None: ...


@dataclass(frozen=True)
class Made:
    """What became of a photo, nothing of it written yet.

    Attributes:
        report: what is in the JSON sidecar, whether or not there is one.
        files: contents by the names that were asked for, the photo last.
    """

    report: Sidecar
    files: dict[str, bytes]


def enhance_file(
    enhancer: Enhancer, source: PictureFile, target: str, options: EnhanceOptions, extras: Extras | None = None
) -> Made:
    """Enhance the photo ``source`` into a file of the name ``target``, in memory; nothing is written.

    Raises:
        components.imaging.photo.UnreadablePhoto: ``source`` is no usable photo.
        ValueError: ``target`` has a suffix that cannot be written, or the options contradict each other.
        OSError: ``source`` cannot be read.
    """
    extras = extras or Extras()
    original = read_original(source, options.max_pixels or MAX_PIXELS)
    plan, edit, report = decide(enhancer, original, source.name, target, options)
    edited = original.edited(edit, in_place=extras.compare is None)
    made: dict[str, bytes] = {}
    if extras.compare:
        made[extras.compare] = encode_photo(Photo(side_by_side(original, edited)), extras.compare)
    del original  # its samples are not needed while the result is encoded
    if extras.cube:
        assert report.edit is not None
        look = with_strength(fit_look(plan.before, plan.after), report.edit.strength)
        made[extras.cube] = cube_text(look, source.stem).encode()
    if extras.sidecar:
        made[extras.sidecar] = json_text(report).encode()
        made[_xmp(extras.sidecar)] = xmp_packet(report).encode()
    made[target] = encode_original(edited, target, options.quality)
    return Made(report, made)


def decide(
    enhancer: Enhancer, photo: OpenPhoto, source: str, target: str, options: EnhanceOptions
) -> tuple[EditPlan, Edit, Sidecar]:
    """What is to be done to an open photo, and what is to be said of it; its pixels stay as they are.

    Args:
        source, target: names of the photo's file and of its result.

    Raises:
        ValueError: the options contradict each other.
    """
    plan = enhancer.plan(photo, options.seed, options.draws)
    strength = enhancer.strength_for(plan.verdict) if options.strength is None else options.strength
    edit_options = EditOptions(strength=strength, tone_only=options.tone_only, restore=options.restore)
    edit = fit_edit(plan.before, plan.after, photo.height, edit_options, enhancer.settings.transfer, plan.verdict)
    report = Sidecar(
        photo=source,
        enhanced=PurePath(target).name,
        text=plan.text,
        verdict=plan.verdict,
        camera_raw=camera_raw_settings(plan.verdict, photo.format == "RAW", photo.white_kelvin),
        edit=edit_options,
        seed=options.seed,
    )
    return plan, edit, report


def critique_file(
    enhancer: Enhancer, source: PictureFile, sidecar: Path | None = None, max_pixels: int | None = None
) -> Sidecar:
    """What the Critic says of the photo ``source``, written to a JSON and an XMP ``sidecar`` if one is named.

    Raises:
        components.inference.seal.ForeignFileError: a file that is not this program's would be replaced.
        components.imaging.photo.UnreadablePhoto, OSError: as `enhance_file`.
    """
    if sidecar:
        check_sidecars(sidecar)
    original = read_original(source, max_pixels or MAX_PIXELS)
    judgement = enhancer.critique(original)
    settings = camera_raw_settings(judgement.verdict, original.format == "RAW", original.white_kelvin)
    report = Sidecar(photo=source.name, text=judgement.text, verdict=judgement.verdict, camera_raw=settings)
    if sidecar:
        write_sidecars(report, sidecar)
    return report


def side_by_side(before: Original, after: Original) -> Tensor:
    """Before and after in one picture (3, h, w), at most 1080 pixels high, a white line between them."""
    scale = min(1.0, _COMPARE_HEIGHT / before.height)
    size = (max(1, round(before.height * scale)), max(1, round(before.width * scale)))
    line = torch.ones(3, size[0], max(2, size[0] // 100))
    return torch.cat([*before.reduced([size]), line, *after.reduced([size])], dim=-1)


def _xmp(sidecar: str) -> str:
    return str(PurePath(sidecar).with_suffix(".xmp"))
