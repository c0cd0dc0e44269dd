"""What counts as a contradiction between a verdict and what is known about a view."""

import pytest
import torch

from components.critic.annotation import AnnotationRequest, conflict
from components.critic.grammar import Suggestion, Verdict, suggest
from components.photometry.operations import Operation

VIEW = torch.full((3, 8, 8), 0.5)
DARK = Operation(name="exposure", amount=-1.0)
COLD = Operation(name="temperature", amount=-60.0)
NOISE = Operation(name="noise", amount=0.05)


def verdict(*suggestions: Suggestion, quality: str = "clean") -> Verdict:
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
            "wrong direction: temp",
        ),
        (verdict(suggest("contrast", 0.3)), request(DARK, COLD), "overlooked: exposure, temperature"),
        (verdict(Suggestion(text="Crop tighter.")), request(DARK), "overlooked: exposure"),
        (verdict(suggest("noise")), request(NOISE), None),
        (verdict(quality="much noise in the shadows"), request(NOISE), None),
        (verdict(), request(NOISE), "overlooked: noise"),
        (verdict(), request(labels=("motion_blur",)), "overlooked: motion_blur"),
        (verdict(quality="slight motion blur"), request(labels=("motion_blur",)), None),
        (verdict(), request(labels=("colour diffusion",)), None),
    ],
)
def test_conflicts(given: Verdict, about: AnnotationRequest, reason: str | None) -> None:
    found = conflict(given, about)
    assert found is None if reason is None else found.startswith(reason)
