"""Base training of Critic and Artist: what they are taught on, the loss on the edit's colours, and that they learn."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from components.imaging.photo import Photo, write_photo
from components.models.artist import Artist
from components.models.critic import Critic
from components.photometry.colour import delta_e_2000, srgb_to_lab
from components.verdict.grammar import parse
from tests.conftest import make_photo
from tests.recording import RecordingTracker
from tools.base_models import artist as module
from tools.base_models.artist import Example, edit_loss, train_artist, verdict_pool, with_colours
from tools.base_models.critic import annotate, train_critic
from tools.base_models.faults import Spoilt
from tools.base_models.tiles import Tiles
from tools.base_models.tower import SIZES


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Path, str]]:
    folder = tmp_path_factory.mktemp("photos")
    for index in range(4):
        write_photo(Photo(make_photo(120, 150, seed=index)), folder / f"{index}.png")
    return [(path, "own") for path in sorted(folder.iterdir())]


def pictures(count: int, height: int = 64, width: int = 64) -> Tensor:
    return torch.stack([make_photo(height, width, seed=seed) for seed in range(count)])


def test_an_affine_change_of_colours_reaches_the_photo_whole() -> None:
    photos = pictures(3)
    matrix, offset = torch.eye(3) + 0.1 * torch.randn(3, 3, generator=torch.Generator().manual_seed(0)), 0.03
    changed = torch.einsum("ij,bjhw->bihw", matrix, photos) + offset
    torch.testing.assert_close(with_colours(photos, photos, changed), changed, rtol=0, atol=0.02)
    torch.testing.assert_close(with_colours(photos, photos, photos), photos)


def test_detail_that_the_edit_lost_stays_the_photos() -> None:
    photos = pictures(2)
    blurred = torch.nn.functional.avg_pool2d(photos, 5, 1, 2, count_include_pad=False)
    torch.testing.assert_close(with_colours(photos, blurred, blurred * 0.8), photos * 0.8, rtol=0, atol=0.02)


def test_verdicts_name_what_was_done_to_the_pictures(photos: list[tuple[Path, str]]) -> None:
    tiles = Tiles(photos, SIZES[:1], cuts=1)
    made = annotate(tiles, SIZES[0], 24, torch.Generator().manual_seed(0))
    assert made.pictures.shape == (24, 3, *SIZES[0]) and len(made.texts) == 24
    verdicts = [parse(text) for text in made.texts]
    for verdict, bad in zip(verdicts, made.faulty.tolist(), strict=True):
        assert bad or (verdict.score == 100 and not verdict.suggestions)
    lab = srgb_to_lab(made.pictures / 255), srgb_to_lab(made.intact / 255)
    sizes = delta_e_2000(*lab).mean((1, 2))
    assert all(verdict.suggestions for verdict, size in zip(verdicts, sizes, strict=True) if size > 5)
    assert all(verdict.score < 90 for verdict, size in zip(verdicts, sizes, strict=True) if size > 5)
    spoilt, intact, texts = made.draw(5, torch.Generator().manual_seed(1))
    assert spoilt.pictures.shape == intact.shape == (5, 3, *SIZES[0]) and len(texts) == 5


@pytest.mark.slow
def test_the_loss_on_colours_reaches_the_transformer_and_falls(base: Path) -> None:
    artist, critic = Artist.load(base / "artist"), Critic.load(base / "critic")
    intact = pictures(8, 32, 32)
    spoilt = Spoilt(intact * 0.5, torch.ones(8, dtype=torch.bool))
    latent = critic.instruction_latent(list(spoilt.pictures), [critic.prompt] * 8)
    example = Example(spoilt, intact, latent)
    artist.transformer.requires_grad_(True)
    optimiser = torch.optim.Adam(artist.transformer.parameters(), 3e-3)
    lefts = []
    for _ in range(30):
        values = edit_loss(artist, example, torch.Generator().manual_seed(0))
        values["loss"].backward()
        optimiser.step()
        optimiser.zero_grad()
        lefts.append(float(values["left"]))
    assert lefts[-1] < lefts[0]
    assert all(value.isfinite() for value in values.values())


@pytest.mark.slow
def test_the_artist_is_trained_on_what_the_critic_says(
    photos: list[tuple[Path, str]], base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SHOWN_SIZES", ((64, 64),))
    monkeypatch.setattr(module, "SMALL_SIZES", ((32, 32),))
    tiny = Artist.load(base / "artist").transformer.requires_grad_(True)
    monkeypatch.setattr(module, "build_transformer", lambda width: tiny)
    critic, tracker = Critic.load(base / "critic"), RecordingTracker()
    tiles = Tiles(photos, [(64, 64), (32, 32)], cuts=1)
    few = lambda tiles, critic: verdict_pool(tiles, critic, count=4, at_once=2)  # noqa: E731
    monkeypatch.setattr(module, "verdict_pool", few)
    out = tmp_path / "out"
    train_artist(tiles, critic, base / "artist" / "vae", out, tmp_path / "work", tracker, 2, 2, batch=2)
    assert Artist.load(out).area == 64 * 64
    again = tmp_path / "again"
    train_artist(
        tiles, critic, base / "artist" / "vae", again, tmp_path / "other", tracker, 1, 0, 2, out / "transformer"
    )
    assert (again / "transformer").is_dir()


@pytest.mark.slow
def test_the_critic_is_trained_from_photos_to_a_folder_that_loads(
    photos: list[tuple[Path, str]], tmp_path: Path
) -> None:
    tiles, tracker = Tiles(photos, SIZES, cuts=1), RecordingTracker()
    train_critic(tiles, tiles, tmp_path / "critic", tmp_path / "work", tracker, 2, 2, batch=2, pool=12)
    critic = Critic.load(tmp_path / "critic")
    assert len(critic.generate([pictures(1)[0]], max_new_tokens=4).texts) == 1
