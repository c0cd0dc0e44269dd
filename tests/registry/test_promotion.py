"""The promotion gate, against an independent statement of its rule and the situations it exists for."""

import collections
import itertools
import math
import statistics

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from components.metrics.full_reference import LOWER_IS_BETTER
from components.registry.promotion import GateError, GateSettings, decide

SETTINGS = GateSettings(resamples=2000, tolerances={"ciede2000": 0.0, "lpips": 0.005}, limits={})


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


MEASURES = ("ciede2000", "lpips", "psnr", "ssim", "saturation_error")
SCALES = {"ciede2000": 1.0, "lpips": 0.01, "psnr": 1.0, "ssim": 0.02, "saturation_error": 0.1}


def random_gate(generator: np.random.Generator) -> GateSettings:
    names = list(generator.permutation(MEASURES)[: generator.integers(1, 6)])
    return GateSettings(
        primary=str(generator.choice(names)),
        tolerances={str(name): float(generator.choice([0.0, SCALES[name] * generator.gamma(2, 1)])) for name in names},
        limits={},
        confidence=float(generator.choice([0.8, 0.9, 0.95])),
        resamples=100,
        seed=int(generator.integers(100)),
    )


def random_comparison(seed: int) -> tuple[pd.DataFrame, pd.DataFrame, GateSettings]:
    """Two tables with all measures: better, worse or equal by chance, photo by photo and view by view."""
    generator = np.random.default_rng(seed)
    photos, views = int(generator.integers(2, 9)), int(generator.integers(1, 4))
    index = pd.MultiIndex.from_product(
        [[f"photo-{n}" for n in range(photos)], range(views)], names=["photo_id", "view"]
    )
    noise, drift = float(generator.choice([0, 0.3, 1])), float(generator.choice([0, 1, 3]))
    ours, theirs = {}, {}
    for name in MEASURES:
        higher = name in ("psnr", "ssim")
        theirs[name] = generator.gamma(4, 2 * SCALES[name], len(index))
        change = generator.normal(-drift * (0.5 if name != "ciede2000" else 1), 0.5) * SCALES[name]
        ours[name] = theirs[name] + (-change if higher else change)
        ours[name] += generator.normal(0, SCALES[name], len(index)) * noise
    return pd.DataFrame(ours, index), pd.DataFrame(theirs, index), random_gate(generator)


def rule_in_other_words(challenger: pd.DataFrame, reference: pd.DataFrame, gate: GateSettings) -> bool:
    """The rule, restated photo by photo in plain Python with the bootstrap drawn one resample at a time."""
    rows = list(reference.index)
    photos = sorted({row[0] for row in rows})
    generator = np.random.default_rng(gate.seed)
    draws = generator.integers(len(photos), size=(gate.resamples, len(photos))).tolist()
    worst = {}
    for metric in gate.tolerances:
        sign = -1 if metric in ("psnr", "ssim") else 1
        worse: dict[str, list[float]] = {photo: [] for photo in photos}
        for row, new, old in zip(rows, challenger[metric].tolist(), reference[metric].tolist(), strict=True):
            worse[row[0]].append(sign * (new - old))
        worst[metric] = upper_end([math.fsum(worse[photo]) / len(worse[photo]) for photo in photos], draws, gate)
    return worst[gate.primary] < 0 and all(worst[name] <= limit for name, limit in gate.tolerances.items())


def upper_end(by_photo: list[float], draws: list[list[int]], gate: GateSettings) -> float:
    """Upper end of the BCa interval of a mean (Efron and Tibshirani 1993, equations 14.9 to 14.15), widened."""
    photos, normal = len(by_photo), statistics.NormalDist()
    mean = sum(by_photo) / photos
    if max(by_photo) - min(by_photo) < 1e-12:
        return mean
    means = sorted(sum(by_photo[i] for i in draw) / photos for draw in draws)
    below, level = sum(value < mean for value in means), sum(value == mean for value in means)
    bias = normal.inv_cdf((below + level / 2) / len(means))
    offsets = [value - mean for value in by_photo]
    acceleration = math.fsum(d**3 for d in offsets) / 6 / math.fsum(d**2 for d in offsets) ** 1.5
    tail = (1 - gate.confidence) / 2
    widened = normal.cdf(-math.sqrt(photos / (photos - 1)) * stats.t.isf(tail, photos - 1))
    up = bias - normal.inv_cdf(max(widened, min(tail, 1 / len(means))))
    position = (len(means) - 1) * normal.cdf(bias + up / (1 - acceleration * up))
    left = math.floor(position)
    right = min(left + 1, len(means) - 1)
    return means[left] + (position - left) * (means[right] - means[left])


@pytest.mark.slow
def test_hundreds_of_random_tables_agree_with_the_rule_restated() -> None:
    outcomes = collections.Counter()
    for seed in range(400):
        challenger, reference, gate = random_comparison(seed)
        decided = decide(challenger, reference, gate).promoted
        assert decided == rule_in_other_words(challenger, reference, gate), (
            f"they disagree on the tables of seed {seed}"
        )
        outcomes[decided] += 1
    assert min(outcomes[True], outcomes[False]) > 50, f"the tables hardly test one of the outcomes: {outcomes}"


def test_falling_is_worse_where_higher_is_better() -> None:
    reference = table([10, 12, 9, 11], [0.2, 0.3, 0.25, 0.2]).rename(columns={"lpips": "psnr"})
    gate = GateSettings(resamples=200, tolerances={"ciede2000": 0.0, "psnr": 0.5}, limits={})
    assert decide(reference * [0.8, 1.0] + [0.0, 9.0], reference, gate).promoted
    decision = decide(reference * [0.8, 1.0] - [0.0, 0.6], reference, gate)
    assert not decision.promoted
    assert decision.reasons[0].startswith("psnr") and "beyond the tolerance of -0.5" in decision.reasons[0]


def test_every_measure_of_an_evaluation_has_a_limit() -> None:
    gate = GateSettings()
    assert set(gate.tolerances) == set(LOWER_IS_BETTER)
    assert set(gate.limits) == {"intact_change"}
    assert set(gate.higher_is_better) == {name for name, lower in LOWER_IS_BETTER.items() if not lower}


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


@pytest.mark.parametrize(("change", "promoted"), [(3.9, True), (4.1, False)])
def test_a_model_that_harms_good_photos_is_not_promoted(change: float, promoted: bool) -> None:
    gate = SETTINGS.model_copy(update={"limits": {"intact_change": 4.0}})
    reference = table([10, 12, 9, 11], [0.2, 0.3, 0.25, 0.2])
    challenger = (reference * [0.5, 1.0]).assign(intact_change=[change, 8 - change, change, change])
    means = challenger.intact_change.mean()
    decision = decide(challenger, reference, gate)
    assert decision.promoted == promoted == (means <= 4)
    said = f"intact_change is {means:.4g}, {'within' if promoted else 'above'} the limit of 4"
    assert said in decision.reasons
    assert (decision.reasons[0] == said) == (not promoted), "what is broken comes first"
    with pytest.raises(GateError, match=r"the table of challenger lacks \['intact_change'\]"):
        decide(reference, reference, gate)


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
        GateSettings(primary="speed")
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
