"""The model card: figures, data with licences, provenance and limits, as they are given."""

from components.data.records import Manifest
from components.evaluation.evaluate import held_out_digest
from components.evaluation.records import EvaluationSettings
from components.models.package import Provenance
from components.registry.card import model_card
from tests.data.builders import record
from tests.evaluation.builders import make_evaluation

RECORDS = [record(f"{n}.png", split=split) for n, split in enumerate(("train", "train", "test"))]


def test_the_card_says_what_people_need_to_know() -> None:
    evaluation = make_evaluation(held_out="f" * 64)
    provenance = Provenance(data_revision="d" * 32, code_revision="c" * 40, pipeline_run="training-1")
    card = model_card(evaluation, Manifest.of(RECORDS), provenance)
    for words in (
        "d" * 32,
        "c" * 40,
        "training-1",
        "f" * 64,
        "3 photos: 1 test, 2 train",
        f"licences: {RECORDS[0].licence} (3)",
        "0.612 (0.571 to 0.655)",
        "## Limits",
    ):
        assert words in card
    for row in evaluation.rows:
        assert f"| {row.method} | {row.measures['ciede2000'].value:.3g}" in card


def test_the_digest_tells_held_out_sets_apart() -> None:
    settings = EvaluationSettings()
    digest = held_out_digest(RECORDS, settings)
    assert digest == held_out_digest(RECORDS[::-1], settings)
    assert digest != held_out_digest(RECORDS[1:], settings)
    for change in ({"views": 2}, {"seed": 1}, {"max_side": 64}, {"split": "validation"}):
        assert digest != held_out_digest(RECORDS, settings.model_copy(update=change))
