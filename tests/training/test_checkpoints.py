"""Checkpoints are whole or absent: whatever is damaged, half-written or does not fit, the one before it is found."""

import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from components.training import checkpoints
from components.training.checkpoints import STATE_FILE, TENSOR_FILE, Checkpoint, CheckpointStore


@pytest.fixture
def store(tmp_path: Path) -> CheckpointStore:
    return CheckpointStore(tmp_path / "run")


def save(store: CheckpointStore, *steps: int) -> list[Path]:
    return [store.save(Checkpoint(step, {"weight": torch.full((64,), float(step))}, {"n": step})) for step in steps]


def found(store: CheckpointStore) -> int | None:
    checkpoint = store.latest()
    if checkpoint is None:
        return None
    assert checkpoint.values == {"n": checkpoint.step}
    assert torch.equal(checkpoint.tensors["weight"], torch.full((64,), float(checkpoint.step)))
    return checkpoint.step


def test_what_is_saved_comes_back_bit_for_bit(store: CheckpointStore) -> None:
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(6, 5, generator=generator)
    tensors = {
        "parameter": torch.nn.Parameter(values),
        "transposed": values.T,
        "half": values.bfloat16(),
        "scalar": torch.tensor(3.0),
        "count": torch.arange(3),
        "empty": torch.zeros(0, 4),
        "generator": generator.get_state(),
    }
    store.save(Checkpoint(7, tensors, {"flag": True, "names": ["a", "ö"], "rate": 0.1}))
    checkpoint = store.latest()
    assert checkpoint.step == 7 and checkpoint.values == {"flag": True, "names": ["a", "ö"], "rate": 0.1}
    assert checkpoint.tensors.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert checkpoint.tensors[name].dtype == tensor.dtype and torch.equal(checkpoint.tensors[name], tensor), name


def test_nothing_is_found_where_nothing_was_saved(store: CheckpointStore) -> None:
    assert store.latest() is None
    store.folder.mkdir()
    assert store.latest() is None


def test_the_newest_are_kept_by_step(store: CheckpointStore) -> None:
    save(store, 2, 9, 10, 100)
    assert sorted(path.name for path in store.folder.iterdir()) == ["step-00000010", "step-00000100"]
    assert found(store) == 100
    save(CheckpointStore(store.folder, keep=1), 101)
    assert [path.name for path in store.folder.iterdir()] == ["step-00000101"]


def test_a_step_can_be_saved_again(store: CheckpointStore) -> None:
    save(store, 1, 2)
    store.save(Checkpoint(2, {"weight": torch.zeros(3)}, {}))
    assert torch.equal(store.latest().tensors["weight"], torch.zeros(3))
    assert len(list(store.folder.iterdir())) == 2


@pytest.mark.parametrize(
    "damage", ["truncated", "flipped", "no tensors", "no state", "half a state", "no hash", "list"]
)
def test_a_damaged_one_is_named_and_passed_over(
    store: CheckpointStore, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    _, newest = save(store, 1, 2)
    tensors, state = newest / TENSOR_FILE, newest / STATE_FILE
    content = tensors.read_bytes()
    if damage == "truncated":
        tensors.write_bytes(content[: len(content) // 2])
    elif damage == "flipped":
        tensors.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    elif damage == "no tensors":
        tensors.unlink()
    elif damage == "no state":
        state.unlink()
    elif damage == "half a state":
        state.write_text(state.read_text()[:20])
    else:
        state.write_text("[]" if damage == "list" else json.dumps({"step": 2, "values": {}}))
    with caplog.at_level(logging.WARNING):
        assert found(store) == 1
    assert str(newest) in caplog.text and "damaged" in caplog.text
    save(store, 3)
    assert found(store) == 3


def test_when_all_are_damaged_the_run_begins_anew(store: CheckpointStore) -> None:
    for path in save(store, 1, 2):
        (path / TENSOR_FILE).write_bytes(b"")
    assert store.latest() is None


def test_a_half_written_directory_is_not_a_checkpoint(store: CheckpointStore) -> None:
    save(store, 1)
    partial = store.folder / ".partial-00000002-1"
    partial.mkdir()
    (partial / TENSOR_FILE).write_bytes(b"half")
    assert found(store) == 1


@pytest.mark.parametrize("failing", ["save_file", "fsync"])
def test_a_failing_save_leaves_the_older_ones_alone(
    store: CheckpointStore, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    save(store, 1, 2)

    def full(*arguments) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints if failing == "save_file" else checkpoints.os, failing, full)
        with pytest.raises(OSError, match="No space left"):
            save(store, 3)
    assert sorted(path.name for path in store.folder.iterdir()) == ["step-00000001", "step-00000002"]
    assert found(store) == 2


def test_files_are_on_disk_before_they_get_their_name(store: CheckpointStore, monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[str] = []
    fsync, rename = os.fsync, Path.rename
    monkeypatch.setattr(checkpoints.os, "fsync", lambda handle: (events.append("fsync"), fsync(handle)))
    monkeypatch.setattr(Path, "rename", lambda *paths: (events.append("rename"), rename(*paths)))
    save(store, 1)
    assert events == ["fsync", "fsync", "fsync", "rename", "fsync"]  # two files and their folder; then its name


@pytest.mark.slow
def test_a_disk_that_fills_up_is_an_os_error_and_costs_nothing(root: Path, tmp_path: Path) -> None:
    arguments = [sys.executable, "-m", "tests.training.processes", "full", str(tmp_path), "50000"]
    process = subprocess.run(arguments, cwd=root, capture_output=True, text=True, timeout=300)
    assert process.stdout.startswith("OSError"), process.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]
    assert torch.equal(CheckpointStore(tmp_path).latest().tensors["weight"], torch.ones(8))


def test_a_finished_run_is_forgotten(store: CheckpointStore) -> None:
    save(store, 1)
    store.clear()
    assert not store.folder.exists() and store.latest() is None
    store.clear()


def test_every_byte_of_the_state_is_covered(store: CheckpointStore) -> None:
    """A number of it changed for another is JSON as before, and no longer what was written."""
    older, newer = save(store, 1, 2)
    text = (newer / STATE_FILE).read_text()
    for place, letter in enumerate(text):
        if letter.isdigit():
            changed = text[:place] + str((int(letter) + 1) % 10) + text[place + 1 :]
            (newer / STATE_FILE).write_text(changed)
            assert found(store) == 1, changed
    (newer / STATE_FILE).write_text(text)
    assert found(store) == 2
    assert older.exists()


def test_what_is_renamed_is_on_disk(store: CheckpointStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of each checkpoint: contents, then its folder, then, after the rename, the folder that its name is in."""
    synced = []
    monkeypatch.setattr(checkpoints.files, "sync", lambda path: synced.append((path.name, path.exists())))
    (saved,) = save(store, 1)
    names = [name for name, _ in synced]
    assert names[:2] == [TENSOR_FILE, STATE_FILE] and names[2].startswith(".partial") and names[3] == "run"
    assert all(there for _, there in synced) and saved.exists()
