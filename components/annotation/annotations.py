"""Annotation: views of every photo, intact and with recorded random faults, each with the verdict the Critic learns.

Opinion scores of people replace the annotator's where they exist; verdicts that contradict what is known about a view
are dropped, and every drop is counted by its reason.
"""

import contextlib
import json
import logging
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Literal

import torch
from pydantic import Field
from tqdm import tqdm

from components import files
from components.annotation.annotators import AnnotationRequest, Annotator, AnnotatorAnswer, OfflineAnnotator
from components.annotation.client import ClientSettings, OpenAICompatibleAnnotator
from components.annotation.conflicts import conflict
from components.annotation.records import ANNOTATIONS_FILE, AnnotatedPhoto, faulty
from components.data.crops import Crop, reduce, sample_crop, take_crop
from components.data.degradations import sample_degradation
from components.data.faults import sample_faults
from components.data.partition import by_photo
from components.data.records import Manifest, PhotoRecord
from components.imaging.photo import read_photo
from components.photometry.operations import Operation
from components.seeding import generator_for
from components.strict import Strict
from components.verdict.grammar import render

log = logging.getLogger(__name__)

DROPPED_FILE = "dropped.jsonl"
REPORT_FILE = "report.json"


class AnnotationSettings(Strict):
    """Which views are made of a photo and who judges them."""

    annotator: Literal["offline", "openai"] = Field(default="offline", description="Who writes the verdicts.")
    short_side: int = Field(default=160, ge=16, description="Shorter side of the views, pixels.")
    faulty_views: int = Field(
        default=11, ge=0, description="Views per photo with random faults, in addition to the intact one."
    )
    degraded: float = Field(default=0.0, ge=0, le=1, description="Share of faulty views that also get a degradation.")
    smallest_crop: float = Field(default=0.7, gt=0, le=1, description="Smallest side of a crop, share of the photo's.")
    seed: int = Field(default=0, ge=0, description="Of the views: crops, faults and degradations.")
    client: ClientSettings = Field(default_factory=ClientSettings, description='Used when annotator is "openai".')


class AnnotationReport(Strict):
    """What came of an annotation run, and what it took."""

    annotated: int
    dropped: dict[str, int] = Field(description="Views without a usable verdict, by kind of reason.")
    restored: int = Field(description="Answers that an earlier run had recorded; not asked for again.")
    repaired: int = Field(description="Answers that the model had to write a second time.")
    requests: int = Field(description="Sent for all answers, restored ones included: retries and repairs count.")
    input_tokens: int = Field(description="Of all answers, restored ones included.")
    output_tokens: int
    cost: float = Field(description="Of these tokens at the configured prices, in the currency.")
    currency: str
    seconds: float


def build_annotator(settings: AnnotationSettings, journal: Path, others: Iterable[Path] = ()) -> Annotator:
    """The annotator that the settings name.

    Args:
        journal: where the client keeps its answers across runs.
        others: journals of other shards, in which it looks for answers as well.
    """
    if settings.annotator == "openai":
        return OpenAICompatibleAnnotator(settings.client, journal, others)
    return OfflineAnnotator()


def annotate(
    manifest: Manifest, photos_dir: Path, out: Path, settings: AnnotationSettings, annotator: Annotator
) -> AnnotationReport:
    """Make the views of every photo, have them judged, and write the result into the directory ``out``.

    Writes `annotations.jsonl` (`AnnotatedPhoto` lines in manifest order), `dropped.jsonl` (id and full reason)
    and `report.json`, each whole or not at all.

    Raises:
        UnreadablePhoto, FileNotFoundError: a photo of the manifest has been damaged or removed since ingestion.
        ChatServerError: see the client; its journal keeps the answers so far.
        ValueError: not a single view got a usable verdict.
    """
    began = time.perf_counter()
    accepted: dict[str, AnnotatedPhoto] = {}
    dropped: dict[str, str] = {}
    took: Counter[str] = Counter()
    open_views: dict[str, tuple[AnnotationRequest, PhotoRecord, Crop]] = {}
    order: list[str] = []

    def requests() -> Iterator[AnnotationRequest]:
        for request, record, view in _requests(manifest, Path(photos_dir), settings):
            open_views[request.id] = (request, record, view)
            order.append(request.id)
            yield request

    with _Progress(len(manifest) * (1 + settings.faulty_views), settings.client) as progress:

        def receive(answer: AnnotatorAnswer) -> None:
            request, record, view = open_views.pop(answer.id)
            took.update(
                input_tokens=answer.input_tokens,
                output_tokens=answer.output_tokens,
                requests=answer.requests,
                repaired=int(answer.repaired),  # the first value is kept as it is, and a report holds no truth values
                restored=int(answer.restored),
            )
            reason = answer.reason if answer.verdict is None else conflict(answer.verdict, request)
            if answer.verdict is None or reason:
                dropped[answer.id] = reason or "no answer"
            else:
                accepted[answer.id] = _annotated(request, record, view, answer, annotator.name)
            progress.advance(answer, len(dropped), took)

        annotator.annotate(requests(), receive)

    report = AnnotationReport(
        annotated=len(accepted),
        dropped=dict(Counter(reason.partition(":")[0] for reason in dropped.values()).most_common()),
        restored=took["restored"],
        repaired=took["repaired"],
        requests=took["requests"],
        input_tokens=took["input_tokens"],
        output_tokens=took["output_tokens"],
        cost=settings.client.cost(took["input_tokens"], took["output_tokens"]),
        currency=settings.client.currency,
        seconds=round(time.perf_counter() - began, 3),
    )
    log.info(
        "annotated %d views; dropped: %s; %d + %d tokens, %.2f %s",
        report.annotated,
        ", ".join(f"{count} {reason}" for reason, count in report.dropped.items()) or "none",
        report.input_tokens,
        report.output_tokens,
        report.cost,
        report.currency,
    )
    if not accepted:
        raise ValueError(f"no view got a usable verdict: {report.dropped}; check the annotator {annotator.name!r}")
    lines = (accepted[key].model_dump_json() + "\n" for key in order if key in accepted)
    files.write_text(Path(out) / ANNOTATIONS_FILE, "".join(lines))
    rejected = (json.dumps({"id": key, "reason": dropped[key]}) + "\n" for key in order if key in dropped)
    files.write_text(Path(out) / DROPPED_FILE, "".join(rejected))
    files.write_text(Path(out) / REPORT_FILE, report.model_dump_json(indent=2) + "\n")
    return report


def merge_annotations(manifest: Manifest, parts: Sequence[Path], out: Path) -> dict[str, int]:
    """Put the annotations of all shards of a manifest together, as `annotate` writes them of the whole, to the byte.

    Args:
        parts: what `annotate` wrote of each shard.
        out: directory for `annotations.jsonl` and `dropped.jsonl`.

    Returns:
        number of views that are "annotated" and "dropped".

    Raises:
        ValueError: a photo of the manifest is in none of the parts, or in several; or a part has others.
    """
    counts = Counter(annotated=0, dropped=0)
    with contextlib.ExitStack() as opened:
        merged = [_merged(manifest, parts, name, opened) for name in (ANNOTATIONS_FILE, DROPPED_FILE)]
        targets = [
            opened.enter_context(opened.enter_context(files.replacing(out / name)).open("wb"))
            for name in (ANNOTATIONS_FILE, DROPPED_FILE)
        ]
        for record, *lines in zip(manifest, *merged, strict=True):
            if not any(lines):
                raise ValueError(f"{record.id} was neither annotated nor dropped: is a part missing?")
            for kind, target, of_photo in zip(counts, targets, lines, strict=True):
                target.writelines(of_photo)
                counts[kind] += len(of_photo)
    return dict(counts)


def _merged(
    manifest: Manifest, parts: Sequence[Path], name: str, opened: contextlib.ExitStack
) -> Iterator[list[bytes]]:
    """Lines of one of the files by photo; their ids are those of the photos with the number of the view."""
    sources = [opened.enter_context((part / name).open("rb")) for part in parts]
    return by_photo(manifest, sources, lambda line: json.loads(line)["id"].rpartition("#")[0])


class _Progress:
    """A bar with the time that is left, judged by the answers that this run waits for and not by the restored ones."""

    def __init__(self, total: int, prices: ClientSettings) -> None:
        interval = 0.2 if sys.stderr.isatty() else 30.0  # seconds; a log file needs no moving picture
        self._bar = tqdm(total=total, desc="annotate", unit="view", smoothing=0, mininterval=interval)
        self._prices = prices

    def __enter__(self) -> "_Progress":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()

    def advance(self, answer: AnnotatorAnswer, dropped: int, took: Counter[str]) -> None:
        """One more answer; ``took`` counts what all of them took."""
        self._bar.initial += answer.restored  # tqdm takes the rate from what came after the initial ones
        tokens = took["input_tokens"], took["output_tokens"]
        state = f"{dropped} dropped"
        if any(tokens):
            state += f", {sum(tokens):,} tokens, {self._prices.cost(*tokens):.2f} {self._prices.currency}"
        self._bar.set_postfix_str(state, refresh=False)
        self._bar.update(1)


def _requests(
    manifest: Manifest, photos_dir: Path, settings: AnnotationSettings
) -> Iterator[tuple[AnnotationRequest, PhotoRecord, Crop]]:
    for record in manifest:
        pixels = reduce(read_photo(photos_dir / record.path).pixels, settings.short_side)
        for index in range(1 + settings.faulty_views):
            view, operations = _recipe(record, index, settings)
            intact = take_crop(pixels, view)
            request = AnnotationRequest(
                id=f"{record.id}#{index:02d}",
                view=faulty(intact, operations),
                intact=intact,
                operations=operations,
                labels=record.labels,
                mos=record.mos if index == 0 else None,
            )
            yield request, record, view


def _recipe(record: PhotoRecord, index: int, settings: AnnotationSettings) -> tuple[Crop, tuple[Operation, ...]]:
    """View 0 is the whole photo, intact; the others are random crops with random faults."""
    if index == 0:
        return Crop(short_side=settings.short_side), ()
    generator = generator_for(settings.seed, record.sha256, "annotation", index)
    view = sample_crop(generator, settings.short_side, settings.smallest_crop)
    operations = sample_faults(generator)
    if float(torch.rand(1, generator=generator)) < settings.degraded:
        operations = (sample_degradation(generator), *operations)
    return view, operations


def _annotated(
    request: AnnotationRequest, record: PhotoRecord, view: Crop, answer: AnnotatorAnswer, annotator: str
) -> AnnotatedPhoto:
    """The accepted annotation; people's opinion of exactly this picture overrides the annotator's score."""
    verdict = answer.verdict
    if verdict is None:
        raise ValueError(f"{request.id}: expected an accepted answer, found a refused one: {answer.reason}")
    if request.mos is not None:
        verdict = verdict.model_copy(update={"score": request.mos})
    return AnnotatedPhoto(
        id=request.id,
        photo_id=record.id,
        path=record.path,
        split=record.split,
        view=view,
        operations=request.operations,
        completion=render(verdict),
        score=verdict.score,
        mos=record.mos,
        annotator=annotator,
    )
