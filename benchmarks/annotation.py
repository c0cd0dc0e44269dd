"""Ten kills: annotation is killed with SIGKILL at ten random moments, and every photo is annotated exactly once.

The section "annotation" of `benchmarks.data`.
"""

import tempfile
from pathlib import Path

from benchmarks.annotation_kills import KillTrial, run_kill_trial
from benchmarks.main import BenchmarkRow


def kill_rows(trial: KillTrial) -> list[BenchmarkRow]:
    """The figures of a trial: annotated exactly once, nothing lost, nothing recorded asked again."""
    after = f"after {trial.kills} kill -9"
    cut_off = trial.requests - trial.photos
    return [
        BenchmarkRow(
            name=f"annotation: photos annotated exactly once {after}",
            value=trial.once,
            unit="photos",
            peer=trial.photos,
            ratio=trial.once / trial.photos,
            target="ratio = 1",
            ok=trial.once == trial.photos,
        ),
        _none(f"annotation: recorded answers lost {after}", trial.lost, "answers"),
        _none(f"annotation: recorded answers asked for again {after}", trial.asked_again, "requests"),
        BenchmarkRow(
            name="annotation: requests beyond one per photo, against those in flight at the kills",
            value=cut_off,
            unit="requests",
            peer=trial.in_flight,
            ratio=cut_off / trial.in_flight if trial.in_flight else None,
            target="ratio <= 1",
            ok=0 <= cut_off <= trial.in_flight,
        ),
    ]


def measure_kills(photos: int = 240, kills: int = 10, seed: int = 0) -> list[BenchmarkRow]:
    """Run the trial in a temporary folder.

    Raises:
        RuntimeError: fewer kills than asked for hit a working process, or that process failed by itself.
    """
    with tempfile.TemporaryDirectory(prefix="spc-kills-") as folder:
        trial = run_kill_trial(Path(folder), photos, kills, seed)
    if trial.kills < kills:
        raise RuntimeError(f"only {trial.kills} of {kills} kills hit a working process: give it more photos")
    return kill_rows(trial)


def _none(name: str, found: int, unit: str) -> BenchmarkRow:
    return BenchmarkRow(name=name, value=found, unit=unit, peer=None, ratio=None, target="0", ok=found == 0)
