"""From a release's folder to a picture: the authors' way, and the project's own with the same import."""

from pathlib import Path

import pytest
import torch
from PIL import Image

from components.imaging.photo import Photo, read_photo, write_photo
from components.inference.enhancer import Enhancer
from components.models.artist import Artist
from components.models.compute import Placement
from components.models.critic import Critic
from components.models.package import read_package
from components.release import picture
from components.release.folders import AS_RELEASED, export_release, import_release
from components.release.layout import ReleaseError
from components.release.picture import enhance_as_released
from components.release.sampling import RELEASE, Sampler
from pipelines.__main__ import main

PROMPT = "exposure contrast"
SHORT = RELEASE.model_copy(update={"max_new_tokens": 8, "steps": 3})


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Untrained models write until they are stopped."""
    monkeypatch.setattr(picture, "RELEASE", SHORT)


@pytest.fixture(scope="module")
def imported(base: Path, adapters: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("imported")
    export_release(folder / "release", base, adapters / "critic", adapters / "artist")
    (folder / "prompt.txt").write_text(PROMPT + "\n")
    written = import_release(folder / "release", folder / "models", base, prompt=folder / "prompt.txt")
    assert written[-1] == folder / "models"
    return folder / "models"


@pytest.fixture
def photo(tmp_path: Path, photo_factory) -> Path:
    exif = Image.Exif()
    exif[271] = "Contax"
    write_photo(Photo(photo_factory(90, 140), exif=exif.tobytes()), tmp_path / "in.png")
    return tmp_path / "in.png"


def test_the_picture_is_that_of_the_releases_sampler(imported: Path, photo: Path) -> None:
    target = photo.with_name("out.png")
    edit = enhance_as_released(imported, photo, target, Placement(), seed=7)
    artist = Artist.load(imported / "base" / "artist", imported / "artist")
    critic = Critic.load(imported / "base" / "critic", imported / "critic")
    assert critic.prompt == PROMPT
    areas = dict.fromkeys(("target_area", "source_area", "seen_area"), artist.area)
    expected = Sampler(artist, critic, SHORT.model_copy(update=areas)).edit(
        Image.open(photo), torch.Generator().manual_seed(7)
    )
    assert edit.text == expected.text
    assert Image.open(target).tobytes() == expected.picture.tobytes()
    assert Image.open(target).getexif()[271] == "Contax"


def test_an_import_is_a_package_with_settings_of_its_size(imported: Path, base: Path, tmp_path: Path) -> None:
    read_package(imported)
    enhancer = Enhancer.load(imported)
    assert enhancer.settings == AS_RELEASED and enhancer.critic.prompt == PROMPT
    assert Critic.load(base / "critic").prompt != PROMPT


def test_a_part_of_a_release_is_no_package(base: Path, adapters: Path, tmp_path: Path) -> None:
    export_release(tmp_path / "release", base, None, adapters / "artist", adapters_only=True)
    assert import_release(tmp_path / "release", tmp_path / "models", base) == [tmp_path / "models" / "artist"]
    assert not (tmp_path / "models" / "package.json").exists()
    (tmp_path / "prompt.txt").write_text(PROMPT)
    with pytest.raises(ReleaseError, match="a prompt goes with the Critic"):
        import_release(tmp_path / "release", tmp_path / "more", base, prompt=tmp_path / "prompt.txt")
    with pytest.raises(ReleaseError, match="expected base/critic"):
        enhance_as_released(tmp_path / "models", tmp_path / "a.png", tmp_path / "b.png", Placement(), 0)


def test_the_command_makes_one_and_replaces_nothing(
    imported: Path, photo: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = photo.with_name("out.jpg")
    words = ["release", "enhance", str(photo), str(target), "--model", str(imported), "--device", "cpu"]
    assert main(words) == 0
    assert f"Written to {target}" in capsys.readouterr().out
    assert read_photo(target).format == "JPEG"
    assert main(words) == 2
    assert "exists" in capsys.readouterr().err


@pytest.mark.slow
def test_enhance_takes_an_import_in_half_precision(
    imported: Path, photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    placements: list[Placement] = []
    load = Enhancer.load

    def noted(package: Path, settings=None, placement: Placement | None = None) -> Enhancer:
        placements.append(placement)
        return load(package, AS_RELEASED.model_copy(update={"max_new_tokens": 8, "steps": 2}), placement)

    monkeypatch.setattr(Enhancer, "load", noted)
    target = photo.with_name("own.png")
    words = ["enhance", str(photo), str(target), "--model", str(imported), "--device", "cpu", "--dtype", "bfloat16"]
    assert main([*words, "--strength", "1"]) == 0
    assert placements == [Placement(torch.device("cpu"), torch.bfloat16)]
    assert Image.open(target).size == (140, 90)
