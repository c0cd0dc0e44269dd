"""Placement of models: devices, precision of weights and adapters, and gradients that are computed again."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from components.models.artist import Artist
from components.models.compute import ComputeSettings, Placement, generator_on
from components.models.critic import Critic, ReasoningLatent
from components.models.lora import LoraSettings, adapter_tensors
from components.training.critic_sft import completion_loss
from tests.conftest import make_photo
from tests.tiny_models import WIDTH

HALF = Placement(torch.device("cpu"), torch.bfloat16)
TEXT = "exposure low severe; contrast fine."


@pytest.fixture(scope="module")
def photos() -> list[Tensor]:
    return [make_photo(64, 96, seed=0), make_photo(112, 112, seed=1)]


def test_a_place_is_what_the_settings_say() -> None:
    assert ComputeSettings(device="cpu").place() == Placement()
    assert ComputeSettings(device="cpu", dtype="bfloat16").place() == HALF
    expected = "cuda" if torch.cuda.is_available() else "cpu"
    assert ComputeSettings().place().device.type == expected


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_missing_device_is_an_error() -> None:
    with pytest.raises(RuntimeError, match="PyTorch sees none"):
        ComputeSettings(device="cuda").place()


def test_a_generator_stays_itself_on_its_own_device() -> None:
    generator = torch.Generator().manual_seed(3)
    before = generator.get_state()
    assert generator_on(torch.device("cpu"), generator) is generator
    assert torch.equal(generator.get_state(), before)


def test_the_critic_in_half_precision_says_nearly_the_same(base: Path, photos: list[Tensor]) -> None:
    single, half = (Critic.load(base / "critic", placement=placement) for placement in (None, HALF))
    assert {parameter.dtype for parameter in half.model.parameters()} == {torch.bfloat16}
    views = [(photo, TEXT) for photo in photos]
    with torch.no_grad():
        expected = completion_loss(single, views)
        torch.testing.assert_close(completion_loss(half, views), expected, rtol=0.02, atol=0.02)
    assert half.generate(photos, max_new_tokens=3).latent.states_BLD.dtype == torch.bfloat16


def test_the_artist_in_half_precision_paints_nearly_the_same(base: Path) -> None:
    pictures = torch.stack([make_photo(32, 32, seed=seed) for seed in range(2)])
    latent = ReasoningLatent(torch.randn(2, 4, WIDTH), torch.ones(2, 4, dtype=torch.bool))
    results = []
    for placement in (None, HALF):
        artist = Artist.load(base / "artist", placement=placement)
        grid, clean = artist.grid(pictures), artist.encode(pictures)
        velocity = artist.velocity(clean, clean, torch.tensor([1.0, 0.5]), latent, grid)
        results.append((clean, velocity, artist.decode(clean, grid)))
        assert {tensor.dtype for tensor in results[-1]} == {torch.float32}
    for ours, expected in zip(*reversed(results), strict=True):
        assert not torch.equal(ours, expected)
        assert float((ours - expected).square().mean() / expected.square().mean()) < 1e-3


def test_adapters_are_trained_in_single_precision(base: Path, photos: list[Tensor]) -> None:
    critic = Critic.load(base / "critic", placement=HALF)
    artist = Artist.load(base / "artist", placement=HALF)
    for module, model in ((critic, "model"), (artist, "transformer")):
        module.add_adapter(LoraSettings(rank=2, alpha=4))
        tensors = adapter_tensors(getattr(module, model)).values()
        assert {tensor.dtype for tensor in tensors} == {torch.float32}
    completion_loss(critic, [(photos[0], TEXT)]).backward()
    gradients = [parameter.grad for parameter in adapter_tensors(critic.model).values()]
    assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients)
    assert any(gradient.abs().max() > 0 for gradient in gradients)


def test_checkpointing_keeps_the_gradients_and_saves_memory(base: Path, photos: list[Tensor]) -> None:
    views, results = [(photo, TEXT) for photo in photos], []
    for checkpointing in (False, True):
        critic = Critic.load(base / "critic")
        critic.add_adapter(LoraSettings(rank=2, alpha=4), seed=1)
        if checkpointing:
            critic.checkpoint_gradients()
        saved = 0

        def pack(tensor: Tensor) -> Tensor:
            nonlocal saved
            saved += tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            loss = completion_loss(critic, views)
        kept = saved
        loss.backward()
        results.append((kept, {n: p.grad for n, p in adapter_tensors(critic.model).items()}))
        assert critic.generate(photos, max_new_tokens=2).tokens_BT.shape[1] == 2  # with its cache, in evaluation mode
    (plain, expected), (checkpointed, ours) = results
    assert checkpointed < plain
    torch.testing.assert_close(ours, expected)


def test_the_artist_checkpoints_too(base: Path) -> None:
    pictures = torch.stack([make_photo(32, 32, seed=seed) for seed in range(2)])
    latent = ReasoningLatent(torch.randn(2, 4, WIDTH), torch.ones(2, 4, dtype=torch.bool))
    results = []
    for checkpointing in (False, True):
        artist = Artist.load(base / "artist")
        artist.add_adapter(LoraSettings(rank=2, alpha=4), seed=1)
        if checkpointing:
            artist.checkpoint_gradients()
        clean = artist.encode(pictures)
        velocity = artist.velocity(clean, clean, torch.tensor([1.0, 0.5]), latent, artist.grid(pictures))
        velocity.square().mean().backward()
        results.append({n: p.grad for n, p in adapter_tensors(artist.transformer).items()})
    torch.testing.assert_close(results[1], results[0])
