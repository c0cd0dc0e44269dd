"""The tiny autoencoder: it trains, and a second one can learn to share the first one's latents."""

from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKLQwenImage

from components.imaging.photo import Photo, write_photo
from tests.conftest import make_photo
from tests.recording import RecordingTracker
from tools.base_models.photos import PhotoBank
from tools.base_models.vae import train_vae

pytestmark = pytest.mark.slow


@pytest.fixture
def bank(tmp_path: Path) -> PhotoBank:
    folder = tmp_path / "photos"
    folder.mkdir()
    for seed in range(2):
        write_photo(Photo(make_photo(96, 120, seed=seed)), folder / f"{seed}.png")
    return PhotoBank(None, [folder])


def train(bank: PhotoBank, folder: Path, like: Path | None = None) -> RecordingTracker:
    tracker = RecordingTracker()
    train_vae(bank, folder, folder.with_suffix(".work"), tracker, steps=8, batch=2, like=like)
    return tracker


def load(folder: Path) -> AutoencoderKLQwenImage:
    return AutoencoderKLQwenImage.from_pretrained(folder, torch_dtype=torch.float32).eval()


def test_latents_become_those_of_the_model_to_be_like(bank: PhotoBank, tmp_path: Path) -> None:
    first, alone, alike = tmp_path / "first", tmp_path / "alone", tmp_path / "alike"
    train(bank, first)
    with torch.no_grad():  # the encoder to be like says something else about every picture
        model = load(first)
        model.quant_conv.weight.mul_(-0.5)
        model.save_pretrained(first)
    train(bank, alone)
    tracker = train(bank, alike, like=first)
    assert tracker.series("base_vae/latent_l1")
    pixels = bank.crops(4, (64, 64), torch.Generator().manual_seed(9))[:, :, None] * 2 - 1
    with torch.no_grad():
        wanted, apart, close = (load(folder).encode(pixels).latent_dist.mode() for folder in (first, alone, alike))
    assert (close - wanted).abs().mean() < 0.5 * (apart - wanted).abs().mean()
