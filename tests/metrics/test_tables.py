"""Tables: means over photos, cluster bootstrap against scipy's, pairing, and what the gate receives."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from components.metrics.full_reference import LOWER_IS_BETTER
from components.metrics.tables import (
    INPUT,
    OURS,
    BootstrapSettings,
    best_baseline,
    bootstrap_mean,
    difference_interval,
    gate_table,
    mean_interval,
    ratio_interval,
    read_cases,
    summarise,
    write_cases,
)
from components.registry.promotion import GateSettings, decide
from tests.evaluation.builders import make_cases

SETTINGS = BootstrapSettings(resamples=20_000)


@pytest.fixture
def cases() -> pd.DataFrame:
    return make_cases()


def by_photo(cases: pd.DataFrame, method: str) -> np.ndarray:
    return cases[cases.method == method].groupby("photo_id").ciede2000.mean().to_numpy()


def widened(photos: int) -> float:
    """The level of Hesterberg (2015), section 4.3, for 95%, from scipy's distributions."""
    return 1 - 2 * stats.norm.cdf(-((photos / (photos - 1)) ** 0.5) * stats.t.ppf(0.975, photos - 1))


def test_the_interval_of_a_mean_is_the_bca_bootstrap_over_photos(cases: pd.DataFrame) -> None:
    interval = mean_interval(cases[cases.method == OURS], "ciede2000", SETTINGS)
    values = by_photo(cases, OURS)
    reference = stats.bootstrap((values,), np.mean, n_resamples=20_000, confidence_level=widened(12), rng=1)
    assert interval.value == pytest.approx(values.mean())
    assert interval.low == pytest.approx(reference.confidence_interval.low, rel=0.01)
    assert interval.high == pytest.approx(reference.confidence_interval.high, rel=0.01)


def test_ratio_and_difference_are_paired(cases: pd.DataFrame) -> None:
    ours, theirs = by_photo(cases, OURS), by_photo(cases, INPUT)
    ratio = ratio_interval(cases, OURS, INPUT, SETTINGS)
    statistic = lambda a, b, axis: a.mean(axis) / b.mean(axis)  # noqa: E731
    reference = stats.bootstrap(
        (ours, theirs), statistic, paired=True, n_resamples=20_000, confidence_level=widened(12), rng=1
    ).confidence_interval
    assert ratio.value == pytest.approx(ours.mean() / theirs.mean())
    assert (ratio.low, ratio.high) == pytest.approx((reference.low, reference.high), rel=0.01)
    difference = difference_interval(cases, OURS, INPUT, SETTINGS)
    reference = stats.bootstrap((ours - theirs,), np.mean, n_resamples=20_000, confidence_level=widened(12), rng=1)
    assert difference.value == pytest.approx((ours - theirs).mean())
    assert difference.high == pytest.approx(reference.confidence_interval.high, rel=0.02)
    assert difference.high < 0


@pytest.mark.parametrize(
    ("shape", "least"), [pytest.param(None, 0.93, id="normal"), pytest.param(1.0, 0.9, id="skewed: exponential")]
)
def test_intervals_of_ten_photos_hold_the_mean_about_as_often_as_they_say(shape: float | None, least: float) -> None:
    """Of percentile intervals 90% would (of exponential values 86%)."""
    generator, settings = np.random.default_rng(1), BootstrapSettings()
    sets = generator.normal(1, 1, (500, 10)) if shape is None else generator.gamma(shape, 1, (500, 10))
    intervals = [bootstrap_mean(values, settings) for values in sets]
    assert least < np.mean([interval.low <= 1 <= interval.high for interval in intervals]) < 0.98


@pytest.mark.parametrize("value", [0.0, -0.2, 1e6 / 3])
@pytest.mark.parametrize("photos", [1, 2, 3, 10])
def test_photos_that_are_all_alike_have_an_interval_of_that_value(value: float, photos: int) -> None:
    interval = bootstrap_mean(np.full(photos, value), BootstrapSettings())
    assert (interval.value, interval.low, interval.high) == pytest.approx((value,) * 3, rel=1e-12)


@pytest.mark.parametrize("confidence", [0.6, 0.95, 0.999])
@pytest.mark.parametrize("resamples", [100, 5000])
@pytest.mark.parametrize("values", [(1.0, 3.0), (1.0, 1.0, 4.0), (0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 9.0)])
def test_intervals_of_few_photos_lie_within_the_photos(
    values: tuple[float, ...], resamples: int, confidence: float
) -> None:
    interval = bootstrap_mean(np.array(values), BootstrapSettings(resamples=resamples, confidence=confidence))
    assert min(values) <= interval.low < interval.value < interval.high <= max(values)


def test_the_seed_alone_decides_the_interval() -> None:
    values = np.random.default_rng(0).gamma(1, 1, 3000)  # more than one batch of resamples
    one, again = (bootstrap_mean(values, BootstrapSettings(resamples=2000, seed=3)) for _ in range(2))
    other = bootstrap_mean(values, BootstrapSettings(resamples=2000, seed=4))
    assert one == again != other


def test_more_views_of_the_same_photos_do_not_fake_certainty() -> None:
    few = mean_interval(make_cases(views=2).query("method == 'input'"), "ciede2000", SETTINGS)
    many = mean_interval(make_cases(views=40).query("method == 'input'"), "ciede2000", SETTINGS)
    assert (many.high - many.low) > 0.7 * (few.high - few.low)


def test_photos_count_equally_however_many_views_they_have(cases: pd.DataFrame) -> None:
    thinned = cases[(cases.photo_id != "p0") | (cases["view"] == 0)]
    expected = by_photo(thinned, OURS).mean()
    assert mean_interval(thinned[thinned.method == OURS], "ciede2000", SETTINGS).value == pytest.approx(expected)


def test_the_summary_has_a_row_a_method_in_order(cases: pd.DataFrame) -> None:
    rows = summarise(cases, BootstrapSettings(resamples=100))
    assert [row.method for row in rows] == [INPUT, OURS, "clahe", "grey_world"]
    assert set(rows[0].measures) == set(LOWER_IS_BETTER)
    assert rows[0].ratio_to_input.value == rows[0].ratio_to_input.high == 1
    assert rows[1].ratio_to_input.value == pytest.approx(0.6, rel=0.05)


def test_the_best_baseline_is_the_one_with_the_lowest_error(cases: pd.DataFrame) -> None:
    assert best_baseline(cases, ["clahe", "grey_world"]) == "grey_world"
    with pytest.raises(ValueError, match="'unsharp_mask' is not in the table"):
        best_baseline(cases, ["unsharp_mask"])


def test_the_gate_can_compare_two_tables() -> None:
    cases = make_cases(intact_change=1.5)
    settings = GateSettings(tolerances={"ciede2000": 0.0, "lpips": 1.0}, limits={"intact_change": 1.6}, resamples=1000)
    assert decide(gate_table(cases), gate_table(cases, INPUT), settings).promoted
    assert not decide(gate_table(cases), gate_table(cases), settings).promoted
    table = gate_table(cases)
    assert list(table.columns) == [*LOWER_IS_BETTER, "intact_change"]
    assert len(table) == 12 * 3, "the intact view is no case of its own"
    assert (table.intact_change == 1.5).all()
    assert (gate_table(cases, INPUT).intact_change == 0).all()


def test_methods_on_other_cases_are_not_compared(cases: pd.DataFrame) -> None:
    incomplete = cases.drop(cases.index[(cases.method == OURS) & (cases["view"] == 1)])
    with pytest.raises(ValueError, match="not measured on the same cases"):
        ratio_interval(incomplete, OURS, INPUT, SETTINGS)


def test_tables_survive_the_disk(cases: pd.DataFrame, tmp_path: Path) -> None:
    write_cases(cases, tmp_path / "new" / "cases.parquet")
    pd.testing.assert_frame_equal(read_cases(tmp_path / "new" / "cases.parquet"), cases, check_dtype=False)
    write_cases(cases.drop(columns="lpips"), tmp_path / "odd.parquet")
    with pytest.raises(ValueError, match=r"missing columns: \['lpips'\]"):
        read_cases(tmp_path / "odd.parquet")
    with pytest.raises(FileNotFoundError, match="run the evaluation first"):
        read_cases(tmp_path / "none.parquet")
