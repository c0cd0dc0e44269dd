"""Files and folders as artifacts: the same bytes come back, and equal content has an equal hash wherever it lies."""

import os
from pathlib import Path

import pytest

from steps.directories import AlteredArtifact, DirectoryMaterializer, content_hash


def make_folder(folder: Path) -> Path:
    (folder / "deep" / "er").mkdir(parents=True)
    (folder / "deep" / "er" / "weights.safetensors").write_bytes(bytes(range(256)) * 1000)
    (folder / "index.html").write_text("<p>hello</p>")
    return folder


def stored(tmp_path: Path, data: Path) -> tuple[DirectoryMaterializer, Path]:
    uri = tmp_path / "store"
    uri.mkdir()
    materializer = DirectoryMaterializer(str(uri))
    materializer.save(data)
    return materializer, materializer.load(Path)


def test_a_folder_comes_back_byte_for_byte(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "folder")
    _, loaded = stored(tmp_path, folder)
    names = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    assert sorted(path.relative_to(loaded) for path in loaded.rglob("*") if path.is_file()) == names
    assert all((loaded / name).read_bytes() == (folder / name).read_bytes() for name in names)


def test_a_local_store_is_read_in_place(tmp_path: Path) -> None:
    _, loaded = stored(tmp_path, make_folder(tmp_path / "folder"))
    assert loaded.is_relative_to(tmp_path / "store")


def test_a_file_keeps_its_name(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text("<p>hello</p>")
    _, loaded = stored(tmp_path, path)
    assert (loaded.name, loaded.read_text()) == ("report.html", "<p>hello</p>")


def test_an_empty_folder_comes_back_empty(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    _, loaded = stored(tmp_path, tmp_path / "empty")
    assert loaded.is_dir()
    assert not list(loaded.iterdir())


def test_leftovers_of_a_killed_writer_are_not_content(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "folder")
    before = content_hash(folder)
    (folder / ".pairs-00001.tmp.arrow").write_text("half")
    _, loaded = stored(tmp_path, folder)
    assert not (loaded / ".pairs-00001.tmp.arrow").exists()
    assert content_hash(folder) == before


def test_the_hash_is_that_of_names_and_contents_alone(tmp_path: Path) -> None:
    first, second = make_folder(tmp_path / "first"), make_folder(tmp_path / "second")
    os.utime(second / "index.html", (1, 1))
    assert content_hash(first) == content_hash(second)
    (second / "index.html").rename(second / "page.html")
    assert content_hash(first) != content_hash(second)
    (second / "page.html").rename(second / "index.html")
    (second / "index.html").write_text("<p>hallo</p>")
    assert content_hash(first) != content_hash(second)


def test_contents_do_not_run_into_each_other(tmp_path: Path) -> None:
    for name, files in {"first": {"a": "12", "b": "3"}, "second": {"a": "1", "b": "23"}}.items():
        (tmp_path / name).mkdir()
        for file, content in files.items():
            (tmp_path / name / file).write_text(content)
    assert content_hash(tmp_path / "first") != content_hash(tmp_path / "second")


def test_links_are_refused(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "folder")
    (folder / "link").symlink_to("/etc/hostname")
    with pytest.raises(ValueError, match="symbolic link"):
        stored(tmp_path, folder)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere"):
        stored(tmp_path, tmp_path / "nowhere")


def test_a_lost_artifact_says_how_to_make_it_again(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="--no-cache"):
        DirectoryMaterializer(str(tmp_path / "gone")).load(Path)


def test_size_and_pages_are_shown(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "folder")
    materializer, _ = stored(tmp_path, folder)
    assert materializer.extract_metadata(folder) == {"files": 2, "bytes": 256_000 + 12}
    assert [Path(page).name for page in materializer.save_visualizations(folder)] == ["index.html"]


def test_what_was_altered_in_the_store_is_refused(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "folder")
    materializer, loaded = stored(tmp_path, folder)
    materializer.expected_content_hash = content_hash(folder)  # as ZenML sets it when a step loads its inputs
    assert materializer.load(Path) == loaded
    weights = loaded / "deep" / "er" / "weights.safetensors"
    weights.write_bytes(b"\1" + weights.read_bytes()[1:])
    with pytest.raises(AlteredArtifact, match=r"store.*--no-cache"):
        materializer.load(Path)
