"""All stages on tiny models, small enough to run in one process and in two, and compare.

    torchrun ... -m tests.training.parallel_runs INPUTS OUT

Two ranks run the stages with whole models (`ddp`) and with sharded and checkpointed ones (`fsdp`); the main rank leaves
adapters and metrics.
"""

import json
import os
import signal
import sys
from pathlib import Path

import torch

from components.models.compute import TrainingComputeSettings
from components.models.lora import LoraSettings
from components.parallel import ranks
from components.reinforcement.coordinated import reinforce
from components.training import artist_sft, critic_sft
from components.training.artist_sft import ArtistSftSettings
from components.training.checkpoints import Checkpoint, CheckpointStore
from components.training.critic_sft import CriticSftSettings
from components.training.loop import OptimiserSettings
from tests.recording import RecordingTracker
from tests.stage_three import SETTINGS as STAGE_THREE
from tests.stage_three import Inputs, reading_by_hash, write_inputs
from tests.tiny_data import write_annotations, write_pairs

STAGES = ("train_critic", "train_artist", "adapt_artist", "reinforce")
SHARDED = ("train_critic", "adapt_artist", "reinforce")
WHOLE = ("train_critic", "train_artist")
FSDP = TrainingComputeSettings(processes=2, sharding="fsdp", gradient_checkpointing=True)
LORA = LoraSettings(rank=2, alpha=4)
OPTIMISER = OptimiserSettings(learning_rate=1e-3, steps=3, warmup_steps=1, ema_decay=0.5)
CRITIC = CriticSftSettings(lora=LORA, optimiser=OPTIMISER, batch_size=5, checkpoint_every=1)
ARTIST = ArtistSftSettings(
    lora=LORA,
    optimiser=OPTIMISER,
    kinds=("retouching", "enhancement"),
    batch_size=5,
    sampling_steps=2,
    pictures_every=2,
    checkpoint_every=1,
    max_new_tokens=6,
)
REINFORCE = STAGE_THREE.model_copy(
    update={
        "rollouts": STAGE_THREE.rollouts.model_copy(update={"photos": 3}),
        "critic_learning_rate": 1e-3,
        "artist_learning_rate": 1e-3,
        "feedback": 0.5,
    }
)


def write_everything(folder: Path) -> Inputs:
    """What all stages start from, below a folder."""
    inputs = write_inputs(folder)
    write_pairs(folder / "both", ("retouching", "enhancement"))
    write_annotations(folder / "annotations", folder / "photos")
    return inputs


def run_stage(stage: str, folder: Path, out: Path, compute: TrainingComputeSettings, **changes: str) -> None:
    """Run one stage on what `write_everything` wrote; the main rank leaves `metrics.json` in `out`."""
    base, tracker = folder / "base", RecordingTracker()
    settings = {"train_critic": CRITIC, "reinforce": REINFORCE}.get(stage, ARTIST)
    settings = settings.model_copy(update={"compute": compute, **changes})
    rest = {"out": out, "settings": settings, "tracker": tracker, "checkpoints": out / "checkpoints"}
    if stage == "train_critic":
        closing = critic_sft.train_critic(base, folder / "annotations", folder / "photos", **rest)
    elif stage == "train_artist":
        closing = artist_sft.train_artist(base, folder / "both", **rest)
    elif stage == "adapt_artist":
        closing = artist_sft.adapt_artist(base, folder / "critic", folder / "artist", folder / "both", **rest)
    else:
        with reading_by_hash():
            closing = reinforce(base, folder / "critic", folder / "artist", folder / "pairs", **rest)
    if ranks.is_main():
        (out / "metrics.json").write_text(json.dumps({"rows": tracker.rows, "closing": closing}))


def run_in_one(folder: Path, out: Path) -> None:
    """All stages, and those that can train whole weights once more with them, in this process."""
    for stage in STAGES:
        run_stage(stage, folder, out / "one" / stage, TrainingComputeSettings())
    for stage in WHOLE:
        run_stage(stage, folder, out / "one" / "full" / stage, TrainingComputeSettings(), trainable="full")


def run_in_two(folder: Path, out: Path) -> None:
    """The same as one of two ranks; at the end the second one is killed."""
    for stage in STAGES:
        run_stage(stage, folder, out / "ddp" / stage, TrainingComputeSettings(processes=2))
    for stage in SHARDED:
        run_stage(stage, folder, out / "fsdp" / stage, FSDP)
    for stage in WHOLE:
        run_stage(stage, folder, out / "fsdp" / "full" / stage, FSDP, trainable="full")
    half = FSDP.model_copy(update={"dtype": "bfloat16"})
    run_stage("train_artist", folder, out / "half", half, trainable="full")
    die_when_saving(2)
    run_stage("train_critic", folder, out / "killed", FSDP)


def die_when_saving(step: int) -> None:
    """Kill the second rank at the moment at which the first one writes the checkpoint of a step."""
    save = CheckpointStore.save

    def die(store: CheckpointStore, checkpoint: Checkpoint) -> Path:
        if checkpoint.step == step and not ranks.is_main():
            os.kill(os.getpid(), signal.SIGKILL)
        return save(store, checkpoint)

    CheckpointStore.save = die


if __name__ == "__main__":
    torch.set_num_threads(1)
    with ranks.joined("cpu"):
        run_in_two(Path(sys.argv[1]), Path(sys.argv[2]))
