"""The Critic's figures: directions by hand-made verdicts, correlation against scipy."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr

from components.evaluation.critic_accuracy import critic_figures, directions
from components.metrics.tables import BootstrapSettings
from components.photometry.operations import TONE, Operation
from components.verdict.grammar import Suggestion, Verdict, suggest

SETTINGS = BootstrapSettings(resamples=200)


def verdict(*suggestions: Suggestion) -> Verdict:
    return Verdict(reasoning=("a", "b", "c", "d", "e"), suggestions=suggestions, score=50.0)


def fault(name: str, amount: float) -> Operation:
    return Operation(name=name, amount=amount)


def test_the_opposite_of_the_fault_is_right() -> None:
    faults = (fault("exposure", -0.8), fault("temperature", 40), fault("noise", 0.05))
    said = verdict(suggest("exposure", 0.7), suggest("temperature", 30), suggest("saturation", 0.5))
    assert directions(said, faults) == {"exposure": True, "temperature": False}


def test_an_unnamed_fault_and_a_verdict_that_does_not_parse_are_wrong() -> None:
    assert directions(verdict(), (fault("contrast", 0.5),)) == {"contrast": False}
    assert directions(None, (fault("contrast", 0.5),)) == {"contrast": False}
    assert directions(None, ()) == {}


def test_contradictory_suggestions_cancel() -> None:
    said = verdict(suggest("exposure", 0.5), suggest("exposure", -0.5))
    assert directions(said, (fault("exposure", -0.8),)) == {"exposure": False}


def make_verdicts(noise: float, photos: int = 10, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    rows = []
    for photo in range(photos):
        for view in range(-1, 3):
            size = 0.0 if view < 0 else rng.uniform(3, 20)
            row = {"photo_id": f"p{photo}", "view": view, "parsed": True, "fault_size": size}
            row |= {"score": 100 - 4 * size + noise * rng.normal()}
            row |= {f"right_{name}": np.nan for name in TONE}
            if view >= 0:
                row["right_exposure"] = float(view > 0)
                row["right_contrast"] = 1.0
            rows.append(row)
    return pd.DataFrame(rows)


def test_figures_of_made_up_verdicts() -> None:
    table = make_verdicts(noise=15.0)
    figures = critic_figures(table, SETTINGS)
    assert figures.parse_rate.value == 1
    assert figures.faults == 60
    assert figures.direction_accuracy.value == pytest.approx(5 / 6)
    assert figures.direction_by_operation == pytest.approx({"exposure": 2 / 3, "contrast": 1.0})
    expected = spearmanr(table.score, -table.fault_size).statistic
    assert figures.score_correlation == pytest.approx(expected)
    assert figures.score_correlation_low < expected < figures.score_correlation_high


def test_a_perfect_score_ranks_perfectly_and_a_constant_one_not_at_all() -> None:
    table = make_verdicts(noise=0.0)
    assert critic_figures(table, SETTINGS).score_correlation == pytest.approx(1)
    assert critic_figures(table.assign(score=70.0), SETTINGS).score_correlation == 0


def test_outputs_that_do_not_parse_count_against_the_critic() -> None:
    table = make_verdicts(noise=0.0)
    table.loc[table["view"] == 0, ["parsed", "score"]] = [False, np.nan]
    figures = critic_figures(table, SETTINGS)
    assert figures.parse_rate.value == pytest.approx(0.75)
    assert figures.score_correlation < 0.95  # of all that parse: 1
