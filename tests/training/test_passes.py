"""What a meter counts against what torch's FLOP counter sees, and the rates that it reports."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from components.imaging.photo import resize
from components.models.artist import Artist
from components.models.critic import Critic
from components.models.lora import LoraSettings
from components.training.passes import metered
from components.training.throughput import Meter, hardware
from tests.conftest import make_photo

PHOTOS = [make_photo(40, 60, seed=number) for number in range(2)]


class Models(NamedTuple):
    """Tiny models under one meter."""

    critic: Critic
    artist: Artist
    meter: Meter


@pytest.fixture(scope="module")
def models(base: Path) -> Models:
    critic, artist = Critic.load(base / "critic"), Artist.load(base / "artist")
    for seed, model in enumerate((critic, artist)):
        model.add_adapter(LoraSettings(rank=2, alpha=4), seed)
    return Models(critic, artist, metered(2, critic, artist))


def write(models: Models) -> None:
    models.critic.generate(PHOTOS, 3, 1.0, 8, torch.Generator().manual_seed(0))


def train_critic(models: Models) -> None:
    tokens, mask = models.critic.encode_completions(["exposure contrast exposure", "exposure"])
    models.critic.log_probabilities(models.critic.prompts(PHOTOS), tokens, mask)[0].mean().backward()


def code(models: Models) -> None:
    pictures = torch.stack([resize(photo, (24, 40)) for photo in PHOTOS])
    models.artist.decode(models.artist.encode(pictures), models.artist.grid(pictures))


def train_artist(models: Models) -> None:
    latent = models.critic.instruction_latent(PHOTOS, ["exposure"] * 2)
    grid = models.artist.grid(torch.empty(3, 24, 40))
    noisy, source = torch.randn(2, 2, grid.tokens, 32, generator=torch.Generator().manual_seed(0))
    models.artist.velocity(noisy, source, torch.full((2,), 0.5), latent, grid).mean().backward()


@pytest.mark.parametrize("run", [write, train_critic, code, train_artist])
def test_operations_are_those_that_torch_counts(models: Models, run: Callable[[Models], None]) -> None:
    run(models)  # the autoencoder's operations are counted once, by a pass of its own
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:  # fused CPU attention is not counted
        with models.meter.measuring():
            run(models)
        expected = counter.get_total_flops()
    took = models.meter._seconds
    assert models.meter.report()["teraflops_per_second"] * took * 1e12 == pytest.approx(expected, rel=1e-9)


def test_tokens_are_counted_without_padding(models: Models) -> None:
    prompts = models.critic.prompts(PHOTOS)
    lengths = [len(models.critic.processor.tokenizer.encode(t)) + 1 for t in ("exposure contrast exposure", "exposure")]
    with models.meter.measuring():
        train_critic(models)
    took = models.meter._seconds
    report = models.meter.report()
    assert report["critic_tokens_per_second"] * took == pytest.approx(prompts.attention_mask_BP.sum() + sum(lengths))
    assert report["samples_per_second"] * took == pytest.approx(2)
    assert "mfu" not in report, "the peak of a CPU is not known"


def test_nothing_outside_of_steps_is_counted(models: Models) -> None:
    models.meter.report()
    train_critic(models)
    assert models.meter.report().keys() == {"peak_process_gib"}


def test_memory_is_that_of_the_process() -> None:
    def peak() -> float:
        """Of this process by now, in GiB, as Linux tells it."""
        status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
        return int(status["VmHWM"].split()[0]) / 2**20

    before, reported, after = peak(), Meter().report()["peak_process_gib"], peak()
    assert before - 0.01 <= reported <= after + 0.01


def test_a_stage_says_on_what_it_computes(models: Models, monkeypatch: pytest.MonkeyPatch) -> None:
    assert models.meter.hardware == ("cpu", "float32", 1)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA H200")
    assert hardware(torch.device("cuda"), torch.bfloat16) == ("NVIDIA H200", "bfloat16", 1)
