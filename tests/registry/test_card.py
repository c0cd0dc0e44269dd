"""The model card: figures, data with licences, provenance and limits, as they are given."""

from components.data.records import Manifest
from components.evaluation.evaluate import held_out_digest
from components.evaluation.records import Evaluation, EvaluationSettings
from components.evaluation.tables import BootstrapSettings, Interval, summarise
from components.evaluation.verdicts import CriticFigures
from components.registry.card import model_card
from components.registry.package import Provenance
from tests.data.builders import record
from tests.evaluation.test_tables import make_cases

UNIT = Interval(value=0.612, low=0.571, high=0.655)
RECORDS = [record(f"{n}.png", split=split) for n, split in enumerate(("train", "train", "test"))]


def test_the_card_says_what_people_need_to_know() -> None:
    rows = summarise(make_cases(photos=4, views=2), BootstrapSettings(resamples=100))
    evaluation = Evaluation(
        photos=4,
        cases=8,
        held_out="f" * 64,
        settings=EvaluationSettings(),
        rows=rows,
        ratio_to_input=UNIT,
        best_baseline="grey_world",
        ratio_to_best_baseline=UNIT,
        change_of_intact=UNIT,
        critic=CriticFigures(
            parse_rate=UNIT,
            direction_accuracy=UNIT,
            direction_by_operation={},
            faults=16,
            score_correlation=0.7,
            score_correlation_low=0.5,
            score_correlation_high=0.8,
        ),
    )
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
    for row in rows:
        assert f"| {row.method} | {row.measures['ciede2000'].value:.3g}" in card


def test_the_digest_tells_held_out_sets_apart() -> None:
    settings = EvaluationSettings()
    digest = held_out_digest(RECORDS, settings)
    assert digest == held_out_digest(RECORDS[::-1], settings)
    assert digest != held_out_digest(RECORDS[1:], settings)
    for change in ({"views": 2}, {"seed": 1}, {"max_side": 64}, {"split": "validation"}):
        assert digest != held_out_digest(RECORDS, settings.model_copy(update=change))
