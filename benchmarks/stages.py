"""Does stage III pay? The reward of its policies against that of stage II, pair by pair, on held-out photos."""

import tempfile
from pathlib import Path

import pandas as pd

from components.metrics.full_reference import LPIPS_FILE, Lpips
from components.metrics.tables import METHOD, PHOTO, VIEW, BootstrapSettings, Interval, difference_interval
from components.reinforcement.comparison import PolicyScores, score_stage
from components.reinforcement.judges.settings import make_judge
from components.reinforcement.settings import ReinforceSettings
from components.strict import Strict

_BEFORE, _AFTER = "stage II", "stage III"


class StageGain(Strict):
    """Mean r_PA before and after, and the gain with its paired interval over photos."""

    before: float
    after: float
    gain: Interval


def compare_stages(
    base: Path,
    before: tuple[Path, Path],
    after: tuple[Path, Path],
    pairs_dir: Path,
    settings: ReinforceSettings,
    bootstrap: BootstrapSettings,
) -> StageGain:
    """Score the policies of two stages on the enhancement pairs of the test split, with the same noise.

    Args:
        base: folder of the base models and of the LPIPS backbone.
        before, after: adapter directories of Critic and Artist.
        settings: of stage III, whose rewards and sampling are used.
    """
    placement = settings.compute.place()
    distance = Lpips(Path(base) / LPIPS_FILE, placement.device)
    rollouts = settings.rollouts
    with tempfile.TemporaryDirectory() as folder:
        judge = make_judge(rollouts.judge, rollouts.artist, Path(folder) / "judgements.jsonl")
        scores = [
            score_stage(
                base, critic, artist, pairs_dir, "test", distance, rollouts, settings.comparison, placement, judge
            )
            for critic, artist in (before, after)
        ]
    without, with_stage = scores
    return stage_gain(without, with_stage, bootstrap)


def stage_gain(before: PolicyScores, after: PolicyScores, bootstrap: BootstrapSettings) -> StageGain:
    """The gain in r_PA between two policies scored on the same pairs.

    Raises:
        ValueError: they were scored on other pairs.
    """
    rows = pd.concat(
        pd.DataFrame({METHOD: name, PHOTO: scores.photos, VIEW: scores.ids, "total": scores.terms["total"].numpy()})
        for name, scores in ((_BEFORE, before), (_AFTER, after))
    )
    means = rows.groupby([METHOD, PHOTO])["total"].mean().groupby(level=METHOD).mean()
    return StageGain(
        before=float(means[_BEFORE]),
        after=float(means[_AFTER]),
        gain=difference_interval(rows, _AFTER, _BEFORE, bootstrap, measure="total"),
    )
