"""Instructions of the Artist's training pairs: the edit to be done, in many wordings, alone or several in one sentence.

Every phrase says what should happen to the input, so it is the inverse of the recorded fault: a photo darkened by
0.8 EV is to be brightened by 0.8 EV. Looks and depth of field are what is to be added. What published pairs do is put
into words in `components.data.published_prompts`.
"""

from collections.abc import Sequence

import torch

from components.data.degradations import BOKEH_LEVELS
from components.photometry.operations import TONE, Operation
from components.seeding import generator_for

PHRASES: dict[str, tuple[str, ...]] = {
    "exposure+": (
        "increase the exposure by {value}",
        "brighten the photo by {value}",
        "make the photo brighter by {value}",
        "lift the exposure by {value}",
        "raise the brightness by {value}",
        "brighten the photo {degree}",
        "increase the exposure {degree}",
    ),
    "exposure-": (
        "decrease the exposure by {value}",
        "darken the photo by {value}",
        "make the photo darker by {value}",
        "pull the exposure down by {value}",
        "lower the brightness by {value}",
        "darken the photo {degree}",
        "decrease the exposure {degree}",
    ),
    "contrast+": (
        "increase the contrast by {value}",
        "raise the contrast by {value}",
        "make the photo more contrasty by {value}",
        "add {value} contrast",
        "raise the contrast {degree}",
        "make the tones punchier by {value} more contrast",
    ),
    "contrast-": (
        "decrease the contrast by {value}",
        "lower the contrast by {value}",
        "soften the contrast by {value}",
        "make the photo less contrasty by {value}",
        "lower the contrast {degree}",
        "flatten the tones by {value} less contrast",
    ),
    "saturation+": (
        "increase the saturation by {value}",
        "make the colours more vivid by {value}",
        "boost the saturation by {value}",
        "strengthen the colours by {value}",
        "boost the saturation {degree}",
        "enhance the vibrance by {value}",
    ),
    "saturation-": (
        "decrease the saturation by {value}",
        "make the colours less vivid by {value}",
        "tone the saturation down by {value}",
        "mute the colours by {value}",
        "reduce the saturation {degree}",
        "lower the colourfulness by {value}",
    ),
    "temperature+": (
        "warm the white balance by {value}",
        "make the photo warmer by {value}",
        "shift the colours towards warm by {value}",
        "warm the picture up by {value}",
        "warm the white balance {degree}",
        "raise the colour temperature towards warm by {value}",
    ),
    "temperature-": (
        "cool the white balance by {value}",
        "make the photo cooler by {value}",
        "shift the colours towards cold by {value}",
        "cool the picture down by {value}",
        "cool the white balance {degree}",
        "shift the white balance cooler by {value}",
    ),
    "motion_blur": (
        "remove the motion blur",
        "fix the camera shake",
        "deblur the photo",
        "undo the motion blur",
        "correct the motion blur from the shaken camera",
    ),
    "defocus_blur": (
        "remove the defocus blur",
        "bring the photo into focus",
        "correct the missed focus",
        "sharpen it",
        "fix the defocus blur",
    ),
    "noise": ("remove the noise", "denoise the photo", "clean up the grain", "reduce the noise", "eliminate the noise"),
    "jpeg": (
        "remove the compression artefacts",
        "clean up the JPEG artefacts",
        "repair the blocky compression",
        "undo the JPEG compression",
        "fix the compression artefacts",
    ),
    "haze": ("remove the haze", "dehaze the photo", "clear the fog", "cut through the haze", "reduce the haze"),
    "low_light": (
        "restore the low light photo",
        "correct the low light",
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
    "look": (
        "apply the {name} film look",
        "grade the photo in the {name} look",
        "give the photo the colours of {name} film",
        "make it look as if shot on {name}",
    ),
    "enhancement": (
        "enhance this photo",
        "make this photo look its best",
        "improve the tone and colour of this photo",
        "retouch this photo",
        "fix the exposure and the colours",
    ),
}
"""Paraphrases by edit. Tone edits carry a sign; {value}, {degree}, {level} and {name} are filled in."""

_JOINTS = (" and ", ", then ", "; ", " and also ", ", and finally ", " as well as to ")
_OPENINGS = ("", "", "", "please ", "you should ", "in this photo, ")
_TYPICAL = {"exposure": 0.7, "contrast": 0.4, "saturation": 0.6, "temperature": 40.0}


def edit_phrase(operation: Operation, variant: int, name: str = "film") -> str:
    """The edit that takes a photo with this fault back, or, for bokeh and look, that applies it; without punctuation.

    Args:
        operation: a recorded fault (its inverse is phrased), "bokeh" or "look".
        variant: which paraphrase, any non-negative integer.
        name: of the look.
    """
    if operation.name in TONE:
        amount = -operation.amount
        phrases = PHRASES[f"{operation.name}{'+' if amount > 0 else '-'}"]
        words = {"value": _value(operation.name, amount), "degree": _degree(operation.name, amount)}
        return phrases[variant % len(phrases)].format(**words)
    phrases = PHRASES[operation.name]
    return phrases[variant % len(phrases)].format(level=level(operation.amount), name=name)


def instruction(
    kind: str, operations: Sequence[Operation], generator: torch.Generator, labels: Sequence[str] = ()
) -> str:
    """An instruction sentence for a pair that is made from one photo, drawn from the paraphrases.

    Args:
        kind: of the pair; "enhancement" names no edit, every other kind names them all.
        operations: the pair's operations as recorded. Edits are named in reverse, the order in which they undo them.
        labels: names the look that an operation gives ("look=velvia"); others are not said.

    Raises:
        ValueError: a pair of another kind than "enhancement" without operations: there is nothing to say.
    """
    if kind == "enhancement":
        phrases = PHRASES["enhancement"]
        return sentence(phrases[draw(len(phrases), generator)])
    if not operations:
        raise ValueError(
            f"expected the operations of a pair of the kind {kind!r}, found none: nothing says what it does"
        )
    look = next((plain(label.removeprefix("look=")) for label in labels if label.startswith("look=")), "film")
    edits = []
    for operation in reversed(operations):
        if kind == "depth_of_field" and operation.name == "defocus_blur":  # a background blurred before it was covered
            operation = operation.model_copy(update={"name": "bokeh"})
        edits.append(edit_phrase(operation, draw(60, generator), look))
    return joined(edits, generator)


def joined(edits: Sequence[str], generator: torch.Generator) -> str:
    """One sentence that asks for some edits, each a phrase without punctuation, in this order."""
    opening = _OPENINGS[draw(len(_OPENINGS), generator)]
    joint = _JOINTS[draw(len(_JOINTS), generator)]
    if len(edits) == 1:
        return sentence(opening + edits[0])
    return sentence(opening + ", ".join(edits[:-1]) + joint + edits[-1])


def variants(
    kind: str, operations: Sequence[Operation], seed: int, count: int, labels: Sequence[str] = ()
) -> tuple[str, ...]:
    """Different instructions for one pair, the same for the same seed; fewer where there are not that many wordings."""
    sentences: dict[str, None] = {}
    for attempt in range(10 * count):
        generator = generator_for(seed, "instruction", kind, attempt)
        sentences[instruction(kind, operations, generator, labels)] = None
        if len(sentences) == count:
            break
    return tuple(sentences)


def plain(name: str) -> str:
    """A label or the name of a look as words."""
    return name.replace("_", " ")


def _value(name: str, amount: float) -> str:
    if name == "exposure":
        return f"{abs(amount):.1f} EV"
    if name == "temperature":
        return f"{max(10, round(abs(amount) / 10) * 10)} mired"
    return f"{max(10, round(abs(2**amount - 1) * 10) * 10)}%"


def _degree(name: str, amount: float) -> str:
    """How far the edit goes beside a typical one, as an adverb."""
    ratio = abs(amount) / _TYPICAL[name]
    return "slightly" if ratio < 0.75 else "moderately" if ratio < 1.35 else "strongly"


def level(radius: float) -> str:
    """The nearest depth-of-field level as an adverb; ``radius`` is a fraction of the short side."""
    adverbs = {"slight": "slightly", "moderate": "moderately", "strong": "strongly"}
    return adverbs[min(BOKEH_LEVELS, key=lambda level: abs(BOKEH_LEVELS[level] - radius))]


def draw(count: int, generator: torch.Generator) -> int:
    """A number below ``count``."""
    return int(torch.randint(count, (1,), generator=generator))


def sentence(text: str) -> str:
    """A phrase with a capital and a full stop."""
    return f"{text[0].upper()}{text[1:]}."
