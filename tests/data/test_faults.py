"""The distribution of faults: how many, which, how strong and which way, as the module's table says."""

from collections import Counter
from itertools import combinations

import pytest
import torch
from scipy.stats import chisquare, kstest

from components.data.faults import COUNT_PROBABILITIES, SEVERITY, sample_amounts, sample_faults
from components.photometry.operations import KINDS, TONE

COUNT = 20_000


def draw(seed: int = 0, **settings: float) -> torch.Tensor:
    return sample_amounts(COUNT, torch.Generator().manual_seed(seed), **settings).double()


def test_one_to_three_faults_come_together() -> None:
    number = (draw() != 0).sum(dim=1)
    observed = [int((number == count).sum()) for count in (1, 2, 3)]
    assert sum(observed) == COUNT
    assert chisquare(observed, [COUNT * p for p in COUNT_PROBABILITIES]).pvalue > 1e-3


def test_every_combination_is_as_likely_as_any_other() -> None:
    present = draw() != 0
    for count in (1, 2, 3):
        rows = Counter(map(tuple, present[present.sum(dim=1) == count].tolist()))
        assert len(rows) == len(list(combinations(TONE, count)))
        assert chisquare(list(rows.values())).pvalue > 1e-3


@pytest.mark.parametrize(("column", "name"), enumerate(TONE))
def test_amounts_are_uniform_between_visible_and_severe_either_way(column: int, name: str) -> None:
    amounts = draw()[:, column]
    amounts = amounts[amounts != 0]
    low, high = SEVERITY[name]
    magnitude = amounts.abs()
    assert magnitude.min() >= low * (1 - 1e-6) and magnitude.max() <= high * (1 + 1e-6)
    assert kstest(magnitude.numpy(), "uniform", (low, high - low)).pvalue > 1e-3
    positive = int((amounts > 0).sum())
    assert chisquare([positive, len(amounts) - positive]).pvalue > 1e-3


def test_amounts_of_different_faults_are_independent() -> None:
    amounts = draw()
    both = (amounts[:, 0] != 0) & (amounts[:, 2] != 0)
    assert abs(torch.corrcoef(amounts[both][:, [0, 2]].T)[0, 1]) < 0.04


def test_a_share_of_photos_stays_intact() -> None:
    intact = int((draw(intact=0.25) == 0).all(dim=1).sum())
    assert chisquare([intact, COUNT - intact], [COUNT / 4, COUNT * 3 / 4]).pvalue > 1e-3
    assert (draw(intact=1.0) == 0).all()


def test_faults_of_one_photo_are_operations_in_order() -> None:
    generator = torch.Generator().manual_seed(0)
    for _ in range(50):
        faults = sample_faults(generator)
        names = [operation.name for operation in faults]
        assert 1 <= len(names) <= 3 and names == [name for name in TONE if name in names]
        for operation in faults:
            low, high = SEVERITY[operation.name]
            assert low - 1e-4 <= abs(operation.amount) <= high + 1e-4
            assert KINDS[operation.name].low <= operation.amount <= KINDS[operation.name].high
            assert operation.amount == round(operation.amount, 4)
    assert sample_faults(generator, intact=1.0) == ()


def test_draws_come_from_the_generator_alone() -> None:
    before = torch.get_rng_state()
    assert torch.equal(draw(1), draw(1)) and not torch.equal(draw(1), draw(2))
    assert sample_faults(torch.Generator().manual_seed(1)) == sample_faults(torch.Generator().manual_seed(1))
    assert torch.equal(torch.get_rng_state(), before)
