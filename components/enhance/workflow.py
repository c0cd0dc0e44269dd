"""One photo from file to file: judged, edited at full resolution, written, with whatever was asked for beside it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from pydantic import Field
from torch import Tensor

from components.enhance.crafter import CrafterSettings, Judgement, Plan
from components.enhance.edit import EditOptions, Restore, fit_edit
from components.enhance.look import fit_look, with_strength, write_cube
from components.enhance.sidecar import Sidecar, camera_raw_settings, check_replaceable, write_sidecars
from components.images import Photo, write_photo
from components.originals import Original, read_original, write_original
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


@dataclass(frozen=True)
class Extras:
    """Files to write beside the enhanced photo; None for those that are not wanted.

    Attributes:
        sidecar: JSON sidecar; the XMP sidecar has the same name ending in .xmp.
        cube: 3D lookup table of the global part of the edit.
        compare: picture with before and after side by side.
    """

    sidecar: Path | None = None
    cube: Path | None = None
    compare: Path | None = None


class Judge(Protocol):
    """What is needed of `components.enhance.crafter.Crafter`."""

    settings: CrafterSettings

    def plan(self, photo: Original, seed: int = 0, draws: int | None = None) -> Plan: ...

    def critique(self, photo: Original) -> Judgement: ...


def enhance_file(
    crafter: Judge, source: Path, target: Path, options: EnhanceOptions, extras: Extras | None = None
) -> Sidecar:
    """Enhance the photo ``source`` into ``target``; every file is written whole or not at all, the photo last.

    Returns:
        What is in the JSON sidecar, whether or not one is written.

    Raises:
        components.images.UnreadablePhoto: ``source`` cannot be used as a photo.
        components.enhance.sidecar.SidecarError: another program's XMP file would be replaced.
        ValueError: ``target`` has a suffix that cannot be written, or the options contradict each other.
        OSError: a file cannot be read or written.
    """
    extras = extras or Extras()
    strength = crafter.settings.strength if options.strength is None else options.strength
    edit_options = EditOptions(strength=strength, tone_only=options.tone_only, restore=options.restore)
    if extras.sidecar:
        check_replaceable(extras.sidecar.with_suffix(".xmp"))
    original = read_original(source)
    plan = crafter.plan(original, options.seed, options.draws)
    edit = fit_edit(plan.before, plan.after, original.height, edit_options, crafter.settings.transfer, plan.verdict)
    edited = original.edited(edit, in_place=extras.compare is None)
    report = Sidecar(
        photo=source.name,
        enhanced=target.name,
        text=plan.text,
        verdict=plan.verdict,
        camera_raw=camera_raw_settings(plan.verdict, original.format == "RAW", original.white_kelvin),
        edit=edit_options,
        seed=options.seed,
    )
    if extras.compare:
        write_photo(Photo(side_by_side(original, edited)), extras.compare)
    del original  # its samples are not needed while the result is encoded
    if extras.cube:
        write_cube(with_strength(fit_look(plan.before, plan.after), strength), extras.cube, source.stem)
    if extras.sidecar:
        write_sidecars(report, extras.sidecar, extras.sidecar.with_suffix(".xmp"))
    write_original(edited, target, options.quality)
    return report


def critique_file(crafter: Judge, source: Path, sidecar: Path | None = None) -> Sidecar:
    """What the Critic says of the photo ``source``, written to a JSON and an XMP ``sidecar`` if one is named.

    Raises: as `enhance_file`.
    """
    if sidecar:
        check_replaceable(sidecar.with_suffix(".xmp"))
    original = read_original(source)
    judgement = crafter.critique(original)
    settings = camera_raw_settings(judgement.verdict, original.format == "RAW", original.white_kelvin)
    report = Sidecar(photo=source.name, text=judgement.text, verdict=judgement.verdict, camera_raw=settings)
    if sidecar:
        write_sidecars(report, sidecar, sidecar.with_suffix(".xmp"))
    return report


def side_by_side(before: Original, after: Original) -> Tensor:
    """Before and after in one picture (3, h, w), at most 1080 pixels high, a white line between them."""
    scale = min(1.0, _COMPARE_HEIGHT / before.height)
    size = (max(1, round(before.height * scale)), max(1, round(before.width * scale)))
    line = torch.ones(3, size[0], max(2, size[0] // 100))
    return torch.cat([*before.reduced([size]), line, *after.reduced([size])], dim=-1)
