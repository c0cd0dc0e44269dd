"""Annotators: what every source of verdicts on photos has in common, and the one that needs no model.

An annotator is handed views one after another and hands back one answer for each, in any order. Which one is used is a
matter of configuration; the offline annotator knows the faults, the client asks a large model that does not.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from components.critic.annotator import describe
from components.critic.grammar import RESTORATIONS, Verdict
from components.photometry.operations import TONE, Operation


@dataclass(frozen=True)
class AnnotationRequest:
    """A view to be judged, and what is known about it.

    Attributes:
        id: unique among the requests of a run.
        view: (3, H, W) in [0, 1], what the Critic will see.
        intact: (3, H, W) the same view without the recorded faults.
        operations: the recorded faults.
        labels: distortions that the data set says are in the photo.
        mos: mean opinion score of the view, 0 to 100, when people have rated exactly this picture.
    """

    id: str
    view: Tensor
    intact: Tensor
    operations: tuple[Operation, ...] = ()
    labels: tuple[str, ...] = ()
    mos: float | None = None


@dataclass(frozen=True)
class Answer:
    """A verdict, or the reason why there is none ("kind" or "kind: details"), and what it cost in tokens."""

    id: str
    verdict: Verdict | None
    reason: str | None = None
    input_tokens: int = 0
    output_tokens: int = 0


class Annotator(Protocol):
    """Judges views."""

    name: str

    def annotate(self, requests: Iterable[AnnotationRequest], receive: Callable[[Answer], None]) -> None:
        """Judge every request and call ``receive`` once for each, in any order, from the calling thread.

        Requests are taken one at a time and not kept, so their pictures need not fit into memory together.
        """
        ...


class OfflineAnnotator:
    """Writes verdicts from measured attributes and the recorded faults (`components.critic.annotator`)."""

    name = "offline"

    def annotate(self, requests: Iterable[AnnotationRequest], receive: Callable[[Answer], None]) -> None:
        """See `Annotator.annotate`; answers come in the order of the requests."""
        for request in requests:
            verdict = describe(request.view, request.intact, request.operations, score=request.mos)
            receive(Answer(request.id, verdict))


def conflict(verdict: Verdict, request: AnnotationRequest) -> str | None:
    """Why a verdict contradicts what is known about the view, as "kind: details", or None when it does not.

    A verdict conflicts when a suggestion would make a recorded tone fault worse ("wrong direction"), when it has no
    suggestion for any of the tone faults, or when it neither mentions nor removes a recorded degradation or a labelled
    distortion ("overlooked").
    """
    faults = dict.fromkeys(TONE, 0.0)
    distortions = {label for label in request.labels if label in RESTORATIONS}
    for operation in request.operations:
        if operation.name in faults:
            faults[operation.name] += operation.amount
        else:
            distortions.add(operation.name)
    faults = {name: amount for name, amount in faults.items() if amount}
    suggested = {suggestion.operation: suggestion.amount for suggestion in verdict.suggestions}
    for name, amount in faults.items():
        if (suggested.get(name) or 0.0) * amount > 0:
            return f"wrong direction: {name}"
    if faults and not faults.keys() & suggested.keys():
        return f"overlooked: {', '.join(faults)}"
    text = " ".join(verdict.reasoning).lower()
    for name in sorted(distortions):
        if name not in suggested and RESTORATIONS[name] not in text:
            return f"overlooked: {name}"
    return None
