"""The conflict filter: whether a verdict contradicts what is on record about the photo it judges.

A large model sees the photo and nothing else; the record knows which faults were applied and which distortion the data
set's label names. A verdict that says the opposite would teach the Critic to praise faults, so it is dropped.

What a text says about a distortion is read from the words for it, the words of praise for its absence, and negation,
by the NegEx algorithm: a negation holds for the terms within five words after it, up to the end of the clause
(Chapman et al. 2001, "A Simple Algorithm for Identifying Negated Findings and Diseases in Discharge Summaries").
"""

import re
from bisect import bisect_right
from typing import NamedTuple

from components.annotation.annotators import AnnotationRequest
from components.photometry.operations import TONE
from components.verdict.grammar import RESTORATIONS, Verdict

_GOOD = r"(?:good|great|excellent|high|perfect|superb|outstanding|impressive|fine|well[- ]?\w+)"
_POOR = r"(?:lack of|lacks|lacking|poor|low|insufficient|reduced|limited|imperfect)"
_SHARPNESS = r"(?:sharpness|focus|acuity)"
_SHARP = (
    r"(?:tack[- ]|razor[- ])?sharp(?! (?:contrast|shadows?|light|transitions?))|sharply|crisp\w*|well[- ]focus+ed|"
    rf"in (?:\w+ )?focus|{_GOOD} (?:\w+ )?{_SHARPNESS}|{_SHARPNESS} (?:is|looks|remains) (?:\w+ )?{_GOOD}|blur[- ]free"
)
_BLUR = (
    r"(?<!background )(?<!bokeh )blur(?:r(?:y|ed|iness|ing))?(?! (?:of|in) the background)|unsharp\w*|"
    r"soft(?:ness)?(?! (?:light|shadow|tone|colou?r|transition|background|bokeh)\w*)|"
    rf"{_POOR} (?:\w+ )?{_SHARPNESS}"
)

_NEGATION = re.compile(
    r"\b(?:no|not|without|free (?:of|from)|absence of|lacks?|lacking|neither|nor|never|hardly|barely)\b|n't\b"
)
_CLAUSE_END = re.compile(r"[.;:!?()]|\b(?:but|however|although|though|yet|while|whereas|except)\b")
_SCOPE = 5
"""Words after a negation to which it applies."""


class Wording(NamedTuple):
    """How a distortion and its absence are named, as regular expressions on lower-case text."""

    defect: re.Pattern[str]
    praise: re.Pattern[str]


def _wording(defect: str, praise: str) -> Wording:
    return Wording(re.compile(rf"\b(?:{defect})\b(?!-free)"), re.compile(rf"\b(?:{praise})\b"))


_CLEAN = r"clean(?! (?:composition|lines?|background|fram\w+|look|layout|arrangement))"
_MOTION = r"motion[- ]blur(?:red)?|camera (?:shake|movement)|shak(?:e|y)|smear\w*|streak\w*"
_DEFOCUS = r"defocus\w*|out[- ]of[- ]focus|misfocus\w*|missed focus"
_CODING = r"compress(?:ion|ed)|jpe?g\w*|block\w*|artefacts?|artifacts?|ringing|mosquito\w*"
_UNCODED = rf"{_CLEAN}|(?:artefact|artifact|compression)[- ]free"
_DARK = r"low[- ]light\w*|under[- ]?expos\w*|dark(?:ness|ened)?|dim(?:ly)?|gloomy"
_EXPOSED = rf"well[- ]exposed|{_GOOD} (?:lighting|exposure|illumination)"
_RAIN = r"rain\w*|drizzl\w*|wet lens|(?:water )?drop(?:s|lets?)"
WORDINGS = {
    # What the photometry can make, under its names
    "motion_blur": _wording(rf"{_MOTION}|{_BLUR}", _SHARP),
    "defocus_blur": _wording(rf"{_DEFOCUS}|{_BLUR}", _SHARP),
    "noise": _wording(
        r"nois(?:e|y|ier|iness)|grain(?:y|iness)?", rf"{_CLEAN}|noise[- ]free|noiseless|grain[- ]?(?:free|less)"
    ),
    "jpeg": _wording(_CODING, _UNCODED),
    "haze": _wording(
        r"haz(?:e|y|iness)|fog(?:gy)?|mist(?:y)?|veil(?:ed|ing)?|smog(?:gy)?",
        r"haze[- ]free|crystal[- ]clear|clear (?:air|atmosphere|sky|skies|day|view)",
    ),
    "low_light": _wording(_DARK, rf"well[- ]lit|brightly lit|bright (?:and|scene|image|photo|picture)|{_EXPOSED}"),
    "bokeh": _wording(
        r"background blur|blurr(?:ed|y) background|blur(?:r\w+)? (?:of|in) the background|bokeh|"
        r"shallow depth[- ]of[- ]field|(?:out[- ]of[- ]focus|defocused|soft) background",
        r"sharp (?:throughout|background|from front to back)|everything (?:is )?(?:sharp|in focus)|"
        r"deep depth[- ]of[- ]field",
    ),
    # What else the labels of the data sets name
    "blur": _wording(rf"{_MOTION}|{_DEFOCUS}|{_BLUR}", _SHARP),
    "gaussian_blur": _wording(rf"{_DEFOCUS}|{_BLUR}", _SHARP),
    "jpeg2000": _wording(rf"{_CODING}|{_BLUR}", _UNCODED),
    "pixelated": _wording(rf"pixel\w*|mosaic\w*|low[- ]res\w*|jagged|{_CODING}", rf"{_UNCODED}|high[- ]res\w*"),
    "oversharpened": _wording(r"over[- ]?sharpen\w*|too sharp|harsh\w*|halo(?:s|es)?|ringing", r"natural sharpness"),
    "darkened": _wording(_DARK, rf"bright (?:and|scene|image|photo|picture)|{_EXPOSED}"),
    "brightened": _wording(r"over[- ]?expos\w*|bright\w*|wash\w*|blown\w*|glar\w*|clipp\w*|pale|faded", _EXPOSED),
    "moire": _wording(
        r"moir[eé]\w*|band(?:s|ing)|stripes?|patterns?|interference|aliasing", rf"{_CLEAN}|moir[eé][- ]free"
    ),
    "shadow": _wording(
        r"shadow\w*|shad(?:e|ed|ing|y)", r"shadow[- ]?(?:free|less)|even(?:ly)? (?:lit|light\w*|illumin\w*)"
    ),
    "rain": _wording(_RAIN, r"rain[- ]free|clear (?:weather|sky|skies|day|view)"),
    "raindrop": _wording(_RAIN, r"clear (?:glass|view)|clean (?:glass|lens)"),
    "night_rain": _wording(_RAIN, r"rain[- ]free|clear (?:weather|sky|skies|night|view)"),
}
"""By operation name or label. Labels that are not here say nothing that a text could contradict."""

PRISTINE = "pristine"
"""The label of a photo that is known to have no distortion."""
BARELY_VISIBLE = "severity=1"
"""The label of a distortion at the lowest of five levels (KADID-10k): no fault of a judge who does not mention it."""


class Findings(NamedTuple):
    """What a text says about one distortion; both can be true of a text, or neither."""

    affirmed: bool
    denied: bool


def read_findings(text: str, distortion: str) -> Findings:
    """Whether ``text`` affirms a distortion of `WORDINGS`, and whether it denies it or praises its absence.

        >>> read_findings("Tack sharp, but noise in the shadows.", "motion_blur")
        Findings(affirmed=False, denied=True)
        >>> read_findings("The subject is not sharp.", "motion_blur")
        Findings(affirmed=True, denied=False)

    Raises:
        KeyError: the distortion is unknown.
    """
    wording = WORDINGS[distortion]
    affirmed = denied = False
    for clause in _CLAUSE_END.split(text.lower()):
        negations = [match.end() for match in _NEGATION.finditer(clause)]
        for pattern, bad in ((wording.defect, True), (wording.praise, False)):
            for term in pattern.finditer(clause):
                before = bisect_right(negations, term.start())  # the nearest, which has the fewest words between
                between = clause[negations[before - 1] : term.start()].split(maxsplit=_SCOPE) if before else ()
                negated = before > 0 and len(between) < _SCOPE
                affirmed |= bad != negated
                denied |= bad == negated
    return Findings(affirmed, denied)


def conflict(verdict: Verdict, request: AnnotationRequest) -> str | None:
    """Why a verdict contradicts what is known about the view, as "kind: details", or None when it does not.

    A verdict conflicts when

    - a suggestion would make a recorded tone fault worse ("wrong direction"), or no suggestion is for any of the tone
      faults ("overlooked");
    - its reasoning denies a recorded degradation or a labelled distortion, or praises the absence of it, and nowhere
      affirms it ("contradicted"), or neither speaks of it nor suggests to remove it ("overlooked"); a label of the
      lowest severity need not be spoken of;
    - the label says that the photo is pristine, nothing was done to it, and a suggestion would restore it ("imagined").
    """
    faults = dict.fromkeys(TONE, 0.0)
    recorded = set()
    for operation in request.operations:
        if operation.name in faults:
            faults[operation.name] += operation.amount
        else:
            recorded.add(operation.name)
    labelled = WORDINGS.keys() & set(request.labels)
    faults = {name: amount for name, amount in faults.items() if amount}
    suggested = {suggestion.operation: suggestion.amount for suggestion in verdict.suggestions}
    for name, amount in faults.items():
        if (suggested.get(name) or 0.0) * amount > 0:
            return f"wrong direction: {name}"
    if faults and not faults.keys() & suggested.keys():
        return f"overlooked: {', '.join(faults)}"
    reasoning = ". ".join(verdict.reasoning)
    remedies = ". ".join(suggestion.text for suggestion in verdict.suggestions)
    for name in sorted(recorded | labelled):
        findings = read_findings(reasoning, name)
        if findings.denied and not findings.affirmed:
            return f"contradicted: {name}"
        mentioned = findings.affirmed or name in suggested or read_findings(remedies, name).affirmed
        if not mentioned and (name in recorded or BARELY_VISIBLE not in request.labels):
            return f"overlooked: {name}"
    if PRISTINE in request.labels and not request.operations:
        imagined = sorted(operation for operation in RESTORATIONS if operation in suggested)
        return f"imagined: {', '.join(imagined)}" if imagined else None
    return None
