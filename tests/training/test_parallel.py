"""Several processes train what one would: every stage in one, in two and in two that share the models out."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from torch import Tensor

from components.models.artist import Artist
from components.models.critic import Critic
from components.models.weights import WEIGHTS_FILE
from components.training.checkpoints import CheckpointStore
from components.training.critic_sft import train_critic
from components.training.launch import launch
from tests.recording import RecordingTracker
from tests.training.parallel_runs import CRITIC, FSDP, SHARDED, STAGES, WHOLE, run_in_one, write_everything

pytestmark = pytest.mark.slow

TWO_PROCESSES = [
    *(("ddp", stage) for stage in STAGES),
    *(("fsdp", stage) for stage in SHARDED),
    *(("fsdp", f"full/{stage}") for stage in WHOLE),
]
CRITIC_DATA = {"base": "base", "annotations_dir": "annotations", "photos_dir": "photos"}


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("given")
    write_everything(folder)
    return folder


@pytest.fixture(scope="module")
def runs(given: Path, root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one process left (`one`), and what two did that are machines of their own, on loopback."""
    out = tmp_path_factory.mktemp("runs")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    nodes = [
        subprocess.Popen(
            [
                *(sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--node-rank", str(rank)),
                *("--nproc-per-node", "1", "--master-addr", "127.0.0.1", "--master-port", str(port)),
                *("-m", "tests.training.parallel_runs", str(given), str(out)),
            ],
            cwd=root,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            text=True,
            stdout=(out / f"node-{rank}.txt").open("w"),
            stderr=subprocess.STDOUT,
        )
        for rank in range(2)
    ]
    run_in_one(given, out)
    codes = [node.wait(timeout=900) for node in nodes]
    said = [(out / f"node-{rank}.txt").read_text() for rank in range(2)]
    assert (out / "half" / "metrics.json").exists(), "\n".join(said)
    assert 0 not in codes and "SIGKILL" in said[1], "\n".join(said)
    return out


def tensors(folder: Path) -> dict[str, Tensor]:
    """Of all adapters and weights that a stage left."""
    files = sorted(file for name in ("adapter_model.safetensors", WEIGHTS_FILE) for file in folder.rglob(name))
    assert files
    return {f"{file.relative_to(folder)} {name}": value for file in files for name, value in load_file(file).items()}


def weights(model: Critic | Artist) -> dict[str, Tensor]:
    """Of the base model, by the names that they have without an adapter."""
    wrapped = model.model if isinstance(model, Critic) else model.transformer
    base = wrapped.get_base_model() if isinstance(wrapped, PeftModel) else wrapped
    return {name.replace(".base_layer.", "."): parameter for name, parameter in base.named_parameters()}


def metrics(folder: Path) -> list[tuple[int, dict[str, float]]]:
    """What a stage reported, without what says how long it took."""
    content: dict[str, Any] = json.loads((folder / "metrics.json").read_text())
    return [
        (step, {name: value for name, value in row.items() if "throughput" not in name and "seconds" not in name})
        for step, row in [*content["rows"], (0, content["closing"])]
    ]


@pytest.mark.parametrize(("kind", "stage"), TWO_PROCESSES)
def test_two_processes_end_where_one_does(runs: Path, kind: str, stage: str) -> None:
    one, two = tensors(runs / "one" / stage), tensors(runs / kind / stage)
    assert one.keys() == two.keys()
    for name, value in one.items():
        assert torch.allclose(two[name], value, atol=2e-5, rtol=1e-4), name


@pytest.mark.parametrize(("kind", "stage"), TWO_PROCESSES)
def test_what_is_reported_is_of_all_processes(runs: Path, kind: str, stage: str) -> None:
    one, two = metrics(runs / "one" / stage), metrics(runs / kind / stage)
    assert len(one) == len(two) > 1
    for (step, expected), (found_step, found) in zip(one, two, strict=True):
        assert step == found_step
        assert found == pytest.approx(expected, rel=1e-3, abs=2e-6)


def test_what_agrees_has_moved(runs: Path, given: Path) -> None:
    """By more than the tolerance: otherwise agreement would say nothing."""
    after, before = tensors(runs / "one" / "adapt_artist"), tensors(given / "artist")
    assert max(float((after[name] - value).abs().max()) for name, value in before.items()) > 1e-3
    after = tensors(runs / "one" / "reinforce")
    for module in ("critic", "artist"):
        before = tensors(given / module)
        assert max(float((after[f"{module}/{name}"] - before[name]).abs().max()) for name in before) > 1e-4


def test_bfloat16_computes_nearly_the_same(runs: Path) -> None:
    """Sharded, whole weights that are kept in float32 and gathered in half precision."""
    whole, half = metrics(runs / "one" / "full" / "train_artist"), metrics(runs / "half")
    for (_, expected), (_, found) in zip(whole, half, strict=True):
        for name in (name for name in expected if name.endswith("loss")):
            assert found[name] == pytest.approx(expected[name], rel=0.02)
            assert found[name] != expected[name]
    left = load_file(runs / "half" / WEIGHTS_FILE)
    assert {tensor.dtype for tensor in left.values()} == {torch.float32}


def test_checkpoints_do_not_say_how_many_processes_wrote_them(runs: Path) -> None:
    one, ddp, fsdp = (
        CheckpointStore(runs / kind / "reinforce" / "checkpoints").latest() for kind in ("one", "ddp", "fsdp")
    )
    for two in (ddp, fsdp):
        assert two.step == one.step
        assert two.tensors.keys() == one.tensors.keys()
        for name, tensor in one.tensors.items():
            assert two.tensors[name].dtype == tensor.dtype
            assert torch.allclose(two.tensors[name], tensor, atol=5e-6, rtol=1e-2), name


@pytest.mark.parametrize(("cls", "stage"), [(Critic, "train_critic"), (Artist, "train_artist")])
def test_whole_weights_of_a_sharded_run_load_unsharded_and_are_handed_on(
    runs: Path, given: Path, tmp_path: Path, cls: type[Critic] | type[Artist], stage: str
) -> None:
    folder, base = runs / "fsdp" / "full" / stage, given / "base" / cls.__name__.lower()
    left = load_file(folder / WEIGHTS_FILE)
    plain, loaded = cls.load(base), cls.load(base, folder, trainable=True)
    before, after = weights(plain), weights(loaded)
    assert all(torch.equal(after[name], tensor) for name, tensor in left.items())
    moved = [name for name, tensor in left.items() if not torch.equal(before[name], tensor)]
    assert len(moved) > 0.8 * len(left), "all but what the last block computes for nobody"
    loaded.save_adapter(tmp_path)
    assert (tmp_path / WEIGHTS_FILE).read_bytes() == (folder / WEIGHTS_FILE).read_bytes()


def test_a_killed_stage_that_is_launched_again_ends_in_the_same_bits(runs: Path, given: Path) -> None:
    out, tracker = runs / "killed", RecordingTracker()
    assert CheckpointStore(out / "checkpoints").latest().step in (1, 2)
    closing = launch(
        train_critic,
        CRITIC.model_copy(update={"compute": FSDP}),
        tracker,
        out=out,
        checkpoints=out / "checkpoints",
        **{name: given / folder for name, folder in CRITIC_DATA.items()},
    )
    resumed, whole = tensors(out), tensors(runs / "fsdp" / "train_critic")
    assert all(torch.equal(resumed[name], value) for name, value in whole.items())
    expected = metrics(runs / "fsdp" / "train_critic")
    assert closing["validation_loss"] == expected[-1][1]["validation_loss"]
    assert tracker.series("critic_sft/validation_loss") == [(3, closing["validation_loss"])]
