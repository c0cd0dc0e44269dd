"""Files that the system cannot read for a while: told as that, never remembered, and seen once they can be read."""

import errno
import io
import multiprocessing
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from components.data.building import BuildSettings, build
from components.data.facts import FactStore, read_facts
from components.data.reading import UnreadFilesError
from components.data.sources.base import open_source
from components.imaging.photo import MAX_PIXELS, Photo, UnreadablePhoto, read_header, read_photo, write_photo
from components.imaging.source import decoding
from tests.conftest import make_photo

NEVER_READ = Path("/proc/self/mem")
"""Opens, and gives EIO when its first byte is read."""
NOBODY = 65534


@pytest.fixture
def shared() -> Iterator[Path]:
    """A folder that another user can work in: five photos, and room for what a build writes."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        for number in range(5):
            write_photo(Photo(make_photo(64, 64, seed=number)), folder / "photos" / f"{number}.jpg")
        for part in ("out", "facts"):
            (folder / part).mkdir()
            (folder / part).chmod(0o777)
        yield folder


def built(folder: Path) -> list[str]:
    """What a build by a user without rights gives: the number of photos, then path, unread and reason of the rest."""
    process = multiprocessing.get_context("fork").Process(target=build_as_nobody, args=(folder,))
    process.start()
    process.join(60)
    assert process.exitcode == 0
    return (folder / "out" / "told.txt").read_text().split("\n")


def build_as_nobody(folder: Path) -> None:
    if os.geteuid() == 0:
        os.setgid(NOBODY)
        os.setuid(NOBODY)
    source = open_source("single_folder", folder / "photos", licence="CC0-1.0")
    places = {"photos_dir": folder, "facts": folder / "facts" / "facts.sqlite"}
    manifest = build([source], folder / "out", BuildSettings(workers=1), **places)
    others = (f"{entry.path}|{entry.unread}|{entry.reason}" for entry in manifest.quarantine)
    (folder / "out" / "told.txt").write_text("\n".join([str(len(manifest)), *others]))


def test_a_photo_without_permission_is_seen_by_the_build_after(shared: Path) -> None:
    (shared / "photos" / "2.jpg").chmod(0)
    assert built(shared) == ["4", "photos/2.jpg|True|not read this time: Permission denied"]
    (shared / "photos" / "2.jpg").chmod(0o644)  # size and time of modification are as before
    assert built(shared) == ["5"]
    assert built(shared) == ["5"]


def test_what_the_bytes_prove_is_remembered(shared: Path) -> None:
    path = shared / "photos" / "3.jpg"
    path.write_bytes(path.read_bytes()[:400])
    first = built(shared)
    assert first[0] == "4" and "3.jpg|False|corrupt or truncated" in first[1]
    with FactStore(shared / "facts" / "facts.sqlite") as store:
        facts = store.get(path.resolve(), path.stat(), MAX_PIXELS)
    assert facts is not None and facts.reason == first[1].split("|")[2]


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp", "heic", "dng", "nef"])
@pytest.mark.parametrize("read", [read_header, read_photo, lambda path: read_facts(path, MAX_PIXELS)])
def test_an_input_output_error_is_no_damage(tmp_path: Path, suffix: str, read) -> None:
    (tmp_path / f"a.{suffix}").symlink_to(NEVER_READ)
    with pytest.raises(OSError) as caught:
        read(tmp_path / f"a.{suffix}")
    assert caught.value.errno == errno.EIO and f"a.{suffix}" in str(caught.value)


def test_an_input_output_error_behind_a_decoder_is_no_damage(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    write_photo(Photo(make_photo(400, 600)), path)
    with pytest.raises(OSError) as caught, decoding(path) as source, source.open() as file, Image.open(file) as image:
        os.dup2(os.open(NEVER_READ, os.O_RDONLY), io.FileIO.fileno(file.raw))  # from here on the disk fails
        try:
            image.load()
        except OSError as error:
            raise ValueError("image file is truncated") from error  # as decoders do
    assert caught.value.errno == errno.EIO


def test_a_folder_with_the_name_of_a_photo_is_none(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").mkdir()
    with pytest.raises(UnreadablePhoto, match="a folder, not a file"):
        read_header(tmp_path / "a.jpg")


def test_more_than_a_few_stop_the_build_and_name_the_mount(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    for number in range(5):
        write_photo(Photo(make_photo(64, 64, seed=number)), photos / f"{number}.jpg")
    for number in range(5, 9):
        (photos / f"{number}.jpg").symlink_to(NEVER_READ)
    source = open_source("single_folder", photos, licence="CC0-1.0")
    places = {"photos_dir": tmp_path, "facts": tmp_path / "facts.sqlite"}
    with pytest.raises(UnreadFilesError, match=r"4 files cannot be read \(.*8\.jpg: Input/output error.* mounted at /"):
        build([source], tmp_path / "out", BuildSettings(), **places)
    assert not (tmp_path / "out" / "manifest.parquet").exists()
    manifest = build([source], tmp_path / "out", BuildSettings(max_unread=4), **places)
    assert len(manifest) == 5 and [entry.unread for entry in manifest.quarantine] == [True] * 4
