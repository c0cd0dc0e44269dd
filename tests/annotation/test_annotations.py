"""Annotation: recorded views, verdicts in the grammar, opinion scores kept, contradictions dropped and counted."""

import json
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from components.annotation.annotations import AnnotationReport, AnnotationSettings, annotate, build_annotator
from components.annotation.annotators import AnnotationRequest, AnnotatorAnswer, OfflineAnnotator
from components.annotation.client import ClientSettings, OpenAICompatibleAnnotator
from components.annotation.records import read_annotations, render_view
from components.data.records import Manifest
from components.imaging.photo import read_photo
from components.photometry.operations import inverse
from components.verdict.grammar import parse

SETTINGS = AnnotationSettings(short_side=24, faulty_views=4, degraded=0.5)


class Remembering:
    """The offline annotator, keeping the views it was shown and changing its answers as told."""

    name = "remembering"

    def __init__(self, change: Callable[[AnnotatorAnswer], AnnotatorAnswer] = lambda answer: answer) -> None:
        self.views: dict[str, torch.Tensor] = {}
        self.change = change

    def annotate(self, requests: Iterable[AnnotationRequest], receive: Callable[[AnnotatorAnswer], None]) -> None:
        held = list(requests)
        self.views = {request.id: request.view for request in held}
        OfflineAnnotator().annotate(reversed(held), lambda answer: receive(self.change(answer)))


def run(manifest: Manifest, photos_dir: Path, out: Path, annotator: object) -> AnnotationReport:
    return annotate(manifest, photos_dir, out, SETTINGS, annotator)


def test_a_single_view_is_reported_like_many(manifest: Manifest, photos_dir: Path, tmp_path: Path) -> None:
    alone, settings = Manifest.of(list(manifest)[:1]), SETTINGS.model_copy(update={"faulty_views": 0})
    report = annotate(alone, photos_dir, tmp_path, settings, OfflineAnnotator())
    assert (report.annotated, report.restored, report.repaired) == (1, 0, 0)


def test_views_rebuild_bit_for_bit_whatever_the_order_of_answers(
    manifest: Manifest, photos_dir: Path, tmp_path: Path
) -> None:
    annotator = Remembering()
    report = run(manifest, photos_dir, tmp_path / "a", annotator)
    entries = read_annotations(tmp_path / "a")
    assert report.annotated == len(entries) == 6 * 5 and not report.dropped
    assert [entry.id for entry in entries] == sorted(entry.id for entry in entries)
    for entry in entries:
        assert torch.equal(render_view(read_photo(photos_dir / entry.path), entry), annotator.views[entry.id])
    run(manifest, photos_dir, tmp_path / "b", Remembering())
    assert (tmp_path / "a" / "annotations.jsonl").read_bytes() == (tmp_path / "b" / "annotations.jsonl").read_bytes()


def test_verdicts_undo_the_recorded_faults(manifest: Manifest, photos_dir: Path, tmp_path: Path) -> None:
    run(manifest, photos_dir, tmp_path, OfflineAnnotator())
    entries = read_annotations(tmp_path)
    for entry in entries:
        verdict = parse(entry.completion)
        assert verdict.score == entry.score
        suggested = {suggestion.operation: suggestion.amount for suggestion in verdict.suggestions}
        assert suggested.keys() == {operation.name for operation in entry.operations}
        for operation in entry.operations:
            if suggested[operation.name] is not None:
                assert suggested[operation.name] * inverse(operation).amount > 0
    assert any(operation.name == "noise" or operation.seed for entry in entries for operation in entry.operations)
    assert all((not entry.operations) == entry.id.endswith("#00") for entry in entries)


def test_the_opinion_of_people_replaces_the_score_of_the_rated_picture_only(
    manifest: Manifest, photos_dir: Path, tmp_path: Path
) -> None:
    def flatter(answer: AnnotatorAnswer) -> AnnotatorAnswer:
        return AnnotatorAnswer(answer.id, answer.verdict.model_copy(update={"score": 99.0}))

    run(manifest, photos_dir, tmp_path, Remembering(flatter))
    rated = [entry for entry in read_annotations(tmp_path) if entry.mos is not None]
    assert len(rated) == 5 and {entry.mos for entry in rated} == {71.5}
    assert [entry.score for entry in rated] == [71.5, 99.0, 99.0, 99.0, 99.0]
    assert parse(rated[0].completion).score == 71.5


def test_contradictions_and_missing_answers_are_dropped_and_counted(
    manifest: Manifest, photos_dir: Path, tmp_path: Path
) -> None:
    def disturb(answer: AnnotatorAnswer) -> AnnotatorAnswer:
        if answer.id.endswith("#01"):
            return AnnotatorAnswer(answer.id, None, "not in the grammar", 10, 5)
        if answer.id.endswith("#02"):
            return AnnotatorAnswer(
                answer.id, answer.verdict.model_copy(update={"suggestions": (), "reasoning": ("fine",) * 5})
            )
        return answer

    report = run(manifest, photos_dir, tmp_path, Remembering(disturb))
    assert report.annotated == 18
    assert (report.requests, report.restored, report.cost, report.currency) == (0, 0, 0.0, "USD")
    assert report.dropped == {"not in the grammar": 6, "overlooked": 6}
    assert (report.input_tokens, report.output_tokens) == (60, 30)
    lines = [json.loads(line) for line in (tmp_path / "dropped.jsonl").read_text().splitlines()]
    assert len(lines) == 12 and {line["id"][-3:] for line in lines} == {"#01", "#02"}
    assert all(line["reason"].startswith("overlooked: ") for line in lines if line["id"].endswith("#02"))
    assert json.loads((tmp_path / "report.json").read_text())["annotated"] == 18


def test_what_the_answers_took_is_added_up_and_priced(
    manifest: Manifest, photos_dir: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    def take(answer: AnnotatorAnswer) -> AnnotatorAnswer:
        return replace(
            answer, input_tokens=1000, output_tokens=100, requests=2, repaired=True, restored=answer.id.endswith("#00")
        )

    client = ClientSettings(input_price=2.0, output_price=30.0, currency="EUR")
    settings = SETTINGS.model_copy(update={"client": client})
    report = annotate(manifest, photos_dir, tmp_path, settings, Remembering(take))
    assert (report.restored, report.repaired, report.requests) == (6, 30, 60)
    assert (report.input_tokens, report.output_tokens) == (30_000, 3_000)
    assert report.cost == pytest.approx(0.06 + 0.09) and report.currency == "EUR"
    assert AnnotationReport.model_validate_json((tmp_path / "report.json").read_text()) == report
    shown = capfd.readouterr().err
    assert "annotate: 100%" in shown and "30/30" in shown and "33,000 tokens, 0.15 EUR" in shown


def test_when_nothing_is_usable_that_is_an_error(manifest: Manifest, photos_dir: Path, tmp_path: Path) -> None:
    annotator = Remembering(lambda answer: AnnotatorAnswer(answer.id, None, "not in the grammar"))
    with pytest.raises(ValueError, match=r"not in the grammar.*remembering"):
        run(manifest, photos_dir, tmp_path, annotator)
    with pytest.raises(FileNotFoundError, match="annotate"):
        read_annotations(tmp_path)


def test_reading_one_split(manifest: Manifest, photos_dir: Path, tmp_path: Path) -> None:
    run(manifest, photos_dir, tmp_path, OfflineAnnotator())
    train = {record.id for record in manifest if record.split == "train"}
    assert {entry.photo_id for entry in read_annotations(tmp_path, "train")} == train


def test_the_annotator_is_a_matter_of_configuration(tmp_path: Path) -> None:
    assert isinstance(build_annotator(AnnotationSettings(), tmp_path / "j"), OfflineAnnotator)
    client = build_annotator(AnnotationSettings(annotator="openai"), tmp_path / "j")
    assert isinstance(client, OpenAICompatibleAnnotator) and client.name == "Qwen/Qwen2.5-VL-72B-Instruct"
