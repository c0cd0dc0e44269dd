"""No command replaces a photo of IN, or a file that this program did not write, however the two places are spelled."""

import os
from pathlib import Path

import fsspec
import pytest

from components.imaging.photo import Photo, write_photo
from pipelines.__main__ import main
from tests.conftest import make_photo
from tests.inference.test_batch import contents, fill, run


@pytest.fixture
def photos(enhancer, tmp_path: Path) -> Path:
    """A folder with a photo of its own and one in a folder within."""
    for name in ("a.jpg", "sub/b.png"):
        write_photo(Photo(make_photo(20, 30)), tmp_path / "photos" / name)
    return tmp_path / "photos"


@pytest.mark.parametrize(
    ("source", "target"),
    [
        (".", "../photos"),
        ("../photos", "../photos/."),
        ("../photos", "../photos/sub/.."),
        ("../photos", "../link"),
        ("../link", "../photos"),
        ("../photos", "../link/../photos//"),
        ("file://{0}/photos", "{0}/photos/."),
        ("{0}/photos", "file://{0}/link"),
        ("file://{0}/photos/./", "local://{0}/photos"),
    ],
)
def test_a_folder_is_never_its_own_out(enhancer, photos: Path, monkeypatch, capsys, source: str, target: str) -> None:
    (photos.parent / "link").symlink_to("photos")
    monkeypatch.chdir(photos)
    before = contents(photos)
    assert main(["enhance", source.format(photos.parent), target.format(photos.parent), "--overwrite"]) == 2
    assert "OUT is IN; the originals would be lost" in capsys.readouterr().err
    assert contents(photos) == before and enhancer.asked == []


def test_a_prefix_of_a_bucket_is_never_its_own_out(enhancer) -> None:
    system = fsspec.filesystem("memory")
    system.pipe("/camera/in/a.jpg", b"ab")
    for target in ("memory://camera/in", "memory:///camera/in/", "memory://camera//in"):
        assert main(["enhance", "memory://camera/in", target, "--overwrite"]) != 0
        assert system.cat("/camera/in/a.jpg") == b"ab"


@pytest.mark.parametrize("overwrite", [[], ["--overwrite"]])
@pytest.mark.parametrize("spelling", ["in.jpg", "./in.jpg", "{0}/in.jpg", "link.jpg", "hard.jpg", "there/in.jpg"])
def test_a_photo_is_never_its_own_out(
    enhancer, source: Path, tmp_path: Path, monkeypatch, capsys, spelling: str, overwrite: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("link.jpg").symlink_to("in.jpg")
    os.link("in.jpg", "hard.jpg")
    Path("there").symlink_to(".")
    before = source.read_bytes()
    target = spelling.format(tmp_path)
    for arguments in ([target], ["out.png", "--compare", target]):
        assert main(["enhance", "in.jpg", *arguments, *overwrite]) == 2
        assert "the original would be lost" in capsys.readouterr().err
    assert source.read_bytes() == before and Path("link.jpg").is_symlink() and Path("hard.jpg").samefile(source)


def test_a_result_never_replaces_a_photo_of_in_by_another_name(tmp_path: Path) -> None:
    source, out = fill(tmp_path / "in", a_jpg=b"ab", b_jpg=b"cd", c_jpg=b"ef"), tmp_path / "out"
    out.mkdir()
    os.link(source / "b.jpg", out / "a.jpg")  # a hard link to another photo of IN
    (out / "c.jpg").symlink_to(source / "c.jpg")
    summary = run(source, out, overwrite=True)
    assert summary.done == 1 and set(summary.failed) == {"a.jpg", "c.jpg"}
    assert contents(source) == {"a.jpg": b"ab", "b.jpg": b"cd", "c.jpg": b"ef"}
    assert (out / "a.jpg").samefile(source / "b.jpg") and (out / "c.jpg").is_symlink()


def test_out_around_in(tmp_path: Path) -> None:
    source = fill(tmp_path / "out" / "in", a_jpg=b"ab", in__a_jpg=b"cd")
    summary = run(source, tmp_path / "out", overwrite=True)  # in/a.jpg of IN would become out/in/a.jpg, which is IN's
    assert summary.done == 1 and list(summary.failed) == ["in/a.jpg"]
    assert (source / "a.jpg").read_bytes() == b"ab" and (tmp_path / "out" / "a.jpg").read_bytes() == b"ba"


def test_out_within_in_by_a_link(tmp_path: Path) -> None:
    source = fill(tmp_path / "in", a_jpg=b"ab")
    (tmp_path / "out").mkdir()
    (source / "results").symlink_to(tmp_path / "out")
    for _ in range(2):
        run(source, tmp_path / "out", redo=True)
    assert {name for name in contents(tmp_path / "out") if name.endswith("jpg")} == {"a.jpg"}


def test_foreign_files_in_out_stay_and_are_named(tmp_path: Path) -> None:
    source = fill(tmp_path / "in", a_jpg=b"ab", b_jpg=b"cd")
    out = fill(tmp_path / "out", a_jpg=b"mother")
    for _ in range(2):
        summary = run(source, out)
        assert summary.kept == ["a.jpg"] and "a.jpg: not written by this program" in summary.text()
    assert contents(out)["a.jpg"] == b"mother" and "b.jpg" in contents(out)
    assert run(source, out, overwrite=True).done == 1
    assert contents(out)["a.jpg"] == b"ba"


def test_what_was_changed_in_out_stays(tmp_path: Path) -> None:
    source, out = fill(tmp_path / "in", a_jpg=b"ab", b_jpg=b"cd"), tmp_path / "out"
    run(source, out)
    (out / "a.jpg").write_bytes(b"retouched")
    assert run(source, out, redo=True).kept == ["a.jpg"]
    assert contents(out)["a.jpg"] == b"retouched"
    assert run(source, out, redo=True).kept == ["a.jpg"]


def test_foreign_files_in_a_bucket_stay(tmp_path: Path) -> None:
    source = fill(tmp_path / "in", a_jpg=b"ab", b_jpg=b"cd")
    system = fsspec.filesystem("memory")
    system.pipe("/shelf/a.jpg", b"mother")
    assert run(source, "memory://shelf").kept == ["a.jpg"]
    assert run(source, "memory://shelf", redo=True).done == 1  # its own it does replace
    assert (system.cat("/shelf/a.jpg"), system.cat("/shelf/b.jpg")) == (b"mother", b"dc")


def test_an_existing_out_stays_unless_it_is_to_be_overwritten(enhancer, source: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "out.jpg"
    for taken in ("out.jpg", "out.compare.jpg", "out.json", "out.xmp", "out.cube"):
        (tmp_path / taken).write_text("mine")
        assert main(["enhance", str(source), str(out), "--sidecar", "--cube", "--compare"]) == 2
        assert taken in capsys.readouterr().err
        assert (tmp_path / taken).read_text() == "mine" and enhancer.asked == []
        overwritten = main(["enhance", str(source), str(out), "--sidecar", "--cube", "--compare", "--overwrite"])
        assert overwritten == (2 if taken in ("out.json", "out.xmp") else 0)
        for path in tmp_path.glob("out.*"):
            path.unlink()
        enhancer.asked.clear()


def test_critique_keeps_what_a_photo_library_exported(enhancer, source: Path, tmp_path: Path, capsys) -> None:
    exported = '{"title": "IMG", "geoData": {}}'
    (tmp_path / "in.json").write_text(exported)
    (tmp_path / "in.jpg.json").write_text(exported)
    assert main(["critique", str(source), "--sidecar"]) == 1
    assert "in.json belongs to another program" in capsys.readouterr().err
    write_photo(Photo(make_photo(20, 30)), tmp_path / "in.png")  # now the sidecars keep the whole names
    assert main(["critique", str(tmp_path), "--sidecar"]) == 1
    assert "in.jpg.json belongs to another program" in capsys.readouterr().err
    assert (tmp_path / "in.json").read_text() == (tmp_path / "in.jpg.json").read_text() == exported
    assert (tmp_path / "in.png.json").exists() and not (tmp_path / "in.jpg.xmp").exists()
