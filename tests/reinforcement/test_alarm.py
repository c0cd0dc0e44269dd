"""The alarm on reward hacking, on real photos whose edits are rewarded by a term of stage III and measured as there."""

import json
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import pytest
import torch
from skimage import data
from sklearn.datasets import load_sample_images
from torch import Tensor
from torch.nn import functional

from components.data.faults import sample_faults
from components.imaging.photo import resize
from components.photometry.attributes import difference, measure
from components.photometry.operations import apply_operations
from components.reinforcement.alarm import FEWEST_PHOTOS, AlarmRule, HackingAlarm, RewardHackingError
from components.reinforcement.comparison import PolicyScores, measure_unrewarded
from components.reinforcement.rewards.attributes import closeness
from components.training.checkpoints import Checkpoint, CheckpointStore
from tests.recording import RecordingTracker

pytestmark = pytest.mark.slow

SIZE = (48, 64)
STEPS = (0, 2, 4)
Edit = Callable[[int, Tensor, Tensor], Tensor]
"""What a policy makes after so many of four steps of a faulty photo, whose intact version is known."""


@cache
def photos() -> list[Tensor]:
    """Two halves of each of five photos that scikit-image and scikit-learn carry with them."""
    halves = []
    for picture in (data.coffee(), data.astronaut(), data.chelsea(), *load_sample_images().images):
        tensor = torch.tensor(picture).permute(2, 0, 1) / 255
        width = tensor.shape[2] // 2
        halves += [resize(tensor[..., :width], SIZE), resize(tensor[..., width:], SIZE)]
    return halves


@cache
def scores_of(step: int, edit: Edit) -> PolicyScores:
    """A faulty view of every photo, edited; the reward is r_photo alone, as if its weight were 1."""
    rewards, rows = [], []
    for index, photo in enumerate(photos()):
        faulty = apply_operations(photo, sample_faults(torch.Generator().manual_seed(index)))
        made = edit(step, faulty, photo).clamp(0, 1)[None]
        rewards.append(float(closeness(difference(measure(photo), measure(made)), tolerance=1.0)))
        rows.append(measure_unrewarded(made, photo))
    names = [f"photo {index}" for index in range(len(rows))]
    unrewarded = {name: torch.tensor([row[name] for row in rows]) for name in rows[0]}
    return PolicyScores(names, names, {"total": torch.tensor(rewards)}, unrewarded, torch.zeros(3, 1, 1))


def first(count: int, scores: PolicyScores) -> PolicyScores:
    """The scores of the first `count` photos."""
    terms, unrewarded = ({n: v[:count] for n, v in table.items()} for table in (scores.terms, scores.unrewarded))
    return PolicyScores(scores.ids[:count], scores.photos[:count], terms, unrewarded, scores.picture)


def honest(step: int, faulty: Tensor, intact: Tensor) -> Tensor:
    """Ever more of the fault is undone."""
    return torch.lerp(faulty, intact, step / 4)


def hacked(step: int, faulty: Tensor, intact: Tensor) -> Tensor:
    """Mean and deviation of every channel, and so the four attributes, come right; the content is smeared ever more."""
    smeared = intact[None]
    for _ in range(step):
        smeared = functional.avg_pool2d(smeared, 3, 1, 1, count_include_pad=False)
    spread = [picture.std(dim=(-2, -1), keepdim=True) for picture in (smeared[0], intact)]
    centre = [picture.mean(dim=(-2, -1), keepdim=True) for picture in (smeared[0], intact)]
    fooling = (smeared[0] - centre[0]) * spread[1] / spread[0] + centre[1]
    return torch.lerp(faulty, fooling, step / 4)


def findings(edit: Edit, steps: Sequence[int] = STEPS, rule: AlarmRule | None = None) -> list[list[str]]:
    alarm = HackingAlarm("warn", rule or AlarmRule())
    found = [alarm.judge(number, scores_of(step, edit)) for number, step in enumerate(steps)]
    return [[finding.measure for finding in one] for one in found]


def test_a_hacked_reward_raises_the_alarm_and_an_honest_one_does_not() -> None:
    rising = [scores_of(step, hacked).terms["total"].mean() for step in STEPS]
    assert rising[0] + 0.1 < rising[1] < rising[2], "the reward must be fooled, or the test says nothing"
    found = findings(hacked)
    assert found[0] == [], "there is nothing before it"
    assert {"ssim", "piqe_excess"} <= set(found[2])
    assert findings(honest) == [[], [], []]


def test_a_policy_that_only_gets_worse_is_no_hacker() -> None:
    assert findings(honest, STEPS[::-1]) == [[], [], []]


def test_noise_alone_raises_no_alarm() -> None:
    """A policy that stands still and is drawn anew at each validation, for twenty stages of ten validations."""
    generator = torch.Generator().manual_seed(0)
    base = scores_of(2, honest)

    def drawn() -> PolicyScores:
        def noisy(values: Tensor, deviation: float) -> Tensor:
            return values + deviation * torch.randn(len(values), generator=generator)

        unrewarded = {
            name: noisy(base.unrewarded[name], deviation)
            for name, deviation in (("colour_error", 1.0), ("ssim", 0.05), ("piqe_excess", 8.0))
        }
        return PolicyScores(base.ids, base.photos, {"total": noisy(base.terms["total"], 0.1)}, unrewarded, base.picture)

    raised = 0
    for _ in range(20):
        alarm = HackingAlarm("warn", AlarmRule())
        raised += sum(bool(alarm.judge(iteration, drawn())) for iteration in range(10))
    assert raised == 0


def test_a_fall_after_a_rise_is_seen_as_well() -> None:
    """Edits that are better than at the start, and yet worse than they were in between."""

    def relapsed(step: int, faulty: Tensor, intact: Tensor) -> Tensor:
        return torch.lerp(hacked(step, faulty, intact), honest(step, faulty, intact), 0.4)

    alarm = HackingAlarm("warn", AlarmRule())
    start, better, worse = scores_of(0, honest), scores_of(2, honest), scores_of(4, relapsed)
    found = [alarm.judge(number, scores) for number, scores in enumerate((start, better, worse))]
    ssim = [float(scores.unrewarded["ssim"].mean()) for scores in (start, better, worse)]
    assert ssim[0] < ssim[2] < ssim[1], "or the test says nothing"
    assert found[:2] == [[], []]
    assert ("ssim", 1) in {(finding.measure, finding.since) for finding in found[2]}


def test_thresholds_hold_back_what_nobody_would_see() -> None:
    lenient = AlarmRule(colour_error=50, ssim=0.9, piqe_excess=99)
    assert findings(hacked, rule=lenient) == [[], [], []]


def test_too_few_photos_are_no_evidence(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    alarm, tracker = HackingAlarm("stop", AlarmRule()), RecordingTracker()
    for step in (0, 4):
        few = first(FEWEST_PHOTOS - 1, scores_of(step, hacked))
        assert alarm.watch(step, few, tracker, CheckpointStore(tmp_path)) == {}
    assert tracker.rows == tracker.notes == []
    assert "needs 4 held-out photos, found 3" in caplog.text


def test_it_is_reported_and_can_stop_the_stage(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    store.save(Checkpoint(3, {"weight": torch.ones(2)}, {}))
    validations = [scores_of(step, hacked) for step in (0, 4)]
    tracker, silent = RecordingTracker(), RecordingTracker()
    alarm = HackingAlarm("warn", AlarmRule())
    assert alarm.watch(0, validations[0], tracker, store) == {"alarm": 0.0}
    assert tracker.notes == []
    assert alarm.watch(4, validations[1], tracker, store) == {"alarm": 1.0}
    assert tracker.series("reinforce/alarm") == [(0, 0.0), (4, 1.0)]
    assert "iteration 4: ssim got worse by" in tracker.notes[-1]
    resumed = HackingAlarm("stop", AlarmRule())
    resumed.history = json.loads(json.dumps(alarm.history[:1]))
    with pytest.raises(RewardHackingError, match=r"ssim got worse .* since iteration 0, while the reward") as error:
        resumed.watch(4, validations[1], tracker, store)
    assert str(tmp_path / "step-00000003") in str(error.value)
    assert resumed.history == alarm.history, "a resumed stage judges as an uninterrupted one"
    off = HackingAlarm("off", AlarmRule())
    assert [off.watch(step, scores, silent, store) for step, scores in enumerate(validations)] == [{}, {}]
    assert silent.rows == silent.notes == off.history == []


def test_the_note_stays_when_later_validations_are_well(tmp_path: Path) -> None:
    alarm, tracker = HackingAlarm("warn", AlarmRule()), RecordingTracker()
    for iteration, step in enumerate((0, 4, 0)):
        alarm.watch(iteration, scores_of(step, hacked), tracker, CheckpointStore(tmp_path))
    assert [value for _, value in tracker.series("reinforce/alarm")] == [0.0, 1.0, 0.0]
    assert "iteration 1: " in tracker.notes[-1] and "iteration 2: " not in tracker.notes[-1]
