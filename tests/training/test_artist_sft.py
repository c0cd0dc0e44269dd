"""Stages I and II of the Artist: the loss by hand, what each stage conditions on, and runs that resume."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from components.models.artist import Artist
from components.models.critic import Critic, ReasoningLatent
from components.models.flow import training_sigmas
from components.models.lora import LoraSettings
from components.training import artist_sft as sft
from components.training.artist_sft import (
    ArtistSftSettings,
    adapt_artist,
    before_after,
    draw_noise,
    pair_loss,
    train_artist,
)
from components.training.batches import PairBatches
from components.training.loop import OptimiserSettings
from tests.recording import RecordingTracker
from tests.tiny_data import write_pairs
from tests.tiny_models import write_adapters

SETTINGS = ArtistSftSettings(
    lora=LoraSettings(rank=2, alpha=4),
    optimiser=OptimiserSettings(learning_rate=1e-2, steps=4, warmup_steps=1),
    kinds=("retouching", "enhancement"),
    batch_size=2,
    sampling_steps=2,
    pictures_every=2,
    checkpoint_every=2,
    max_new_tokens=4,
)


@pytest.fixture(scope="module")
def pairs_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pairs(tmp_path_factory.mktemp("pairs"), ("retouching", "enhancement"), each=1)


@pytest.fixture(scope="module")
def adapters(base: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return write_adapters(base, tmp_path_factory.mktemp("adapters"))


def adapter(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "adapter_model.safetensors")


def equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@torch.no_grad()
def test_the_loss_is_flow_matching_at_levels_of_the_inference_distribution(
    artist: Artist, pairs_dir: Path, latent: ReasoningLatent, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a velocity that is a plain sum of all it is given, so that each of them shows in the loss."""

    def velocity(self: Artist, noisy, source, sigmas, words: ReasoningLatent, grid) -> torch.Tensor:
        assert noisy.shape[1] == grid.tokens
        return noisy + 2 * source + (sigmas + words.states_BLD.mean(dim=(1, 2)))[:, None, None]

    monkeypatch.setattr(Artist, "velocity", velocity)
    batch = PairBatches(pairs_dir, "train", ["retouching"], artist).draw(3, torch.Generator().manual_seed(0))
    found = pair_loss(artist, batch, latent, draw_noise(artist, batch, torch.Generator().manual_seed(5)))
    generator = torch.Generator().manual_seed(5)
    clean, source = artist.encode(batch.targets), artist.encode(batch.inputs)
    noise = torch.randn(clean.shape, generator=generator)
    sigmas = training_sigmas(artist.scheduler, 3, clean.shape[1], generator)
    errors = []
    for i, t in enumerate(sigmas):
        noisy = (1 - t) * clean[i] + t * noise[i]
        v = noisy + 2 * source[i] + t + latent.states_BLD[i].mean()
        errors.append((v - noise[i] + clean[i]).double().square().mean())
    assert float(found) == pytest.approx(float(sum(errors) / 3), rel=1e-6)


def test_pictures_show_input_edit_and_truth_side_by_side(artist: Artist, pairs_dir: Path) -> None:
    batch = PairBatches(pairs_dir, "train", ["retouching"], artist).draw(2, torch.Generator().manual_seed(0))
    height, width = batch.inputs.shape[-2:]
    edits = torch.full_like(batch.inputs[:1], 0.25)
    picture = before_after(batch, edits)
    assert picture.shape == (3, height + 4, 3 * width + 8)
    columns = [picture[:, 2 : 2 + height, 2 + k * (width + 2) :][..., :width] for k in range(3)]
    for column, expected in zip(columns, (batch.inputs[0], edits[0], batch.targets[0]), strict=True):
        assert torch.equal(column, expected)


@pytest.mark.slow
def test_stage_one_learns_from_task_prompts_and_resumes_to_the_same_adapter(
    base: Path, pairs_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    original = Critic.instruction_latent

    def listening(self: Critic, images, instructions):
        told.extend(instructions)
        return original(self, images, instructions)

    monkeypatch.setattr(Critic, "instruction_latent", listening)
    monkeypatch.setattr(Critic, "generate", None)
    before = {path: path.read_bytes() for path in base.rglob("*") if path.is_file()}
    tracker = RecordingTracker()
    closing = train_artist(base, pairs_dir, tmp_path / "whole", SETTINGS, tracker, tmp_path / "checkpoints")
    assert set(closing) >= {"loss", "validation_loss"}
    assert "Enhance." in told and len(set(told)) > 2
    assert [(name, step) for name, step, _ in tracker.pictures] == [
        ("artist_sft/input_edit_truth", step) for step in (2, 4)
    ]
    assert tracker.series("artist_sft/validation_loss") == [(4, closing["validation_loss"])]

    def dying(*arguments, calls=[]):  # noqa: B006  the calls are meant to be remembered
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return pair_loss(*arguments)

    monkeypatch.setattr(sft, "pair_loss", dying)
    arguments = (base, pairs_dir, tmp_path / "resumed", SETTINGS, RecordingTracker(), tmp_path / "other")
    with pytest.raises(KeyboardInterrupt):
        train_artist(*arguments)
    monkeypatch.setattr(sft, "pair_loss", pair_loss)
    again = train_artist(*arguments)
    assert again["validation_loss"] == closing["validation_loss"]
    assert equal(adapter(tmp_path / "whole"), adapter(tmp_path / "resumed"))
    assert any(t.abs().max() > 0 for n, t in adapter(tmp_path / "whole").items() if "lora_B" in n)
    assert {path: path.read_bytes() for path in base.rglob("*") if path.is_file()} == before


@pytest.mark.slow
def test_stage_two_goes_on_from_stage_one_and_listens_to_the_critics_own_verdicts(
    base: Path, pairs_dir: Path, adapters: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Critic, "instruction_latent", None)
    temperatures: list[float] = []
    original = Critic.generate

    def listening(self: Critic, images, **settings):
        temperatures.append(settings["temperature"])
        return original(self, images, **settings)

    monkeypatch.setattr(Critic, "generate", listening)
    tracker = RecordingTracker()
    before = [adapter(folder) for folder in adapters]
    closing = adapt_artist(base, *adapters, pairs_dir, tmp_path / "out", SETTINGS, tracker, tmp_path / "checkpoints")
    assert set(temperatures) == {SETTINGS.critic_temperature} and len(temperatures) >= SETTINGS.optimiser.steps
    assert tracker.series("artist_reasoning/validation_loss") == [(4, closing["validation_loss"])]
    assert not equal(adapter(tmp_path / "out"), before[1])
    assert [adapter(folder).keys() for folder in adapters] == [tensors.keys() for tensors in before]
    assert all(equal(adapter(folder), tensors) for folder, tensors in zip(adapters, before, strict=True))
    with_rank_two = Artist.load(base / "artist", tmp_path / "out")
    assert with_rank_two.transformer.peft_config["default"].r == 2
    again = adapt_artist(
        base, *adapters, pairs_dir, tmp_path / "again", SETTINGS, RecordingTracker(), tmp_path / "others"
    )
    assert again == pytest.approx(closing | {"seconds": again["seconds"]}, rel=1e-12)
    assert equal(adapter(tmp_path / "out"), adapter(tmp_path / "again"))
