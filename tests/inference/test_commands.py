"""The command line: what is written, printed and returned, and what a mistake says."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import colour
import numpy as np
import pytest
import torch
from PIL import ExifTags, Image

from components.imaging.photo import Photo, read_photo, write_photo
from components.inference.enhancer import Enhancer
from components.inference.restraint import RestraintSettings
from components.models.package import PackageError
from components.verdict.grammar import Verdict, render
from pipelines.__main__ import main
from tests.conftest import make_photo
from tests.inference.conftest import VERDICT
from tests.tiny_models import write_tiny_package


def test_a_photo_is_enhanced_with_its_metadata(enhancer, source: Path, tmp_path: Path, capsys) -> None:
    target = tmp_path / "out.jpg"
    assert main(["enhance", str(source), str(target)]) == 0
    with Image.open(target) as written:
        assert written.size == (60, 40)
        assert written.getexif()[ExifTags.Base.Make] == "Contax"
        samples = np.asarray(written) / 255
    assert np.abs(samples - read_photo(source).pixels.permute(1, 2, 0).numpy() / 2).mean() < 0.02
    assert capsys.readouterr().out == f"{render(VERDICT)}\nEdited with strength 1.00.\nWritten to {target}.\n"


def test_a_photo_that_is_left_as_it_is_is_said_to_be(enhancer, source: Path, tmp_path: Path, capsys) -> None:
    restraint = RestraintSettings(low=100 - VERDICT.score, width=10)
    enhancer.settings = enhancer.settings.model_copy(update={"restraint": restraint})
    target = tmp_path / "out.png"
    assert main(["enhance", str(source), str(target)]) == 0
    assert "\nLeft as it is (strength 0); --strength 1 makes the whole edit.\n" in capsys.readouterr().out
    assert torch.equal(read_photo(target).pixels, read_photo(source).pixels)
    assert main(["enhance", str(source), str(target), "--overwrite", "--strength", "1"]) == 0
    assert "\nEdited with strength 1.00.\n" in capsys.readouterr().out
    assert not torch.equal(read_photo(target).pixels, read_photo(source).pixels)


def test_options_reach_the_enhancer(enhancer, source: Path, tmp_path: Path) -> None:
    for name, options in {"half": ["--strength", "0.5", "--draws", "3", "--seed", "7"], "full": []}.items():
        assert main(["enhance", str(source), str(tmp_path / f"{name}.png"), *options]) == 0
    assert enhancer.asked == [(7, 3), (0, None)]  # None: as the package was judged
    photo, half, full = (read_photo(path).pixels for path in (source, tmp_path / "half.png", tmp_path / "full.png"))
    torch.testing.assert_close(half, (photo + full) / 2, rtol=0, atol=1.5 / 255)


def test_json_can_be_read_by_programs(enhancer, source: Path, tmp_path: Path, capsys) -> None:
    assert main(["enhance", str(source), str(tmp_path / "out.png"), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["photo"], result["enhanced"]) == ("in.jpg", "out.png")
    assert Verdict.model_validate(result["verdict"]) == VERDICT
    assert main(["critique", str(source), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["text"], result["verdict"], result["enhanced"]) == ("no verdict", None, None)


def test_critique_prints_what_the_critic_says_and_writes_nothing(
    enhancer, source: Path, tmp_path: Path, capsys
) -> None:
    photos = source.parent / "photos"  # the state folder beside it gets the lock of those who read the champion
    photos.mkdir()
    shutil.copy(source, photos)
    assert main(["critique", str(photos / source.name)]) == 0
    assert capsys.readouterr().out == "no verdict\n"
    assert list(photos.rglob("*")) == [photos / source.name]


def test_before_and_after_in_one_picture(enhancer, source: Path, tmp_path: Path) -> None:
    both = tmp_path / "both.png"
    assert main(["enhance", str(source), str(tmp_path / "out.png"), "--compare", str(both)]) == 0
    pixels, out = read_photo(both).pixels, read_photo(tmp_path / "out.png").pixels
    assert pixels.shape == (3, 40, 60 + 2 + 60)
    torch.testing.assert_close(pixels[..., :60], read_photo(source).pixels, rtol=0, atol=1 / 255)
    torch.testing.assert_close(pixels[..., 62:], out, rtol=0, atol=1 / 255)


def test_files_beside_the_photo(enhancer, source: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "out" / "photo.jpg"
    assert main(["enhance", str(source), str(out), "--compare", "--cube", "--sidecar", "--tone-only"]) == 0
    names = ["photo.compare.jpg", "photo.cube", "photo.jpg", "photo.json", "photo.xmp"]
    assert sorted(path.name for path in out.parent.iterdir()) == names
    assert json.loads(out.with_suffix(".json").read_text())["edit"]["tone_only"] is True
    table = colour.read_LUT(str(out.with_suffix(".cube")))
    expected = table.apply(read_photo(source).pixels.permute(1, 2, 0).numpy())
    assert np.abs(read_photo(out).pixels.permute(1, 2, 0).numpy() - expected).mean() < 0.01
    assert f"Written to {out.with_suffix('.cube')}." in capsys.readouterr().out


def test_critique_writes_sidecars_but_not_over_another_programs(enhancer, source: Path, capsys) -> None:
    assert main(["critique", str(source), "--sidecar"]) == 0
    assert json.loads(source.with_suffix(".json").read_text())["text"] == "no verdict"
    assert main(["critique", str(source), "--sidecar"]) == 0  # its own it does replace
    source.with_suffix(".xmp").write_text("<lightroom/>")
    assert main(["critique", str(source), "--sidecar"]) == 1
    assert "belongs to another program" in capsys.readouterr().err
    assert source.with_suffix(".xmp").read_text() == "<lightroom/>"


def test_a_folder_is_judged_again_with_a_sidecar_for_each_photo(enhancer, tmp_path: Path, capsys) -> None:
    folder = tmp_path / "photos"
    for name in ("a.jpg", "a.png", "sub/b.jpg"):
        write_photo(Photo(make_photo(20, 30)), folder / name)
    (folder / "notes.txt").write_text("x")
    for _ in range(2):
        assert main(["critique", str(folder), "--sidecar"]) == 0
        assert capsys.readouterr().out.count("no verdict") == 3
    sidecars = {str(path.relative_to(folder)): json.loads(path.read_text())["photo"] for path in folder.rglob("*.json")}
    assert sidecars == {"a.jpg.json": "a.jpg", "a.png.json": "a.png", "sub/b.json": "b.jpg"}


def test_a_folder_is_enhanced_and_what_fails_is_counted(enhancer, tmp_path: Path, capsys) -> None:
    folder, out = tmp_path / "photos", tmp_path / "out"
    for name in ("a.jpg", "sub/c.png"):
        write_photo(Photo(make_photo(20, 30)), folder / name)
    (folder / "b.jpg").write_bytes(b"not a photo")
    (folder / ".hidden.jpg").write_bytes(b"")
    assert main(["enhance", str(folder), str(out), "--format", "webp"]) == 1
    found = [str(path.relative_to(out)) for path in out.rglob("*") if path.is_file() and ".smart" not in str(path)]
    assert sorted(found) == ["a.webp", "sub/c.webp"]
    printed = capsys.readouterr()
    assert "a.jpg:\n<think>" in printed.out
    assert "b.jpg: not a picture" in printed.err
    assert "2 of 3 photos enhanced, 0 were done before, 1 failed" in printed.err
    assert main(["enhance", str(folder), str(out), "--format", "webp"]) == 1
    assert "0 of 3 photos enhanced, 2 were done before, 1 failed" in capsys.readouterr().err
    assert main(["enhance", str(folder), str(out), "--format", "webp", "--strength", "0.5"]) == 1
    assert "2 of 3 photos enhanced" in capsys.readouterr().err  # other options, other results


def test_a_single_photo_that_cannot_be_read_is_an_error(enhancer, tmp_path: Path, capsys) -> None:
    (tmp_path / "empty.jpg").write_bytes(b"")
    assert main(["enhance", str(tmp_path / "empty.jpg"), str(tmp_path / "out.jpg")]) == 1
    assert "empty.jpg: the file is empty" in capsys.readouterr().err
    assert not (tmp_path / "out.jpg").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["enhance", "none.jpg", "out.jpg"], "there is no photo and no folder none.jpg"),
        (["enhance", "in.jpg", "in.jpg"], "the original would be lost"),
        (["enhance", "in.jpg", "folder"], "OUT must name a file"),
        (["enhance", "folder", "in.jpg"], "OUT must be a folder or URL"),
        (["enhance", "folder", "folder"], "the originals would be lost"),
        (["enhance", "folder", "folder/."], "the originals would be lost"),
        (["enhance", "in.jpg"], "where to? Name OUT"),
        (["enhance", "in.jpg", "out.jpg", "--in-place"], "there is no OUT"),
        (["enhance", "memory://none", "--in-place"], "on this machine's disk"),
        (["enhance", "folder", "--in-place", "--format", "png"], "goes with neither"),
        (["enhance", "folder", "--in-place", "--compare"], "goes with neither"),
        (["enhance", "in.jpg", "out.jpg", "--compare", "out.jpg"], "have one name"),
        (["enhance", "in.jpg", "out.xyz"], "out.xyz: expected a name ending in"),
        (["enhance", "in.jpg", "out.jpg", "--cube", "look.txt"], "expected a name ending in .cube"),
        (["enhance", "in.jpg", "out.jpg", "--compare", "in.jpg"], "the original would be lost"),
        (["enhance", "in.jpg", "out.jpg", "--tone-only", "--restore", "always"], "does not go with --restore"),
        (["enhance", "in.jpg", "nothing://out"], "nothing"),
        (["enhance", "empty", "out"], "holds no files"),
        (["enhance", "folder", "out", "--compare", "b.jpg"], "for a single photo only"),
        (["critique", "in.jpg", "--model", "nowhere"], "--model nowhere: expected the directory of a package"),
    ],
)
def test_mistakes_are_said_before_any_work(
    enhancer, source: Path, tmp_path: Path, monkeypatch, capsys, arguments: list[str], words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    write_photo(Photo(make_photo(20, 30)), tmp_path / "folder" / "a.png")
    (tmp_path / "empty").mkdir()
    assert main(arguments) == 2
    assert words in capsys.readouterr().err
    assert enhancer.asked == []


@pytest.mark.parametrize(
    ("option", "value"),
    [("--strength", "3"), ("--strength", "x"), ("--strength", "nan"), ("--draws", "0"), ("--seed", "1.5")],
)
def test_values_out_of_range_are_refused(source: Path, option: str, value: str, capsys) -> None:
    assert main(["enhance", str(source), "out.jpg", option, value]) == 2
    said = capsys.readouterr().err
    assert f"'{option}': expected " in said and f", found {value}" in said


def test_without_a_champion_it_says_how_to_get_one(source: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setenv("SPC_STATE", str(tmp_path / "fresh"))
    assert main(["critique", str(source)]) == 2
    assert "run `make pipeline`" in capsys.readouterr().err


def test_a_broken_package_is_named(source: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(
        Enhancer, "load", lambda folder, placement=None: (_ for _ in ()).throw(PackageError("weights are altered"))
    )
    assert main(["critique", str(source), "--model", str(tmp_path)]) == 2
    assert "weights are altered" in capsys.readouterr().err


@pytest.mark.slow
def test_a_real_package_from_the_shell(source: Path, tmp_path: Path) -> None:
    package = write_tiny_package(tmp_path / "parts", tmp_path / "package").folder
    command = [sys.executable, "-m", "pipelines", "enhance", str(source), str(tmp_path / "out.tif")]
    done = subprocess.run([*command, "--model", str(package), "--draws", "1"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert read_photo(tmp_path / "out.tif").pixels.shape == (3, 40, 60)
    assert f"Written to {tmp_path / 'out.tif'}." in done.stdout
