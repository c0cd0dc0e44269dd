"""What surrounds the processes of a stage: shares, events on their way to the tracker, failures, and orphans."""

import fcntl
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from components.models.compute import TrainingComputeSettings
from components.parallel import ranks
from components.parallel.ranks import Share
from components.training.__main__ import run
from components.training.critic_sft import CriticSftSettings
from components.training.events import EVENTS_FILE, EventReader, EventWriter
from components.training.job import Failure, Job
from components.training.launch import OWNER_FILE, launch
from components.training.loop import OptimiserSettings
from tests.recording import RecordingTracker

SETTINGS = CriticSftSettings(optimiser=OptimiserSettings(learning_rate=1e-3, steps=1))


@pytest.mark.parametrize(("total", "world_size"), [(1, 1), (5, 1), (5, 2), (16, 8), (17, 8), (3, 8), (8, 8)])
def test_shares_are_even_and_weigh_one_together(monkeypatch: pytest.MonkeyPatch, total: int, world_size: int) -> None:
    shares = []
    for rank in range(world_size):
        monkeypatch.setattr(ranks, "rank", lambda rank=rank: rank)
        monkeypatch.setattr(ranks, "world_size", lambda: world_size)
        shares.append(ranks.share(total))
    assert sum(share.weight for share in shares) == pytest.approx(1)
    rows = [row for share in shares for row in share.rows]
    assert rows == (list(range(total)) if world_size <= total else [rank % total for rank in range(world_size)])
    lengths = {len(share.rows) for share in shares}
    assert max(lengths) - min(lengths) <= 1
    assert max(lengths) == ranks.largest_share(world_size, total) == -(-total // world_size)
    speaking = [row for share in shares if share.first for row in share.rows]
    assert speaking == list(range(total)), "each row is spoken for once"


def test_what_is_trained_on_has_a_row_for_every_process() -> None:
    ranks.enough_rows("batch_size", 8, 8)
    with pytest.raises(
        ValueError, match=r"rollouts\.photos is 4, which 8 processes .* a multiple of 8, or start at most 4"
    ):
        ranks.enough_rows("rollouts.photos", 4, 8)


def test_a_share_takes_its_rows_of_groups_and_of_batches_in_two_halves() -> None:
    share = Share((1, 2), 3)
    assert share.of(["a", "b", "c"]) == ["b", "c"]
    assert share.each(2).of(torch.arange(6)).tolist() == [2, 3, 4, 5]
    assert share.twice().of(torch.arange(6)).tolist() == [1, 2, 4, 5]
    assert [part.rows for part in share.split(1)] == [(1,), (2,)]
    whole, values = ranks.everything(3), torch.rand(3)
    assert whole.of(values) is values and whole.gather(values) is values
    with pytest.raises(ValueError, match="expected the 3 rows"):
        share.of([1, 2])


def test_one_process_sums_nothing() -> None:
    parameter = torch.nn.Parameter(torch.ones(2))
    parameter.grad = gradient = torch.rand(2)
    ranks.sum_gradients([parameter])
    assert parameter.grad is gradient
    assert ranks.all_reduce({"a": 0.1}) == {"a": 0.1}
    assert ranks.from_main({"a": gradient}, [1, "x"]) == ({"a": gradient}, [1, "x"])


def test_events_reach_the_tracker_once_and_whole(tmp_path: Path) -> None:
    tracker, picture = RecordingTracker(), torch.rand(3, 4, 5)
    reader, writer = EventReader(tmp_path, tracker), EventWriter(tmp_path)
    reader.forward()
    writer.metrics({"loss": 0.1 + 0.2, "kl": 1e-30}, 3)
    writer.picture("edits", picture, 3)
    reader.forward()
    with (tmp_path / EVENTS_FILE).open("a") as file:
        file.write('{"kind": "metrics", "values": {"lo')
    reader.forward()
    assert tracker.rows == [(3, {"loss": 0.1 + 0.2, "kl": 1e-30})]
    with (tmp_path / EVENTS_FILE).open("a") as file:
        file.write('ss": 1.0}, "step": 4}\n')
    reader.forward()
    assert tracker.rows[1:] == [(4, {"loss": 1.0})]
    ((name, step, found),) = tracker.pictures
    assert (name, step) == ("edits", 3) and torch.equal(found, picture)


def test_one_process_is_this_one() -> None:
    def stage(settings: CriticSftSettings, tracker: RecordingTracker, out: Path) -> dict[str, float]:
        return {"pid": float(os.getpid()), "steps": float(settings.optimiser.steps), "out": float(out == Path("x"))}

    closing = launch(stage, SETTINGS, RecordingTracker(), out=Path("x"))
    assert closing == {"pid": os.getpid(), "steps": 1, "out": 1}


def test_a_failure_is_written_down(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = Job(settings=SETTINGS.model_dump(mode="json"), arguments={"base": tmp_path})
    (tmp_path / "job.json").write_text(job.model_dump_json())
    monkeypatch.setenv("RANK", "3")
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(ValueError, match=r'compute\.sharding of the job is .ddp.: set it to "fsdp"'):
        run("train_critic", tmp_path / "job.json")
    failure = Failure.model_validate_json((tmp_path / "failure-3.json").read_text())
    assert failure.rank == 3 and failure.error.startswith("ValueError: accelerate is configured for FSDP")
    assert "Traceback" in failure.traceback


def test_a_job_with_an_unknown_setting_is_refused(tmp_path: Path) -> None:
    (tmp_path / "job.json").write_text(json.dumps({"settings": {"stps": 3}, "arguments": {}}))
    with pytest.raises(ValueError, match="stps"):
        run("train_critic", tmp_path / "job.json")


def test_weights_are_not_trained_in_half_precision_unsharded() -> None:
    class Half:
        def trained_parameters(self) -> list[torch.nn.Parameter]:
            return [torch.nn.Parameter(torch.ones(2, dtype=torch.bfloat16))]

    with pytest.raises(ValueError, match=r"weights are trained in float32, and compute\.dtype is bfloat16"):
        TrainingComputeSettings(dtype="bfloat16").prepare(Half())


@pytest.mark.slow
def test_processes_end_when_the_one_that_started_them_is_gone(root: Path, tmp_path: Path) -> None:
    lock = tmp_path / OWNER_FILE
    code = f"""
import sys, time
from pathlib import Path
from components.training.__main__ import end_with_the_owner
end_with_the_owner(Path({str(lock)!r}))
print("watching", flush=True)
time.sleep(600)
"""
    with lock.open("w") as owner:
        fcntl.flock(owner, fcntl.LOCK_EX)
        orphan = subprocess.Popen([sys.executable, "-c", code], cwd=root, stdout=subprocess.PIPE, text=True)
        assert orphan.stdout.readline() == "watching\n"
        with pytest.raises(subprocess.TimeoutExpired):
            orphan.wait(timeout=1.5)
    assert orphan.wait(timeout=60) == -signal.SIGKILL
