"""A stage on several nodes: two on the loopback address, what they leave, and when a node gives up or ends."""

import logging
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from components.models.compute import TrainingComputeSettings
from components.training.artist_sft import adapt_artist
from components.training.job import Failure, Job, StageError, first_failure
from components.training.launch import Rendezvous, launch
from components.training.nodes import ReplacedError, attempts, finished, follow, take_part
from tests.recording import RecordingTracker
from tests.stage_three import Inputs
from tests.training.parallel_runs import ARTIST

pytestmark = pytest.mark.slow

STAGE = "adapt_artist"
FILE = "adapter_model.safetensors"
SETTINGS = ARTIST.model_copy(update={"kinds": ("enhancement",)})


def job(folder: Path, inputs: Inputs, **compute: Any) -> Path:
    """Write a job into a folder; the folder."""
    settings = SETTINGS.model_copy(update={"compute": TrainingComputeSettings(**{"nodes": 2, **compute})})
    arguments = {
        "base": inputs.base,
        "critic_adapter": inputs.critic_adapter,
        "artist_adapter": inputs.artist_adapter,
        "pairs_dir": inputs.pairs,
        "checkpoints": folder / "checkpoints",
    }
    Job(settings=settings.model_dump(mode="json"), arguments=arguments).write(folder)
    return folder


def place(nodes: int = 2, node: int = 0) -> Rendezvous:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return Rendezvous(nodes, node, "127.0.0.1", server.getsockname()[1])


@pytest.fixture(scope="module")
def done(inputs: Inputs, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a job that two nodes have done together."""
    folder = job(tmp_path_factory.mktemp("done"), inputs)
    first = place()
    with pytest.MonkeyPatch.context() as patch, ThreadPoolExecutor(2) as nodes:
        patch.setenv("OMP_NUM_THREADS", "1")
        parts = [nodes.submit(take_part, STAGE, folder, "one", first._replace(node=node)) for node in range(2)]
        for part in parts:
            part.result(timeout=300)
    return folder


def test_two_nodes_end_where_one_does_and_report_it(done: Path, inputs: Inputs, tmp_path: Path) -> None:
    tracker, told = RecordingTracker(), RecordingTracker()
    found = follow(done, told)
    assert found == finished(done)
    assert (found.attempt.name, found.out) == ("one", found.attempt / "out")
    alone = {"out": tmp_path / "out", "checkpoints": tmp_path / "checkpoints"}
    expected = adapt_artist(*inputs, settings=SETTINGS, tracker=tracker, **alone)
    mine, theirs = load_file(tmp_path / "out" / FILE), load_file(found.out / FILE)
    assert max(float((mine[name] - theirs[name]).abs().max()) for name in mine) < 2e-5
    assert found.closing["loss"] == pytest.approx(expected["loss"], rel=1e-4)
    assert found.closing["validation_loss"] == pytest.approx(expected["validation_loss"], rel=1e-4)
    assert [step for step, _ in told.rows] == [step for step, _ in tracker.rows]
    assert [picture[:2] for picture in told.pictures] == [picture[:2] for picture in tracker.pictures]
    again = RecordingTracker()
    follow(done, again)
    assert len(again.pictures) == len(told.pictures) > 0, "a step that is tried again reads all of it again"


def test_what_is_done_is_not_done_again(done: Path) -> None:
    take_part(STAGE, done, "two", place())  # one node of two: to wait for the other would be a TimeoutError
    assert [attempt.name for attempt in attempts(done)] == ["one"]


def test_an_attempt_that_fails_says_on_which_rank_and_of_what(
    inputs: Inputs, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = job(tmp_path, inputs._replace(pairs=tmp_path / "nothing"), nodes=1)
    with pytest.raises(StageError, match=r"adapt_artist on 1 nodes: rank 0 failed: \w+Error: .*\n.*Traceback"):
        take_part(STAGE, folder, "one", place(1))
    assert finished(folder) is None
    (folder / "attempts" / "one" / "result.json").write_text("{}")
    with caplog.at_level(logging.WARNING):
        follow(folder, RecordingTracker())
    assert "the attempt one failed: rank 0 failed" in caplog.text
    assert "Traceback" in caplog.text


def test_of_several_failures_the_first_is_told(tmp_path: Path) -> None:
    assert first_failure(tmp_path) == ""
    for rank, (when, error) in enumerate(((2.0, "the other node is gone"), (1.0, "out of memory"))):
        failure = Failure(rank=rank, time=when, error=error, traceback="...")
        (tmp_path / f"failure-{rank}.json").write_text(failure.model_dump_json())
    assert first_failure(tmp_path) == "rank 1 failed: out of memory\n..."


def test_a_node_that_waits_in_vain_says_for_whom(inputs: Inputs, tmp_path: Path) -> None:
    folder = job(tmp_path, inputs, nodes=3, wait_for_nodes=0.3)
    with pytest.raises(TimeoutError, match=r"node 1 of 3 has waited 0\.3 s for 0, 2: is there room for all of them"):
        take_part(STAGE, folder, "one", place(3, 1))
    with pytest.raises(ValueError, match=r"2 nodes were started, and compute\.nodes of the job is 3"):
        take_part(STAGE, folder, "one", place(2))


def test_nodes_stand_aside_for_a_later_attempt(inputs: Inputs, tmp_path: Path) -> None:
    folder = job(tmp_path, inputs, wait_for_nodes=60)
    with ThreadPoolExecutor(1) as node:
        waiting = node.submit(take_part, STAGE, folder, "first", place())
        while not attempts(folder):
            time.sleep(0.05)
        Job(settings={}, arguments={}).write(folder / "attempts" / "later")
        with pytest.raises(ReplacedError, match="the attempt later has begun, so that first ends here"):
            waiting.result(timeout=30)
    assert [attempt.name for attempt in attempts(folder)] == ["first", "later"]


def test_one_machine_does_not_pretend_to_be_several() -> None:
    settings = SETTINGS.model_copy(update={"compute": TrainingComputeSettings(nodes=2)})
    with pytest.raises(ValueError, match=r"compute\.nodes is 2, and this is one machine"):
        launch(adapt_artist, settings, RecordingTracker())
