"""Cached latents: the bits of those that are computed, found again only for the same pixels and autoencoder."""

import logging
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from components.imaging.photo import resize
from components.models.artist import Artist
from components.models.lora import LoraSettings
from components.training.artist_sft import ArtistSftSettings, train_artist
from components.training.latents import FOLDER, LatentCache, fingerprint
from components.training.loop import OptimiserSettings
from tests.recording import RecordingTracker
from tests.tiny_data import write_pairs

ROOM = 1e9
SETTINGS = ArtistSftSettings(
    lora=LoraSettings(rank=2, alpha=4),
    optimiser=OptimiserSettings(learning_rate=1e-2, steps=3, warmup_steps=1),
    kinds=("enhancement",),
    batch_size=3,
    sampling_steps=1,
)


def pictures(count: int = 4) -> torch.Tensor:
    return torch.rand(count, 3, 24, 40, generator=torch.Generator().manual_seed(3))


def kept(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.safetensors"))


def test_latents_have_the_bits_of_those_computed_in_whatever_batch_they_were_first_seen(
    artist: Artist, tmp_path: Path
) -> None:
    images, cache = pictures(), LatentCache(tmp_path, artist, ROOM)
    expected = artist.encode(images)
    for rows in ([0, 1], [1, 2], [2, 0, 3], [3, 2, 1, 0]):  # of the second and the third batch one picture is new
        assert torch.equal(cache.encode(images[rows]), expected[rows])
    assert (cache.misses, cache.hits) == (4, 7) and len(kept(tmp_path)) == 4
    again = LatentCache(tmp_path, artist, ROOM)
    assert torch.equal(again.encode(images), expected) and (again.misses, again.hits) == (0, 4)
    alone = LatentCache(tmp_path / "alone", artist, ROOM).encode(images[:1])
    assert torch.equal(alone, artist.encode(images[:1]))


def test_other_pixels_another_size_or_another_autoencoder_are_encoded(artist: Artist, tmp_path: Path) -> None:
    images = pictures(2)
    LatentCache(tmp_path, artist, ROOM).encode(images)
    cache = LatentCache(tmp_path, artist, ROOM)
    changed = images.clone()
    changed[0, 0, 0, 0] = torch.nextafter(changed[0, 0, 0, 0], torch.tensor(2.0))
    for other, misses in ((changed, 1), (images.flip(-1), 3), (resize(images, (40, 24)), 5)):
        assert torch.equal(cache.encode(other), artist.encode(other)) and cache.misses == misses
    before = fingerprint(artist)
    with torch.no_grad():
        next(artist.vae.encoder.parameters()).view(-1)[0] += 0.5
    assert fingerprint(artist) != before
    retrained = LatentCache(tmp_path, artist, ROOM)
    assert torch.equal(retrained.encode(images), artist.encode(images)) and retrained.misses == 2
    before = fingerprint(artist)
    artist.vae.register_to_config(latents_mean=[1.0] * artist.vae.config.z_dim)
    assert fingerprint(artist) != before


def test_the_fingerprint_does_not_tell_where_the_model_lies(base: Path, tmp_path: Path) -> None:
    moved = tmp_path / "moved"
    moved.symlink_to(base / "artist")
    assert fingerprint(Artist.load(moved)) == fingerprint(Artist.load(base / "artist"))


def test_a_damaged_entry_is_named_and_made_anew(
    artist: Artist, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    images = pictures(2)
    expected = LatentCache(tmp_path, artist, ROOM).encode(images)
    first, second = kept(tmp_path)
    first.write_bytes(first.read_bytes()[:-7])
    second.unlink()
    cache = LatentCache(tmp_path, artist, ROOM)
    with caplog.at_level(logging.WARNING):
        assert torch.equal(cache.encode(images), expected)
    assert str(first) in caplog.text and "damaged" in caplog.text and cache.misses == 2
    assert kept(tmp_path) == [first, second]
    assert torch.equal(LatentCache(tmp_path, artist, ROOM).encode(images), expected)


def test_the_folder_grows_no_further_than_allowed(
    artist: Artist, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    images = pictures()
    expected = artist.encode(images)
    room = 2.5 * expected[0].numel() * 4
    cache = LatentCache(tmp_path, artist, room)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            assert torch.equal(cache.encode(images), expected)
    assert len(kept(tmp_path)) == 2 and caplog.text.count("as many as allowed") == 1
    LatentCache(tmp_path, artist, room).encode(pictures(5)[4:])  # what is there counts for a new process as well
    assert len(kept(tmp_path)) == 2


@pytest.mark.slow
def test_a_stage_learns_the_same_with_and_without_them(base: Path, tmp_path: Path) -> None:
    pairs = write_pairs(tmp_path / "pairs", ("enhancement",), each=2)
    curves, adapters, closings = [], [], []
    for number, cached in enumerate((False, True, True)):
        tracker, work = RecordingTracker(), tmp_path / ("plain" if not cached else "cached")
        settings = SETTINGS.model_copy(update={"cache_latents": cached})
        out = tmp_path / f"out-{number}"
        closings.append(train_artist(base, pairs, out, settings, tracker, work / f"checkpoints-{number}"))
        assert len(kept(work / FOLDER)) == (12 if cached else 0)  # the eight inputs of four photos, and these
        curves.append(tracker.series("artist_sft/loss"))
        adapters.append(load_file(out / "adapter_model.safetensors"))
    assert curves[0] == curves[1] == curves[2]
    assert closings[0]["validation_loss"] == closings[1]["validation_loss"] == closings[2]["validation_loss"]
    for adapter in adapters[1:]:
        assert all(torch.equal(tensor, adapters[0][name]) for name, tensor in adapter.items())
