"""The promotion gate, against an independent statement of its rule and the situations it exists for."""

import itertools
import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from components.registry.promotion import GateError, GateSettings, decide

SETTINGS = GateSettings(resamples=2000)


def table(ciede2000: list[float], lpips: list[float], views: int = 1) -> pd.DataFrame:
    """One row for each photo and view; values are given photo by photo."""
    photos = len(ciede2000) // views
    index = pd.MultiIndex.from_product(
        [[f"photo-{n}" for n in range(photos)], range(views)], names=["photo_id", "view"]
    )
    return pd.DataFrame({"ciede2000": ciede2000, "lpips": lpips}, index=index)


def random_tables(seed: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    generator = np.random.default_rng(seed)
    photos, views = int(generator.integers(2, 12)), int(generator.integers(1, 4))
    size = photos * views
    reference = table(list(generator.gamma(4, 2, size)), list(generator.gamma(2, 0.1, size)), views)
    shift = generator.normal(0, 1.5), generator.normal(0, 0.01)
    noise = generator.normal(0, 1, (size, 2)) * [generator.gamma(1, 1), 0.01 * generator.gamma(1, 1)]
    return reference + noise + np.array(shift), reference


def rule_in_other_words(challenger: pd.DataFrame, reference: pd.DataFrame) -> bool:
    """The rule, restated photo by photo in plain Python with the bootstrap drawn one resample at a time."""
    photos = sorted(set(reference.index.get_level_values("photo_id")))
    upper = {}
    for metric in SETTINGS.tolerances:
        changes = []
        for photo in photos:
            rows = [row for row in reference.index if row[0] == photo]
            values = [challenger.at[row, metric] - reference.at[row, metric] for row in rows]
            changes.append(math.fsum(values) / len(values))
        generator = np.random.default_rng(SETTINGS.seed)
        draws = generator.integers(len(photos), size=(SETTINGS.resamples, len(photos)))
        means = sorted(math.fsum(changes[i] for i in draw) / len(photos) for draw in draws)
        position = (len(means) - 1) * (1 + SETTINGS.confidence) / 2
        below = math.floor(position)
        upper[metric] = means[below] + (position - below) * (means[min(below + 1, len(means) - 1)] - means[below])
    return upper["ciede2000"] < 0 and all(upper[name] <= limit for name, limit in SETTINGS.tolerances.items())


@pytest.mark.parametrize("seed", range(25))
def test_agrees_with_the_rule_restated(seed: int) -> None:
    challenger, reference = random_tables(seed)
    assert decide(challenger, reference, SETTINGS).promoted == rule_in_other_words(challenger, reference)


def test_the_random_tables_exercise_both_outcomes() -> None:
    outcomes = {decide(*random_tables(seed), SETTINGS).promoted for seed in range(25)}
    assert outcomes == {True, False}


def test_the_interval_is_close_to_students_for_many_photos() -> None:
    generator = np.random.default_rng(1)
    reference = table(list(generator.gamma(4, 2, 200)), [0.2] * 200)
    challenger = reference.copy()
    challenger["ciede2000"] += generator.normal(-0.5, 1, 200)
    change = (challenger - reference)["ciede2000"]
    expected = stats.t.interval(0.95, 199, change.mean(), stats.sem(change))
    item = decide(challenger, reference, SETTINGS).comparisons[0]
    assert (item.low, item.high) == pytest.approx(expected, abs=0.03)
    assert item.change == pytest.approx(change.mean())


def test_surely_better_is_promoted() -> None:
    reference = table([10, 12, 9, 11], [0.2, 0.3, 0.25, 0.2])
    decision = decide(reference * 0.8, reference, SETTINGS)
    assert decision.promoted
    assert decision.photos == 4


def test_the_same_model_is_not_promoted_over_itself() -> None:
    reference = table([10, 12, 9, 11], [0.2, 0.3, 0.25, 0.2])
    decision = decide(reference, reference, SETTINGS)
    assert not decision.promoted
    assert "not surely better" in decision.reasons[0]


def test_better_on_average_but_not_surely_is_not_promoted() -> None:
    reference = table([10, 12, 9, 11], [0.2, 0.2, 0.2, 0.2])
    challenger = reference.copy()
    challenger["ciede2000"] += [-9, 2, 2, 2]
    assert not decide(challenger, reference, SETTINGS).promoted


def test_better_colour_at_the_price_of_perception_is_not_promoted() -> None:
    reference = table([10, 12, 9, 11], [0.2, 0.3, 0.25, 0.2])
    challenger = reference * [0.8, 1.0] + [0.0, 0.02]
    decision = decide(challenger, reference, SETTINGS)
    assert not decision.promoted
    assert decision.reasons[0].startswith("lpips")
    assert "beyond the tolerance" in decision.reasons[0]


def test_a_rise_within_the_tolerance_is_forgiven() -> None:
    reference = table([10, 12, 9, 11], [0.2, 0.3, 0.25, 0.2])
    assert decide(reference * [0.8, 1.0] + [0.0, 0.004], reference, SETTINGS).promoted


def test_views_of_one_photo_do_not_count_as_photos() -> None:
    """One photo got much better in many views, three got slightly worse: not surely better over photos."""
    views = 20
    reference = table([10.0] * 4 * views, [0.2] * 4 * views, views)
    challenger = reference.copy()
    challenger["ciede2000"] += np.repeat([-4.0, 0.5, 0.5, 0.5], views)
    decision = decide(challenger, reference, SETTINGS)
    assert decision.photos == 4
    assert not decision.promoted


def test_the_order_of_rows_does_not_matter() -> None:
    challenger, reference = random_tables(3)
    shuffled = reference.sample(frac=1, random_state=0), challenger.sample(frac=1, random_state=1)
    assert decide(challenger, reference, SETTINGS) == decide(shuffled[1], shuffled[0], SETTINGS)


def test_other_views_are_refused() -> None:
    challenger, reference = random_tables(0)
    with pytest.raises(GateError, match="different views"):
        decide(challenger, reference.iloc[1:], SETTINGS)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_values_that_are_not_numbers_are_refused(bad: float) -> None:
    challenger, reference = random_tables(0)
    challenger.iloc[0, 1] = bad
    with pytest.raises(GateError, match=r"lpips.*not a finite number"):
        decide(challenger, reference, SETTINGS)


def test_a_missing_error_is_refused() -> None:
    challenger, reference = random_tables(0)
    with pytest.raises(GateError, match=r"lacks \['lpips'\]"):
        decide(challenger, reference.drop(columns="lpips"), SETTINGS)


def test_repeated_and_empty_tables_are_refused() -> None:
    challenger, reference = random_tables(0)
    with pytest.raises(GateError, match="more than once"):
        decide(pd.concat([challenger, challenger.iloc[:1]]), reference, SETTINGS)
    with pytest.raises(GateError, match="empty"):
        decide(challenger.iloc[:0], reference.iloc[:0], SETTINGS)


def test_settings_that_contradict_themselves_are_refused() -> None:
    with pytest.raises(ValueError, match="expected one of the tolerances"):
        GateSettings(primary="psnr")
    with pytest.raises(ValueError, match="negative"):
        GateSettings(tolerances={"ciede2000": 0.0, "lpips": -0.1})


def test_every_error_is_named_in_the_reasons() -> None:
    challenger, reference = random_tables(5)
    reasons = " ".join(decide(challenger, reference, SETTINGS).reasons)
    assert all(name in reasons for name in SETTINGS.tolerances)


def test_decisions_survive_json() -> None:
    for seed, kind in itertools.product(range(3), ("python", "json")):
        decision = decide(*random_tables(seed), SETTINGS)
        assert type(decision).model_validate(decision.model_dump(mode=kind)) == decision
