"""Stage III with the judge `mllm`: its scores are the reward, a kill costs none of them, a lost judge stops the run."""

import hashlib
from pathlib import Path

import pytest
from safetensors.torch import load_file

from components.reinforcement.coordinated import ReinforceSettings, reinforce
from components.reinforcement.judges.mllm import JudgeError
from components.reinforcement.judges.settings import JudgeSettings
from tests.chat.serving import ModelServer
from tests.recording import RecordingTracker
from tests.stage_three import SETTINGS, Inputs, reading_by_hash

pytestmark = pytest.mark.slow

SAID = '{"1": "yes", "2": "no"}'


class FickleServer(ModelServer):
    """Thinks of every edit something else each time that it is asked."""

    def __init__(self) -> None:
        super().__init__(lambda picture, before: (200, SAID), chance=self._opinion)

    def _opinion(self, picture: bytes) -> float:
        return hashlib.sha256(picture + bytes([self.asked[picture]])).digest()[0] / 255


class StoppingTracker(RecordingTracker):
    """Stops the run where the second iteration is reported and not yet kept."""

    def metrics(self, values: dict[str, float], step: int) -> None:
        super().metrics(values, step)
        if step == 2 and "reinforce/artist/reward_total" in values:
            raise KeyboardInterrupt


def settings(url: str) -> ReinforceSettings:
    judge = JudgeSettings(kind="mllm", base_url=url, model="m", attempts=2, first_backoff=0.01, concurrency=4)
    return SETTINGS.model_copy(update={"rollouts": SETTINGS.rollouts.model_copy(update={"judge": judge})})


def run(inputs: Inputs, out: Path, url: str, tracker: RecordingTracker) -> dict[str, bytes]:
    """The adapters as written."""
    with reading_by_hash():
        reinforce(*inputs, out, settings(url), tracker, out / "checkpoints")
    names = ("critic", "artist")
    return {name: (out / name / "adapter_model.safetensors").read_bytes() for name in names}


def test_a_run_that_goes_on_gets_the_judgements_it_had(inputs: Inputs, tmp_path: Path) -> None:
    tracker = RecordingTracker()
    with FickleServer().running() as server:
        whole = run(inputs, tmp_path / "whole", server.base_url, tracker)
        assert max(server.asked.values()) == 1
    with FickleServer().running() as server:
        with pytest.raises(KeyboardInterrupt):
            run(inputs, tmp_path / "cut", server.base_url, StoppingTracker())
        assert server.requests, "the cut iteration had judgements"
        assert run(inputs, tmp_path / "cut", server.base_url, RecordingTracker()) == whole
        assert max(server.asked.values()) == 1, "the repeated iteration asked for nothing again"
    trained = load_file(tmp_path / "whole" / "artist" / "adapter_model.safetensors")
    start = load_file(inputs.artist_adapter / "adapter_model.safetensors")
    assert any(not tensor.equal(start[name]) for name, tensor in trained.items())


def test_a_judge_that_is_lost_stops_the_run_and_the_checkpoint_stays(inputs: Inputs, tmp_path: Path) -> None:
    with FickleServer().running() as server:
        with pytest.raises(KeyboardInterrupt):
            run(inputs, tmp_path, server.base_url, StoppingTracker())
        judged = (tmp_path / "checkpoints" / "judgements-0.jsonl").read_bytes()
    (tmp_path / "checkpoints" / "judgements-0.jsonl").write_bytes(judged.splitlines(keepends=True)[0])
    kept = sorted(path.name for path in (tmp_path / "checkpoints").glob("step-*"))
    with pytest.raises(JudgeError, match=r"no server answers.*1 judgements are kept"):
        run(inputs, tmp_path, server.base_url, RecordingTracker())
    assert sorted(path.name for path in (tmp_path / "checkpoints").glob("step-*")) == kept != []
    assert not (tmp_path / "artist").exists()
