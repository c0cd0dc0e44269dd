"""The command line: what is written, printed and returned, and what a mistake says."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image

from components.critic.grammar import Verdict, render, suggest
from components.enhance import cli
from components.enhance.crafter import Crafter, Enhanced, Judgement
from components.images import Photo, read_photo, write_photo
from components.registry.package import PackageError
from tests.conftest import make_photo
from tests.tiny_models import write_tiny_package

VERDICT = Verdict(reasoning=("a", "b", "c", "d", "e"), suggestions=(suggest("exposure", -0.5),), score=55.0)


class HalvingCrafter:
    """Halves every sample, and remembers how it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, int | None, float | None]] = []

    def enhance(self, photo: Photo, seed: int, draws: int | None, strength: float | None) -> Enhanced:
        self.asked.append((seed, draws, strength))
        return Enhanced(photo.with_pixels(photo.pixels / 2), render(VERDICT), VERDICT, photo.pixels, photo.pixels / 2)

    def critique(self, photo: Photo) -> Judgement:
        return Judgement("no verdict", None)


@pytest.fixture
def crafter(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> HalvingCrafter:
    """In the place of the champion's."""
    halving = HalvingCrafter()
    (tmp_path / "state" / "champion").mkdir(parents=True)
    monkeypatch.setenv("SPC_STATE", str(tmp_path / "state"))
    monkeypatch.setattr(Crafter, "load", lambda folder: halving)
    return halving


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "in.jpg"
    exif = Image.Exif()
    exif[ExifTags.Base.Make] = "Contax"
    samples = (make_photo(40, 60) * 255).byte().permute(1, 2, 0).numpy()
    Image.fromarray(samples).save(path, quality=95, exif=exif)
    return path


def test_a_photo_is_enhanced_with_its_metadata(crafter, source: Path, tmp_path: Path, capsys) -> None:
    target = tmp_path / "out.jpg"
    assert cli.main(["enhance", str(source), str(target)]) == 0
    with Image.open(target) as written:
        assert written.size == (60, 40)
        assert written.getexif()[ExifTags.Base.Make] == "Contax"
        samples = np.asarray(written) / 255
    assert np.abs(samples - read_photo(source).pixels.permute(1, 2, 0).numpy() / 2).mean() < 0.01
    assert capsys.readouterr().out == f"{render(VERDICT)}\nWritten to {target}.\n"


def test_options_reach_the_crafter(crafter, source: Path, tmp_path: Path) -> None:
    options = ["--strength", "0.5", "--draws", "3", "--seed", "7"]
    assert cli.main(["enhance", str(source), str(tmp_path / "out.png"), *options]) == 0
    assert cli.main(["enhance", str(source), str(tmp_path / "out.png")]) == 0
    assert crafter.asked == [(7, 3, 0.5), (0, None, None)]  # None: as the package was judged


def test_json_can_be_read_by_programs(crafter, source: Path, tmp_path: Path, capsys) -> None:
    assert cli.main(["enhance", str(source), str(tmp_path / "out.png"), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["enhanced"] == str(tmp_path / "out.png")
    assert Verdict(**result["verdict"]) == VERDICT
    assert cli.main(["critique", str(source), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"photo": str(source), "text": "no verdict", "verdict": None}


def test_critique_prints_what_the_critic_says_and_writes_nothing(crafter, source: Path, tmp_path: Path, capsys) -> None:
    before = set(tmp_path.rglob("*"))
    assert cli.main(["critique", str(source)]) == 0
    assert capsys.readouterr().out == "no verdict\n"
    assert set(tmp_path.rglob("*")) == before


def test_side_by_side(crafter, source: Path, tmp_path: Path) -> None:
    both = tmp_path / "both.png"
    assert cli.main(["enhance", str(source), str(tmp_path / "out.png"), "--side-by-side", str(both)]) == 0
    pixels, photo = read_photo(both).pixels, read_photo(source).pixels
    assert pixels.shape == (3, 40, 60 + 2 + 60)
    torch.testing.assert_close(pixels[..., :60], photo, rtol=0, atol=1 / 255)
    torch.testing.assert_close(pixels[..., 62:], photo / 2, rtol=0, atol=1 / 255)


def test_side_by_side_of_a_large_photo_is_reduced() -> None:
    photo = Photo(torch.zeros(3, 2160, 1000))
    assert cli._side_by_side(photo, photo).pixels.shape == (3, 1080, 500 + 10 + 500)


def test_a_folder_is_enhanced_and_what_fails_is_counted(crafter, tmp_path: Path, capsys) -> None:
    folder, out = tmp_path / "photos", tmp_path / "out"
    for name in ("a.jpg", "c.png"):
        write_photo(Photo(make_photo(20, 30)), folder / name)
    (folder / "b.jpg").write_bytes(b"not a photo")
    (folder / ".hidden").write_bytes(b"")
    assert cli.main(["enhance", str(folder), str(out)]) == 1
    assert sorted(path.name for path in out.iterdir()) == ["a.jpg", "c.png"]
    printed = capsys.readouterr()
    assert f"{folder / 'a.jpg'}:\n" in printed.out
    assert "b.jpg: not a picture" in printed.err
    assert "2 of 3 photos processed, 1 failed" in printed.err


def test_a_single_photo_that_cannot_be_read_is_an_error(crafter, tmp_path: Path, capsys) -> None:
    (tmp_path / "empty.jpg").write_bytes(b"")
    assert cli.main(["enhance", str(tmp_path / "empty.jpg"), str(tmp_path / "out.jpg")]) == 1
    assert "empty.jpg: the file is empty" in capsys.readouterr().err
    assert not (tmp_path / "out.jpg").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["enhance", "none.jpg", "out.jpg"], "there is no photo and no folder none.jpg"),
        (["enhance", "in.jpg", "in.jpg"], "the original would be lost"),
        (["enhance", "in.jpg", "folder"], "OUT must name a file"),
        (["enhance", "folder", "in.jpg"], "OUT must be one too"),
        (["enhance", "empty", "out"], "holds no files"),
        (["enhance", "folder", "out", "--side-by-side", "b.jpg"], "goes with a single photo"),
        (["critique", "in.jpg", "--model", "nowhere"], "--model nowhere: expected the directory of a package"),
    ],
)
def test_mistakes_are_said_before_any_work(
    crafter, source: Path, tmp_path: Path, monkeypatch, capsys, arguments: list[str], words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    write_photo(Photo(make_photo(20, 30)), tmp_path / "folder" / "a.png")
    (tmp_path / "empty").mkdir()
    assert cli.main(arguments) == 2
    assert words in capsys.readouterr().err
    assert crafter.asked == []


def test_an_unknown_file_type_is_named(crafter, source: Path, tmp_path: Path, capsys) -> None:
    assert cli.main(["enhance", str(source), str(tmp_path / "out.xyz")]) == 1
    assert "out.xyz: expected a name ending in" in capsys.readouterr().err


@pytest.mark.parametrize(("option", "value"), [("--strength", "3"), ("--strength", "x"), ("--draws", "0")])
def test_values_out_of_range_are_refused(source: Path, option: str, value: str, capsys) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main(["enhance", str(source), "out.jpg", option, value])
    assert stop.value.code == 2
    assert f"argument {option}" in capsys.readouterr().err


def test_without_a_champion_it_says_how_to_get_one(source: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setenv("SPC_STATE", str(tmp_path / "fresh"))
    assert cli.main(["critique", str(source)]) == 2
    assert "run `make pipeline`" in capsys.readouterr().err


def test_a_broken_package_is_named(source: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(Crafter, "load", lambda folder: (_ for _ in ()).throw(PackageError("weights are altered")))
    assert cli.main(["critique", str(source), "--model", str(tmp_path)]) == 2
    assert "weights are altered" in capsys.readouterr().err


def test_help_needs_no_models() -> None:
    code = "import sys; from components.enhance import cli; cli._parser(); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_real_package_from_the_shell(source: Path, tmp_path: Path) -> None:
    package = write_tiny_package(tmp_path / "parts", tmp_path / "package").folder
    command = [sys.executable, "-m", "components.enhance.cli", "enhance", str(source), str(tmp_path / "out.tif")]
    done = subprocess.run([*command, "--model", str(package), "--draws", "1"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert read_photo(tmp_path / "out.tif").pixels.shape == (3, 40, 60)
    assert f"Written to {tmp_path / 'out.tif'}." in done.stdout
