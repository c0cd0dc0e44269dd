"""The part of the held-out samples that is validated on: bounded, stratified, and stable from version to version."""

from collections import Counter

from components.training.held_out import HeldOutSettings, subset

KEYS = [f"photo-{number}" for number in range(1000)]
STRATA = ["rare" if number % 50 == 0 else "even" if number % 2 == 0 else "odd" for number in range(1000)]


def test_all_are_taken_where_there_are_few() -> None:
    assert subset(KEYS[:300], STRATA[:300], HeldOutSettings()) == list(range(300))


def test_every_stratum_has_its_share_and_the_seed_decides() -> None:
    chosen = subset(KEYS, STRATA, HeldOutSettings(samples=100))
    assert Counter(STRATA[index] for index in chosen) == {"odd": 50, "even": 48, "rare": 2}
    assert chosen == sorted(set(chosen)) == subset(KEYS, STRATA, HeldOutSettings(samples=100))
    assert chosen != subset(KEYS, STRATA, HeldOutSettings(samples=100, seed=1))


def test_remainders_are_dealt_out_until_the_number_is_reached() -> None:
    strata = [index % 7 for index in range(1000)]
    for samples in (1, 10, 99, 300):
        chosen = subset(KEYS, strata, HeldOutSettings(samples=samples))
        counts = [sum(strata[index] == stratum for index in chosen) for stratum in range(7)]
        assert len(chosen) == samples and max(counts) - min(counts) <= 1


def test_another_version_is_judged_on_mostly_the_same() -> None:
    """A tenth of the samples is new, in other places: of those chosen at most about a tenth changes."""
    settings = HeldOutSettings(samples=200)
    before = {KEYS[index] for index in subset(KEYS, STRATA, settings)}
    more = [f"new-{number}" for number in range(100)] + KEYS
    strata = ["odd" if number % 2 else "even" for number in range(100)] + STRATA
    after = {more[index] for index in subset(more, strata, settings)}
    assert len(before & after) >= 0.85 * len(before)
