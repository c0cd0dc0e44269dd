"""kill -9 in the middle of annotation: nothing is lost, nothing that is recorded is asked for again."""

from pathlib import Path

import pytest

from benchmarks.annotation import kill_rows
from benchmarks.annotation_kills import run_kill_trial

pytestmark = pytest.mark.slow


def test_two_kills_leave_every_photo_annotated_exactly_once(tmp_path: Path) -> None:
    trial = run_kill_trial(tmp_path, photos=30, kills=2, seed=3)
    assert trial.kills == 2 and all(0 <= moment < 30 for moment in trial.moments)
    assert trial.once == trial.photos == 30
    assert trial.asked_again == trial.lost == 0
    assert 30 <= trial.requests <= 30 + trial.in_flight
    rows = kill_rows(trial)
    assert all(row.ok for row in rows) and rows[0].ratio == 1.0
    assert not kill_rows(trial._replace(once=29))[0].ok
    assert not kill_rows(trial._replace(lost=1))[1].ok
    assert not kill_rows(trial._replace(asked_again=1))[2].ok
    assert not kill_rows(trial._replace(requests=39))[3].ok


def test_too_few_photos_for_the_kills_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least 40 photos"):
        run_kill_trial(tmp_path, photos=20, kills=10, seed=0)
