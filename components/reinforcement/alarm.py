"""A reward-hacking alarm: the reward of stage III rises on held-out photos while the edits get worse.

At every validation the edits are measured in ways that no reward pays for. The alarm compares each validation with all
earlier ones of the stage, photo by photo.
"""

import logging
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
from pydantic import Field
from scipy.stats import t as student

from components.metrics.tables import Interval
from components.reinforcement.comparison import PolicyScores
from components.strict import Strict
from components.training.checkpoints import CheckpointStore
from components.training.tracker import Tracker

log = logging.getLogger(__name__)

FEWEST_PHOTOS = 4
"""With fewer, the spread of their changes is hardly known. The sample photos have as many for validation."""
Action = Literal["off", "warn", "stop"]
_REWARD = "reward"
_WORSE = {"colour_error": 1.0, "ssim": -1.0, "piqe_excess": 1.0}
"""The measures (`PolicyScores.unrewarded`) and which way is worse."""


class AlarmRule(Strict):
    """What counts as a rising reward with falling quality."""

    confidence: float = Field(
        default=0.95, gt=0.5, lt=1, description="Of one validation; all of its comparisons share the rest."
    )
    colour_error: float = Field(default=0.25, ge=0, description="Largest tolerable rise of the mean. CIEDE2000.")
    ssim: float = Field(default=0.01, ge=0, description="Largest tolerable fall of the mean SSIM.")
    piqe_excess: float = Field(default=2.0, ge=0, description="Largest tolerable rise of the mean. Points of PIQE.")


class RewardHackingError(RuntimeError):
    """The reward rises while the edits get worse, and the settings say to stop then."""


class HackingSign(NamedTuple):
    """A measure that got worse while the reward rose: since which iteration, and the mean changes over photos."""

    measure: str
    since: int
    gain: Interval
    loss: Interval

    def __str__(self) -> str:
        gain, loss = self.gain, self.loss
        return (
            f"{self.measure} got worse by {loss.value:.3g} ({loss.low:.3g} to {loss.high:.3g}) since iteration "
            f"{self.since}, while the reward rose by {gain.value:.3g} ({gain.low:.3g} to {gain.high:.3g})"
        )


class HackingAlarm:
    """Judges the validations of one stage as they come.

    A validation raises the alarm when there are an earlier one and a measure such that between the two, photo by photo,
    the reward rose and the measure got worse, the latter by more than the rule's threshold in the mean, and both beyond
    chance: Student's intervals of the mean changes over photos lie above 0. With K earlier validations and M measures
    the reward's interval leaves out (1 - confidence) / K below, and a measure's 1 / M of that (Bonferroni), so that a
    validation raises it with a probability of 1 - confidence at most where the reward did not rise, or nothing got
    worse. (Of ten or twenty photos resampled, so extreme a percentile would leave out several times as much.)

    Attributes:
        history: the validations so far, as JSON can hold them; a checkpoint keeps it, and a resumed stage puts it back.
    """

    def __init__(self, action: Action, rule: AlarmRule):
        self.action, self.rule = action, rule
        self.history: list[dict[str, Any]] = []

    def watch(self, iteration: int, scores: PolicyScores, tracker: Tracker, store: CheckpointStore) -> dict[str, float]:
        """Judge a validation and report it: the metric `reinforce/alarm`, and a note on the run from a finding on.

        Returns:
            {"alarm": 1.0 or 0.0}; nothing where the alarm is off or there are too few photos.

        Raises:
            RewardHackingError: there is a finding, and the action is "stop".
        """
        findings = None if self.action == "off" else self.judge(iteration, scores)
        if findings is None:
            return {}
        tracker.metrics({"reinforce/alarm": float(bool(findings))}, iteration)
        if (summary := self.summary()) is not None:
            tracker.note(summary)
        if findings:
            found = "; ".join(str(finding) for finding in findings)
            if self.action == "stop":
                raise RewardHackingError(
                    f"after iteration {iteration} on held-out photos: {found}. Mend the reward, or lower the learning "
                    f"rates; `alarm: warn` goes on nevertheless. Last checkpoint: {store.newest_good() or 'none'}"
                )
            log.warning("the reward may be hacked: after iteration %d on held-out photos: %s", iteration, found)
        return {"alarm": float(bool(findings))}

    def judge(self, iteration: int, scores: PolicyScores) -> list[HackingSign] | None:
        """Take the scores of the policies after an iteration.

        Returns:
            the worst finding for each measure, none if all is well; None where there are too few photos to tell.
        """
        now: dict[str, Any] = {"iteration": iteration, "values": _by_photo(scores), "findings": []}
        earlier, self.history = self.history, [*self.history, now]
        photos = len(now["values"][_REWARD])
        if photos < FEWEST_PHOTOS:
            log.warning("the alarm on reward hacking needs %d held-out photos, found %d", FEWEST_PHOTOS, photos)
            return None
        worst: dict[str, HackingSign] = {}
        for before in earlier:
            for finding in self._compare(before, now, len(earlier)):
                known = worst.get(finding.measure)
                if known is None or finding.loss.value > known.loss.value:
                    worst[finding.measure] = finding
        now["findings"] = [str(finding) for finding in worst.values()]
        return list(worst.values())

    def summary(self) -> str | None:
        """All that was found in the stage, in words; None if nothing was."""
        lines = [f"iteration {v['iteration']}: {finding}" for v in self.history for finding in v["findings"]]
        if not lines:
            return None
        return "\n".join(
            ("The reward may have been hacked: on held-out photos it rose while the edits got worse.", *lines)
        )

    def _compare(self, before: dict[str, Any], now: dict[str, Any], comparisons: int) -> list[HackingSign]:
        changes = {
            name: np.subtract(values, before["values"][name]) * _WORSE.get(name, 1.0)
            for name, values in now["values"].items()
        }
        suspects = [name for name in _WORSE if changes[name].mean() > getattr(self.rule, name)]
        if changes[_REWARD].mean() <= 0 or not suspects:
            return []
        tail = (1 - self.rule.confidence) / comparisons
        gain = _mean(changes[_REWARD], tail)
        losses = {name: _mean(changes[name], tail / len(_WORSE)) for name in suspects if gain.low > 0}
        return [HackingSign(name, before["iteration"], gain, loss) for name, loss in losses.items() if loss.low > 0]


def _mean(changes: np.ndarray, tail: float) -> Interval:
    """Mean of one value per photo, with Student's interval that leaves out `tail` on either side."""
    value = float(changes.mean())
    reach = float(student.isf(tail, len(changes) - 1) * changes.std(ddof=1) / np.sqrt(len(changes)))
    return Interval(value=value, low=value - reach, high=value + reach)


def _by_photo(scores: PolicyScores) -> dict[str, list[float]]:
    """Means over the pairs of each photo, photos in the order of their names."""
    columns = {_REWARD: scores.terms["total"], **{name: scores.unrewarded[name] for name in _WORSE}}
    rows = pd.DataFrame({name: values.numpy() for name, values in columns.items()}, dtype=float)
    return rows.groupby(np.array(scores.photos)).mean().to_dict(orient="list")
