"""The Enhancer: real untrained models end to end, and scripted ones where the right answer has to be known."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from torch import Tensor

from components.imaging.originals import read_original
from components.imaging.photo import Photo, read_photo, resize, write_photo
from components.inference import enhancer as module
from components.inference.edit import EditOptions, fit_edit
from components.inference.enhancer import Enhancer, EnhancerSettings
from components.inference.restraint import RestraintSettings
from components.models.critic import ReasoningLatent
from components.models.package import PackageError
from components.photometry.operations import Operation, apply_operations
from components.verdict.grammar import Verdict, render, suggest
from tests.tiny_models import write_tiny_package

pytestmark = pytest.mark.slow

QUICK = EnhancerSettings(max_new_tokens=6, steps=2, draws=2, mirrored=True)
BRIGHTER = [Operation(name="exposure", amount=0.5)]
VERDICT = Verdict(reasoning=("a", "b", "c", "d", "e"), suggestions=(suggest("exposure", 0.5),), score=40.0)


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("package")
    return write_tiny_package(folder / "parts", folder / "package").folder


@pytest.fixture(scope="module")
def untrained(package: Path) -> Enhancer:
    return Enhancer.load(package, QUICK)


class ScriptedCritic:
    """Says what it is told to, and remembers what it was shown."""

    def __init__(self, texts: list[str]):
        self.texts, self.shown = texts, []

    def generate(self, images: list[Tensor], max_new_tokens: int):
        self.shown = images
        count = len(images)
        texts = [self.texts[i % len(self.texts)] for i in range(count)]
        latent = ReasoningLatent(torch.arange(count).view(-1, 1, 1).float(), torch.ones(count, 1, dtype=torch.bool))
        return type("Rollout", (), {"texts": texts, "latent": latent})()


class ScriptedArtist:
    """Works at 32x32 pixels; its autoencoder loses a tenth of the light, which must not reach the photo."""

    def working_size(self, width: int, height: int) -> tuple[int, int]:
        return 32, 32

    def grid(self, images: Tensor) -> None:
        return None

    def encode(self, images: Tensor) -> Tensor:
        return images

    def decode(self, latents: Tensor, grid: None) -> Tensor:
        return latents * 0.9


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> Enhancer:
    """Raises exposure by 0.5 EV and adds noise that depends on the generator."""

    def sample_edits(
        artist, sources: Tensor, latent: ReasoningLatent, steps: int, generator: torch.Generator
    ) -> Tensor:
        assert len(sources) == len(latent.states_BLD)
        noise = 0.1 * torch.randn(sources.shape, generator=generator)
        return artist.decode(artist.encode(apply_operations(sources, BRIGHTER)), None) + noise

    monkeypatch.setattr(module, "sample_edits", sample_edits)
    return Enhancer(ScriptedCritic([render(VERDICT)]), ScriptedArtist(), EnhancerSettings(draws=32, mirrored=True))


def test_untrained_models_enhance_a_photo_end_to_end(untrained: Enhancer, photo_factory) -> None:
    photo = Photo(photo_factory(75, 110))
    result = untrained.enhance(photo)
    height, width = untrained.artist.working_size(75, 110)
    assert result.photo.pixels.shape == photo.pixels.shape
    assert result.before_small.shape == result.after_small.shape == (3, height, width)
    assert result.photo.pixels.min() >= 0 and result.photo.pixels.max() <= 1
    assert result.verdict is None  # an untrained Critic does not know the grammar, and the photo is edited all the same
    assert result.text == untrained.critique(photo).text


def test_the_same_seed_gives_the_same_bytes_and_another_one_does_not(untrained: Enhancer, photo_factory) -> None:
    photo = Photo(photo_factory(75, 110))
    first, again, other = (untrained.enhance(photo, seed=seed).photo.pixels for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_photos_in_a_batch_do_not_influence_each_other(untrained: Enhancer, photo_factory) -> None:
    photos = [Photo(photo_factory(75, 110, seed=1)), Photo(photo_factory(60, 60, seed=2))]
    together = untrained.enhance_many(photos, seed=3)
    for photo, result in zip(photos, together, strict=True):
        alone = untrained.enhance(photo, seed=3)
        torch.testing.assert_close(result.photo.pixels, alone.photo.pixels, rtol=0, atol=1e-4)
        assert result.text == alone.text


def test_tiny_and_extremely_long_photos_work(untrained: Enhancer) -> None:
    for size in ((1, 1), (2, 40), (1, 500), (2000, 3), (60, 15_000)):
        assert untrained.enhance(Photo(torch.full((3, *size), 0.5))).photo.pixels.shape == (3, *size)


def test_the_edit_arrives_at_full_resolution_without_the_autoencoders_loss(scripted: Enhancer, photo_factory) -> None:
    photo = Photo(photo_factory(240, 320))
    result = scripted.enhance(photo)
    expected = apply_operations(photo.pixels, BRIGHTER)
    error = (result.photo.pixels - expected).square().mean()
    assert -10 * torch.log10(error) > 35
    assert result.verdict == VERDICT
    assert result.text == render(VERDICT)


def test_a_plan_applied_in_strips_is_the_enhancement(scripted: Enhancer, photo_factory, tmp_path: Path) -> None:
    write_photo(Photo(photo_factory(90, 130), bit_depth=16), tmp_path / "a.png")
    original = read_original(tmp_path / "a.png")
    plan = scripted.plan(original, seed=4, draws=2)
    edit = fit_edit(plan.before, plan.after, 90, EditOptions(), scripted.settings.transfer, plan.verdict)
    whole = scripted.enhance(read_photo(tmp_path / "a.png"), seed=4, draws=2)
    assert (plan.text, plan.verdict) == (whole.text, whole.verdict)
    torch.testing.assert_close(original.edited(edit).srgb(0, 90), whole.photo.pixels, rtol=0, atol=2e-5)
    assert scripted.critique(original).text == plan.text


def test_what_the_file_carried_stays_with_the_photo(scripted: Enhancer, photo_factory) -> None:
    alpha = torch.rand(1, 40, 60)
    photo = Photo(photo_factory(40, 60), alpha=alpha, format="PNG", bit_depth=16, exif=b"exif", icc=b"icc")
    result = scripted.enhance(photo).photo
    assert (result.alpha is alpha, result.bit_depth, result.exif, result.icc) == (True, 16, b"exif", b"icc")


def test_more_draws_mean_less_noise(scripted: Enhancer, photo_factory) -> None:
    photo = Photo(photo_factory(64, 64))
    clean = scripted.artist.decode(apply_operations(resize(photo.pixels, (32, 32)), BRIGHTER), None)
    errors = [(scripted.enhance(photo, draws=draws).after_small - clean).std() for draws in (1, 16)]
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.1)  # 1 / sqrt(draws)


def test_strength_scales_the_change(scripted: Enhancer, photo_factory) -> None:
    photo = Photo(photo_factory(64, 64))
    none, half, full = (scripted.enhance(photo, strength=strength).photo.pixels for strength in (0.0, 0.5, 1.0))
    assert torch.equal(none, photo.pixels)
    torch.testing.assert_close(half, (none + full) / 2, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("low", "share"), [(60.0, 0.0), (50.0, 0.5), (40.0, 1.0)])
def test_a_photo_that_the_critic_finds_good_gets_less_of_the_edit(
    scripted: Enhancer, photo_factory, low: float, share: float
) -> None:
    photo = Photo(photo_factory(64, 64))
    asked = scripted.enhance(photo, strength=share)
    scripted.settings = scripted.settings.model_copy(update={"restraint": RestraintSettings(low=low, width=20)})
    restrained = scripted.enhance(photo)  # its score of 40 is a fault of 60
    assert restrained.strength == share
    assert torch.equal(restrained.photo.pixels, asked.photo.pixels)
    assert torch.equal(restrained.photo.pixels, photo.pixels) == (share == 0)
    whole = scripted.enhance(photo, strength=1.0)
    assert whole.strength == 1, "what is asked for is done"
    assert not torch.equal(whole.photo.pixels, photo.pixels)


def test_an_unreadable_verdict_restrains_nothing(scripted: Enhancer, photo_factory) -> None:
    scripted.critic.texts = ["no verdict"]
    scripted.settings = scripted.settings.model_copy(update={"restraint": RestraintSettings(low=90, width=5)})
    assert scripted.enhance(Photo(photo_factory(64, 64))).strength == 1


def test_mirrored_edits_are_turned_back(monkeypatch: pytest.MonkeyPatch, scripted: Enhancer) -> None:
    seen = []

    def left_is_dark(artist, sources: Tensor, latent: ReasoningLatent, steps: int, generator) -> Tensor:
        seen.append((sources.clone(), latent.states_BLD.flatten().tolist()))
        return sources * torch.linspace(0.5, 1.0, 32)

    monkeypatch.setattr(module, "sample_edits", left_is_dark)
    ramp = torch.linspace(0.2, 0.8, 32).expand(3, 32, 32).contiguous()
    result = scripted.enhance(Photo(ramp), draws=3)
    sources, latents = seen[0]
    assert latents == [0, 0, 0, 1, 1, 1]  # each view is edited under what the Critic said of that view
    assert torch.equal(sources[0].flip(-1), sources[3])
    assert torch.equal(scripted.critic.shown[0].flip(-1), scripted.critic.shown[1])
    factor = torch.linspace(0.5, 1.0, 32)
    torch.testing.assert_close(result.after_small, ramp * (factor + factor.flip(-1)) / 2)


def test_large_photos_are_reduced_for_the_critic(scripted: Enhancer, photo_factory) -> None:
    scripted.critique(Photo(photo_factory(400, 800)))
    assert scripted.critic.shown[0].shape == (3, 160, 320)


@pytest.mark.parametrize("key", ["enhancer", "crafter"])  # the second is that of earlier versions
def test_a_package_is_used_as_it_was_judged(package: Path, tmp_path: Path, key: str) -> None:
    evaluation = tmp_path / "evaluation"
    evaluation.mkdir()
    settings = EnhancerSettings(draws=3, strength=0.7)
    (evaluation / "table.json").write_text(json.dumps({"settings": {key: settings.model_dump()}}))
    judged = write_tiny_package(tmp_path / "parts", tmp_path / "judged", evaluation)
    assert Enhancer.load(judged.folder).settings == settings
    assert Enhancer.load(package).settings == EnhancerSettings()


def test_an_altered_package_is_refused(package: Path, tmp_path: Path) -> None:
    altered = shutil.copytree(package, tmp_path / "altered")
    (altered / "artist" / "adapter_config.json").write_text("{}")
    with pytest.raises(PackageError, match=r"adapter_config\.json is altered"):
        Enhancer.load(altered)


@pytest.mark.parametrize(("draws", "strength"), [(0, 1.0), (1, -0.1), (1, 2.1)])
def test_impossible_options_are_refused(scripted: Enhancer, draws: int, strength: float) -> None:
    with pytest.raises(ValueError, match="draws >= 1 and strength in"):
        scripted.enhance(Photo(torch.zeros(3, 8, 8)), draws=draws, strength=strength)
