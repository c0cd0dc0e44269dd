"""Annotators: what every source of verdicts on photos has in common, and the one that needs no model.

An annotator is handed views one after another and hands back one answer for each, in any order. Which one is used is a
matter of configuration; the offline annotator knows the faults, the client asks a large model that does not.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from components.annotation.offline import describe
from components.photometry.operations import Operation
from components.verdict.grammar import Verdict


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
class AnnotatorAnswer:
    """A verdict, or the reason why there is none, and what it took.

    Attributes:
        id: of the request.
        verdict: None when the photo got no usable one.
        reason: why there is no verdict, as "kind" or "kind: details"; None when there is one.
        input_tokens, output_tokens: as the server counted them, over all attempts that it answered.
        requests: sent to a server for this answer, retries and the repair included; 0 for an offline one.
        repaired: whether the first answer could not be read and the model was asked to write it again.
        restored: whether it comes from the journal of an earlier run.
    """

    id: str
    verdict: Verdict | None
    reason: str | None = None
    input_tokens: int = 0
    output_tokens: int = 0
    requests: int = 0
    repaired: bool = False
    restored: bool = False


class Annotator(Protocol):
    """Judges views."""

    name: str

    def annotate(self, requests: Iterable[AnnotationRequest], receive: Callable[[AnnotatorAnswer], None]) -> None:
        """Judge every request and call ``receive`` once for each, in any order, from the calling thread.

        Requests are taken one at a time and not kept, so their pictures need not fit into memory together.
        """
        ...


class OfflineAnnotator:
    """Writes verdicts from measured attributes and the recorded faults (`components.annotation.offline`)."""

    name = "offline"

    def annotate(self, requests: Iterable[AnnotationRequest], receive: Callable[[AnnotatorAnswer], None]) -> None:
        """See `Annotator.annotate`; answers come in the order of the requests."""
        for request in requests:
            verdict = describe(request.view, request.intact, request.operations, score=request.mos)
            receive(AnnotatorAnswer(request.id, verdict))
