"""A stage III small enough for tests, also as a process that kills itself.

    python -m tests.stage_three INPUTS OUT THREADS

The untrained Critic writes noise. So that there is something to reward, its texts are read by their hash: three in four
make a verdict, always the same one for the same text.
"""

import hashlib
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple
from unittest.mock import patch

import torch

from components.metrics.full_reference import LPIPS_FILE
from components.models.artist import Artist
from components.models.critic import Critic
from components.models.lora import LoraSettings, adapter_tensors
from components.reinforcement import comparison, rollouts
from components.reinforcement.comparison import ComparisonSettings
from components.reinforcement.coordinated import ReinforceSettings, reinforce
from components.reinforcement.judges.judge import AttributeJudge, Judge
from components.reinforcement.rewards.artist import PerceptualDistance
from components.reinforcement.rollouts import RolloutSettings, Round, reward, sample
from components.training.batches import PairBatch
from components.verdict.grammar import Verdict, suggest
from tests.recording import RecordingTracker
from tests.tiny_data import write_pairs
from tests.tiny_models import write_base, write_lpips

SETTINGS = ReinforceSettings(
    iterations=2,
    rollouts=RolloutSettings(photos=2, verdicts=4, edits=2, max_new_tokens=5, sampling_steps=2),
    critic_learning_rate=1e-2,
    artist_learning_rate=1e-2,
    micro_batch=5,
    reference_share=0.5,
    comparison=ComparisonSettings(draws=1, batch_size=2),
)


class Inputs(NamedTuple):
    """What stage III starts from, in the order of its arguments."""

    base: Path
    critic_adapter: Path
    artist_adapter: Path
    pairs: Path


def write_inputs(folder: Path) -> Inputs:
    """Untrained models with adapters that do something, LPIPS with random weights, and enhancement pairs."""
    base = write_base(folder / "base")
    write_lpips(base / LPIPS_FILE)
    critic, artist = Critic.load(base / "critic"), Artist.load(base / "artist")
    for seed, model in enumerate((critic, artist)):
        model.add_adapter(LoraSettings(rank=2, alpha=4), seed)
    generator = torch.Generator().manual_seed(0)
    for module in (critic.model, artist.transformer):
        for parameter in adapter_tensors(module).values():
            torch.nn.init.normal_(parameter, std=0.1, generator=generator)
    critic.save_adapter(folder / "critic")
    artist.save_adapter(folder / "artist")
    return Inputs(base, folder / "critic", folder / "artist", write_pairs(folder / "pairs"))


def read_by_hash(text: str) -> Verdict | None:
    """A verdict that depends on the text alone; None for one in four."""
    first, second, third, fourth = hashlib.sha256(text.encode()).digest()[:4]
    if first % 4 == 0:
        return None
    suggestions = (suggest("exposure", (second - 127.5) / 128), suggest("temperature", (third - 127.5) / 3))
    return Verdict(reasoning=("a", "b", "c", "d", "e"), suggestions=suggestions, score=fourth / 2.55)


def gather(
    critic: Critic,
    artist: Artist,
    batch: PairBatch,
    distance: PerceptualDistance,
    settings: RolloutSettings,
    generator: torch.Generator,
    judge: Judge | None = None,
) -> Round:
    """One round of experience, as the loop gathers it; judged by attributes unless another judge is named."""
    samples = sample(critic, artist, batch, settings, generator)
    return reward(samples, batch, distance, judge or AttributeJudge(settings.artist), settings)


@contextmanager
def reading_by_hash() -> Iterator[None]:
    """Let stage III read verdicts out of noise."""
    with patch.object(rollouts, "parses", read_by_hash), patch.object(comparison, "parses", read_by_hash):
        yield


class KillingTracker(RecordingTracker):
    """Kills the process, as a spot instance dies, when the second iteration is reported but not yet kept."""

    def metrics(self, values: dict[str, float], step: int) -> None:
        super().metrics(values, step)
        if step == 2 and "reinforce/artist/reward_total" in values:
            os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    inputs_folder, out = Path(sys.argv[1]), Path(sys.argv[2])
    torch.set_num_threads(int(sys.argv[3]))
    given = Inputs(*(inputs_folder / name for name in ("base", "critic", "artist", "pairs")))
    with reading_by_hash():
        reinforce(*given, out, SETTINGS, KillingTracker(), out / "checkpoints")
