"""Instructions of the Artist's training pairs: the edit to be done, in many wordings, alone or several in one sentence.

Every phrase says what should happen to the input, so it is the inverse of the recorded fault: a photo darkened by
0.8 EV is to be brightened by 0.8 EV.
"""

from collections.abc import Sequence

import torch

from components.data.damage import BOKEH_LEVELS
from components.photometry.operations import TONE, Operation

PHRASES: dict[str, tuple[str, ...]] = {
    "exposure+": (
        "increase the exposure by {value}",
        "brighten the photo by {value}",
        "make the photo brighter by {value}",
        "lift the exposure by {value}",
        "raise the brightness by {value}",
    ),
    "exposure-": (
        "decrease the exposure by {value}",
        "darken the photo by {value}",
        "make the photo darker by {value}",
        "pull the exposure down by {value}",
        "lower the brightness by {value}",
    ),
    "contrast+": (
        "increase the contrast by {value}",
        "raise the contrast by {value}",
        "make the photo more contrasty by {value}",
        "add {value} contrast",
    ),
    "contrast-": (
        "decrease the contrast by {value}",
        "lower the contrast by {value}",
        "soften the contrast by {value}",
        "make the photo less contrasty by {value}",
    ),
    "saturation+": (
        "increase the saturation by {value}",
        "make the colours more vivid by {value}",
        "boost the saturation by {value}",
        "strengthen the colours by {value}",
    ),
    "saturation-": (
        "decrease the saturation by {value}",
        "make the colours less vivid by {value}",
        "tone the saturation down by {value}",
        "mute the colours by {value}",
    ),
    "temperature+": (
        "warm the white balance by {value}",
        "make the photo warmer by {value}",
        "shift the colours towards warm by {value}",
        "correct the cold cast by {value}",
    ),
    "temperature-": (
        "cool the white balance by {value}",
        "make the photo cooler by {value}",
        "shift the colours towards cold by {value}",
        "correct the warm cast by {value}",
    ),
    "motion_blur": ("remove the motion blur", "fix the camera shake", "deblur the photo", "undo the motion blur"),
    "defocus_blur": ("remove the defocus blur", "bring the photo into focus", "correct the missed focus", "sharpen it"),
    "noise": ("remove the noise", "denoise the photo", "clean up the grain", "reduce the noise"),
    "jpeg": (
        "remove the compression artefacts",
        "clean up the JPEG artefacts",
        "repair the blocky compression",
        "undo the JPEG compression",
    ),
    "haze": ("remove the haze", "dehaze the photo", "clear the fog", "cut through the haze"),
    "low_light": (
        "restore the low light photo",
        "brighten the dark photo and clean it",
        "make the night photo well lit",
        "recover the underexposed scene",
    ),
    "bokeh": (
        "blur the background {level}",
        "throw the background {level} out of focus",
        "defocus everything behind the subject {level}",
        "open the aperture so that the background blurs {level}",
    ),
    "enhancement": (
        "enhance this photo",
        "make this photo look its best",
        "improve the tone and colour of this photo",
        "retouch this photo",
        "fix the exposure and the colours",
    ),
}
"""Paraphrases by edit. Tone edits carry a sign; {value} and {level} are filled in."""

_JOINTS = (" and ", ", then ", "; ", " and also ")


def edit_phrase(operation: Operation, variant: int) -> str:
    """The edit that takes a photo with this fault back, or, for bokeh, the edit that applies it; without punctuation.

    Args:
        operation: a recorded fault (its inverse is phrased), or "bokeh".
        variant: which paraphrase, any non-negative integer.
    """
    if operation.name in TONE:
        amount = -operation.amount
        phrases = PHRASES[f"{operation.name}{'+' if amount > 0 else '-'}"]
        return phrases[variant % len(phrases)].format(value=_value(operation.name, amount))
    phrases = PHRASES[operation.name]
    return phrases[variant % len(phrases)].format(level=_level(operation.amount))


def instruction(kind: str, operations: Sequence[Operation], generator: torch.Generator) -> str:
    """An instruction sentence for a pair, drawn from the paraphrases.

    Args:
        kind: of the pair; "enhancement" names no edit, every other kind names them all.
        operations: the pair's operations as recorded. Edits are named in reverse, the order in which they undo them.
    """
    if kind == "enhancement":
        phrases = PHRASES["enhancement"]
        return _sentence(phrases[_draw(len(phrases), generator)])
    edits = [edit_phrase(operation, _draw(60, generator)) for operation in reversed(operations)]
    joint = _JOINTS[_draw(len(_JOINTS), generator)]
    if len(edits) == 1:
        return _sentence(edits[0])
    return _sentence(", ".join(edits[:-1]) + joint + edits[-1])


def _value(name: str, amount: float) -> str:
    if name == "exposure":
        return f"{abs(amount):.1f} EV"
    if name == "temperature":
        return f"{max(10, round(abs(amount) / 10) * 10)} mired"
    return f"{max(10, round(abs(2**amount - 1) * 10) * 10)}%"


def _level(radius: float) -> str:
    """The nearest depth-of-field level as an adverb."""
    adverbs = {"slight": "slightly", "moderate": "moderately", "strong": "strongly"}
    return adverbs[min(BOKEH_LEVELS, key=lambda level: abs(BOKEH_LEVELS[level] - radius))]


def _draw(count: int, generator: torch.Generator) -> int:
    return int(torch.randint(count, (1,), generator=generator))


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."
