"""Instructions of pairs that were published as two photos: what takes the one to the other, from all that is known.

What a pair does is told by its operations (recorded with the input: what spoilt it; with the target: what was added to
it), by the labels of the input (what is to be removed) and of the target (its look, its aperture), and where neither
says anything, by its kind alone. No pair is given the words of another kind.
"""

from collections.abc import Mapping, Sequence

import torch

from components.data.prompts import PHRASES, draw, edit_phrase, joined, level, plain
from components.photometry.operations import TONE, Operation

REMOVALS: Mapping[str, tuple[str, ...]] = {
    "blur": ("remove the blur", "deblur the photo", "sharpen the blurred photo", "make the blurred photo sharp"),
    "rain": ("remove the rain", "derain the photo", "clear the rain from the photo"),
    "raindrop": ("remove the raindrops", "clean the raindrops off the lens", "get rid of the raindrops"),
    "night_rain": ("remove the rain from the night photo", "derain the photo taken at night"),
    "shadow": ("remove the shadow", "lift the shadow off the photo", "make the shadow disappear"),
    "moire": ("remove the moire", "clean the moire pattern off the photo", "get rid of the moire"),
    "gaussian_blur": ("remove the blur", "deblur the photo", "sharpen the blurred photo"),
    "lens_blur": ("remove the lens blur", "bring the photo into focus"),
    "colour_diffusion": ("stop the colours from bleeding", "undo the bleeding of the colours"),
    "colour_shift": ("undo the shift between the colour channels", "align the colour channels"),
    "colour_quantisation": ("undo the colour quantisation", "restore the colours that were reduced to a few"),
    "hsv_saturation": ("restore the saturation of the colours", "bring back the natural saturation"),
    "lab_saturation": ("restore the saturation of the colours", "bring back the natural saturation"),
    "jpeg2000": ("remove the JPEG 2000 artefacts", "undo the JPEG 2000 compression"),
    "white_noise": ("remove the noise", "denoise the photo"),
    "colour_component_noise": ("remove the colour noise", "denoise the colours of the photo"),
    "impulse_noise": ("remove the salt and pepper noise", "remove the impulse noise"),
    "multiplicative_noise": ("remove the speckle noise", "remove the multiplicative noise"),
    "denoised": ("bring back the detail that denoising took away", "undo the smearing left by denoising"),
    "brightened": ("take the brightening back", "darken the photo that was made too bright"),
    "darkened": ("take the darkening back", "brighten the photo that was made too dark"),
    "mean_shift": ("undo the shift of the mean brightness", "restore the original mean brightness"),
    "jitter": ("undo the jitter of the pixels", "straighten the jittered pixels out"),
    "non_eccentricity_patch": ("put the displaced patches back", "repair the displaced patches"),
    "pixelated": ("undo the pixelation", "bring back the detail that pixelation took away"),
    "quantisation": ("undo the quantisation of the tones", "restore the tones that were reduced to a few"),
    "colour_blocks": ("remove the coloured blocks", "repair what the coloured blocks cover"),
    "oversharpened": ("undo the oversharpening", "remove the halos of oversharpening"),
    "contrast_change": ("restore the original contrast", "undo the change of the contrast"),
}
"""What removes a distortion, by its label, beside those that have the name of an operation (`prompts.PHRASES`)."""
_OTHER = ("remove the {name}", "get rid of the {name}", "fix the {name}")
_NARROWER = {
    "lens_blur": "defocus_blur",
    "white_noise": "noise",
    "colour_component_noise": "noise",
    "impulse_noise": "noise",
    "multiplicative_noise": "noise",
}
"""Labels that say more exactly what the other one says; the more exact one is said."""
_NO_DISTORTION = frozenset(
    ("all_in_focus", "as_shot", "aesthetics", "quality", "pristine", "document", "foreground", "background")
)

APERTURES = (
    "open the aperture to {aperture}",
    "blur the background as an aperture of {aperture} does",
    "give the photo the depth of field of {aperture}",
    "throw the background out of focus, as at {aperture}",
)
APERTURES_AND_LEVELS = (
    "blur the background {level}, as an aperture of {aperture} does",
    "open the aperture to {aperture} so that the background blurs {level}",
    "throw the background {level} out of focus, as at {aperture}",
)
UNSAID: Mapping[str, tuple[str, ...]] = {
    "enhancement": PHRASES["enhancement"],
    "retouching": ("retouch this photo", "edit the tones and colours of this photo", "give this photo a finished edit"),
    "restoration": ("restore this photo", "repair the damage to this photo", "undo what has spoilt this photo"),
    "multi_edit": ("repair and retouch this photo", "restore this photo and finish its tones and colours"),
    "depth_of_field": (
        "blur the background",
        "throw the background out of focus",
        "give the photo a shallow depth of field",
    ),
    "look": ("give the photo a film look", "grade the photo like film", "make it look as if shot on film"),
}
"""What asks for a kind of pair of which no more is known."""


def published_instruction(
    kind: str,
    before: Sequence[str],
    after: Sequence[str],
    spoilt: Sequence[Operation],
    added: Sequence[Operation],
    generator: torch.Generator,
    faults: Sequence[Operation] = (),
) -> str:
    """An instruction sentence for a published pair, drawn from the paraphrases.

    Args:
        kind: of the published pair, one of `components.data.pairs.KINDS`.
        before, after: labels of the input and of the target. A plain label of the input that the target does not
            have is what is to be removed; "look=" and "f_number=" of the target are what is to be added.
        spoilt: operations recorded with the input; their inverses are asked for.
        added: operations recorded with the target, of `components.data.sources.base.ADDABLE`; they are asked for.
        generator: source of all randomness.
        faults: stacked on the input; their inverses are asked for first.
    """
    edits = [edit_phrase(fault, draw(60, generator)) for fault in reversed(faults)]
    known = [edit_phrase(fault, draw(60, generator)) for fault in reversed(spoilt)]
    known += [_removal(label, draw(60, generator)) for label in _removed(before, after, spoilt)]
    known += _additions(after, added, generator)
    if not known:
        phrases = UNSAID[kind]
        known = [phrases[draw(len(phrases), generator)]]
    return joined([*edits, *known], generator)


def _removed(before: Sequence[str], after: Sequence[str], spoilt: Sequence[Operation]) -> list[str]:
    """The labels that name what is to be removed and no operation says."""
    plain_labels = [label for label in before if "=" not in label and label not in _NO_DISTORTION]
    said = {*after, *(operation.name for operation in spoilt)}
    said |= {_NARROWER[label] for label in plain_labels if label in _NARROWER}
    return [label for label in plain_labels if label not in said]


def _removal(label: str, variant: int) -> str:
    phrases = REMOVALS.get(label) or PHRASES.get(label) or _OTHER
    return phrases[variant % len(phrases)].format(name=plain(label))


def _additions(after: Sequence[str], added: Sequence[Operation], generator: torch.Generator) -> list[str]:
    """What makes the target from the input, in the order in which it is done."""
    values = dict(label.split("=", 1) for label in after if "=" in label)
    look, aperture = values.get("look"), values.get("f_number")
    edits = []
    for operation in added:
        if operation.name in TONE:
            inverse = operation.model_copy(update={"amount": -operation.amount})
            edits.append(edit_phrase(inverse, draw(60, generator)))
        elif operation.name != "bokeh" or aperture is None:
            edits.append(edit_phrase(operation, draw(60, generator), plain(look or "film")))
    if look is not None and all(operation.name != "look" for operation in added):
        phrases = PHRASES["look"]
        edits.append(phrases[draw(len(phrases), generator)].format(name=plain(look)))
    if aperture is not None:
        ends = {level(float(values[name])) for name in ("blur_low", "blur_high") if name in values}
        phrases = APERTURES_AND_LEVELS if len(ends) == 1 and draw(2, generator) else APERTURES
        edits.append(phrases[draw(len(phrases), generator)].format(aperture=f"f/{aperture}", level="".join(ends)))
    return edits
