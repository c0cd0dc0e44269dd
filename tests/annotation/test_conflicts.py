"""What a text says about a distortion, and what counts as a contradiction between a verdict and the record."""

import pytest
import torch

from components.annotation.annotators import AnnotationRequest, OfflineAnnotator
from components.annotation.conflicts import WORDINGS, conflict, read_findings
from components.photometry.operations import DEGRADATIONS, Operation
from components.verdict.grammar import RESTORATIONS, Suggestion, Verdict, suggest

VIEW = torch.full((3, 8, 8), 0.5)
DARK = Operation(name="exposure", amount=-1.0)
COLD = Operation(name="temperature", amount=-60.0)
NOISE = Operation(name="noise", amount=0.05)


def verdict(*suggestions: Suggestion, quality: str = "A street at dusk.") -> Verdict:
    return Verdict(reasoning=(quality, "fine", "fine", "fine", "fine"), suggestions=suggestions, score=50.0)


def request(*operations: Operation, labels: tuple[str, ...] = ()) -> AnnotationRequest:
    return AnnotationRequest("a", VIEW, VIEW, operations, labels)


@pytest.mark.parametrize(
    ("given", "about", "reason"),
    [
        (verdict(), request(), None),
        (verdict(suggest("contrast", 0.3)), request(), None),
        (verdict(suggest("exposure", 1.0)), request(DARK), None),
        (verdict(suggest("exposure", 1.0)), request(DARK, COLD), None),
        (verdict(suggest("exposure", -0.5)), request(DARK), "wrong direction: exposure"),
        (
            verdict(suggest("exposure", 1.0), suggest("temperature", -20.0)),
            request(DARK, COLD),
            "wrong direction: temperature",
        ),
        (verdict(suggest("contrast", 0.3)), request(DARK, COLD), "overlooked: exposure, temperature"),
        (verdict(Suggestion(text="Crop tighter.")), request(DARK), "overlooked: exposure"),
        (verdict(suggest("noise")), request(NOISE), None),
        (verdict(quality="much noise in the shadows"), request(NOISE), None),
        (verdict(), request(NOISE), "overlooked: noise"),
        (verdict(quality="clean"), request(NOISE), "contradicted: noise"),
        (verdict(quality="clean and sharp"), request(), None),
        (verdict(), request(labels=("motion_blur",)), "overlooked: motion_blur"),
        (verdict(quality="slight motion blur"), request(labels=("motion_blur",)), None),
        (verdict(quality="The subject is tack sharp."), request(labels=("motion_blur",)), "contradicted: motion_blur"),
        (
            verdict(suggest("motion_blur"), quality="Crisp detail throughout."),
            request(labels=("motion_blur",)),
            "contradicted: motion_blur",
        ),
        (verdict(quality="No motion blur."), request(labels=("motion_blur",)), "contradicted: motion_blur"),
        (verdict(quality="Sharp eyes, yet motion blur in the hands."), request(labels=("motion_blur",)), None),
        (verdict(), request(labels=("colour_diffusion", "severity=5", "quality")), None),
        (verdict(quality="Tack sharp."), request(labels=("blur", "noise")), "contradicted: blur"),
        (verdict(quality="Blurred, with noise."), request(labels=("blur", "noise")), None),
        (verdict(), request(labels=("shadow",)), "overlooked: shadow"),
        (verdict(Suggestion(text="Lift the shadow on the page.")), request(labels=("shadow",)), None),
        (verdict(quality="Evenly lit."), request(labels=("shadow",)), "contradicted: shadow"),
        (verdict(), request(labels=("gaussian_blur", "severity=2")), "overlooked: gaussian_blur"),
        (verdict(), request(labels=("gaussian_blur", "severity=1")), None),
        (verdict(quality="Crisp."), request(labels=("gaussian_blur", "severity=1")), "contradicted: gaussian_blur"),
        (verdict(), request(NOISE, labels=("severity=1",)), "overlooked: noise"),
        (verdict(suggest("noise")), request(labels=("pristine",)), "imagined: noise"),
        (verdict(suggest("noise")), request(NOISE, labels=("pristine",)), None),
        (verdict(suggest("contrast", 0.3)), request(labels=("pristine",)), None),
    ],
)
def test_conflicts(given: Verdict, about: AnnotationRequest, reason: str | None) -> None:
    assert conflict(given, about) == reason


@pytest.mark.parametrize(
    ("text", "distortion", "affirmed", "denied"),
    [
        ("The picture is sharp and well focused.", "defocus_blur", False, True),
        ("Excellent sharpness on the eyes.", "motion_blur", False, True),
        ("The focus is perfect.", "defocus_blur", False, True),
        ("The subject is not sharp.", "motion_blur", True, False),
        ("It isn't in focus.", "defocus_blur", True, False),
        ("It lacks sharpness.", "defocus_blur", True, False),
        ("Poor overall sharpness.", "defocus_blur", True, False),
        ("Everything is out of focus.", "defocus_blur", True, False),
        ("A little soft.", "defocus_blur", True, False),
        ("Soft light from the left, sharp shadows.", "defocus_blur", False, False),
        ("There is no sign of blur.", "motion_blur", False, True),
        ("No noise, blur or compression artefacts.", "motion_blur", False, True),
        ("No noise, blur or compression artefacts.", "jpeg", False, True),
        ("No noise; strong camera shake.", "motion_blur", True, False),
        ("Without noise but blurry.", "motion_blur", True, False),
        ("Pleasing background blur.", "motion_blur", False, False),
        ("Pleasing background blur.", "bokeh", True, False),
        ("A noise-free, noiseless sky.", "noise", False, True),
        ("Noisy shadows in a clean composition.", "noise", True, False),
        ("A clean composition.", "noise", False, False),
        ("Visible blocking and ringing.", "jpeg", True, False),
        ("Crystal clear view of the hills.", "haze", False, True),
        ("The haze is thick; a clear focal point.", "haze", True, False),
        ("Well lit scene.", "low_light", False, True),
        ("Badly underexposed.", "low_light", True, False),
        ("The exposure is fine.", "low_light", False, False),
        ("A tree on a hill.", "noise", False, False),
    ],
)
def test_what_a_text_says(text: str, distortion: str, affirmed: bool, denied: bool) -> None:
    assert read_findings(text, distortion) == (affirmed, denied)


def test_every_distortion_has_words_and_its_own_name_is_one_of_them() -> None:
    assert WORDINGS.keys() >= RESTORATIONS.keys()
    for name, words in RESTORATIONS.items():
        assert read_findings(f"Severe {words} here.", name) == (True, False)
        assert read_findings(f"No {words} here.", name) == (False, True)


@pytest.mark.parametrize(
    ("label", "defect", "praise"),
    [
        ("blur", "Heavy camera shake.", "Everything in sharp focus."),
        ("gaussian_blur", "It looks soft.", "Crisp edges."),
        ("jpeg2000", "Ringing around the edges.", "No compression artifacts."),
        ("pixelated", "Coarse pixels.", "A clean, high-resolution picture."),
        ("oversharpened", "Halos along the roof.", "Natural sharpness."),
        ("darkened", "The picture is underexposed.", "Well exposed."),
        ("brightened", "Washed out.", "Perfect exposure."),
        ("moire", "Moiré on the shirt.", "Clean, without moire."),
        ("shadow", "A hard shadow falls on the page.", "Even lighting."),
        ("rain", "Rain streaks.", "Clear weather."),
        ("raindrop", "Water drops on the lens.", "A clean lens."),
        ("night_rain", "It is raining.", "A clear night, no rain."),
    ],
)
def test_labels_of_the_data_sets_have_words_of_their_own(label: str, defect: str, praise: str) -> None:
    assert read_findings(defect, label) == (True, False)
    assert read_findings(praise, label) == (False, True)


def test_the_offline_annotator_contradicts_nothing_it_knows() -> None:
    operations = [Operation(name=name, amount=20.0 if name == "jpeg" else 0.05) for name in DEGRADATIONS]
    requests = [request(operation, DARK) for operation in operations]
    answers = []
    OfflineAnnotator().annotate(requests, answers.append)
    assert [conflict(answer.verdict, about) for answer, about in zip(answers, requests, strict=True)] == [None] * 7
