"""Batches: on disk, in an archive, in a real S3 server, killed in the middle, and with names that lead elsewhere."""

import errno
import io
import signal
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePath

import fsspec
import pytest
from moto.server import ThreadedMotoServer

from components.imaging.source import PictureFile
from components.inference import places
from components.inference.batch import Summary, photos_among, result_names, run_batch
from components.inference.places import OversizedFileError, Place, UnsafeNameError, check_name
from components.inference.records import RECORDS
from components.inference.seal import BLANK, sealed

pytestmark = pytest.mark.slow


def copying(name: str, source: PictureFile, result: str, beside: str) -> tuple[dict[str, bytes], str]:
    """The work of a test: the content, upside down, and a companion."""
    content = source.read_bytes()
    if content == b"bad":
        raise ValueError("not a picture")
    return {str(PurePath(beside).with_suffix(".json")): COMPANION, result: content[::-1]}, name


COMPANION = sealed(BLANK).encode()


def fill(folder: Path, **files: bytes) -> Path:
    for name, content in files.items():
        path = folder / name.replace("__", "/").replace("_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


def run(source: Path | str, target: Path | str, options: str = "o", **more) -> Summary:
    return run_batch(Place.open(str(source)), Place.open(str(target)), copying, options, **more)


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file() and RECORDS not in path.parts)
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_a_folder_with_its_subfolders(tmp_path: Path) -> None:
    source = fill(tmp_path / "in", a_jpg=b"ab", sub__b_png=b"cd", c_jpg=b"bad", notes_txt=b"x", _hidden_jpg=b"y")
    summary = run(source, tmp_path / "out")
    assert contents(tmp_path / "out") == {
        "a.jpg": b"ba",
        "a.json": COMPANION,
        "sub/b.png": b"dc",
        "sub/b.json": COMPANION,
    }
    assert (summary.done, summary.skipped, summary.ignored) == (2, 0, 1)
    assert summary.failed == {"c.jpg": "not a picture"}
    assert summary.text().splitlines() == [
        "2 of 3 photos enhanced, 0 were done before, 1 failed",
        "1 files are no pictures by their name and were left out",
        "  1 x not a picture: c.jpg",
    ]


def test_what_is_done_is_done_again_only_when_something_changed(tmp_path: Path) -> None:
    source, out = fill(tmp_path / "in", a_jpg=b"ab", b_jpg=b"cd"), tmp_path / "out"
    assert run(source, out).done == 2
    assert run(source, out).skipped == 2
    (source / "a.jpg").write_bytes(b"abc")
    assert (run(source, out).done, contents(out)["a.jpg"]) == (1, b"cba")
    (out / "b.jpg").unlink()
    assert run(source, out).done == 1
    assert run(source, out, "other").done == 2
    assert run(source, out, "other", redo=True).done == 2


def test_a_sidecar_of_another_program_is_kept(tmp_path: Path) -> None:
    source = fill(tmp_path / "in", a_jpg=b"ab", b_jpg=b"cd")
    out = fill(tmp_path / "out", a_json=b'{"title": "Berlin"}')
    for overwrite in (False, True):
        summary = run(source, out, redo=True, overwrite=overwrite)
        assert summary.done == 1 and list(summary.failed) == ["a.jpg"] and summary.kept == ["a.json"]
    assert contents(out)["a.json"] == b'{"title": "Berlin"}'
    assert "a.jpg" not in contents(out) and "b.jpg" in contents(out)


def test_results_in_a_folder_of_the_source_are_not_taken_for_photos(tmp_path: Path) -> None:
    source = fill(tmp_path / "in", a_jpg=b"ab")
    for _ in range(2):
        run(source, source / "out")
    assert sorted(contents(source)) == ["a.jpg", "out/a.jpg", "out/a.json"]


KILLED = """
import os, signal, sys, pathlib
from components.inference.batch import run_batch
from components.inference.places import Place
def process(name, source, result, beside):
    if name == "b.jpg":
        os.kill(os.getpid(), signal.SIGKILL)
    return {result: source.read_bytes()[::-1]}, name
run_batch(Place.open(sys.argv[1]), Place.open(sys.argv[2]), process, "o")
"""


def test_a_killed_batch_goes_on_and_gives_up_on_what_kills_it(tmp_path: Path) -> None:
    source, out = fill(tmp_path / "in", a_jpg=b"ab", b_jpg=b"cd", c_jpg=b"ef"), tmp_path / "out"
    for _ in range(2):
        done = subprocess.run([sys.executable, "-c", KILLED, str(source), str(out)], stderr=subprocess.DEVNULL)
        assert done.returncode == -signal.SIGKILL
        assert contents(out) == {"a.jpg": b"ba"}  # nothing half
    summary = run(source, out)
    assert (summary.skipped, summary.done) == (1, 1)
    assert "ended 2 times while at work on it" in summary.failed["b.jpg"]
    assert run(source, out, redo=True).done == 3


def test_an_interrupted_photo_is_not_held_against_it(tmp_path: Path) -> None:
    source, out = fill(tmp_path / "in", a_jpg=b"ab"), tmp_path / "out"

    def interrupted(*_: object) -> tuple[dict[str, bytes], str]:
        raise KeyboardInterrupt

    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            run_batch(Place.open(str(source)), Place.open(str(out)), interrupted, "o")
    assert run(source, out).done == 1


def test_a_full_disk_stops_the_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = fill(tmp_path / "in", a_jpg=b"ab", b_jpg=b"cd", c_jpg=b"ef")
    put, computed = Place.put, []

    def full(place: Place, content: bytes, name: str, like_old: bool = False) -> None:
        if name.endswith("b.jpg"):
            raise OSError(errno.ENOSPC, "No space left on device", name)
        put(place, content, name, like_old)

    def noting(name: str, *arguments: object) -> tuple[dict[str, bytes], str]:
        computed.append(name)
        return copying(name, *arguments)

    monkeypatch.setattr(Place, "put", full)
    summary = run_batch(Place.open(str(source)), Place.open(str(tmp_path / "out")), noting, "o")
    assert computed == ["a.jpg", "b.jpg"]
    assert summary.failed == {"b.jpg": "the system says: No space left on device"}
    assert "stopped before the end" in summary.text() and "make room" in summary.text()
    monkeypatch.undo()
    assert run(source, tmp_path / "out").done == 2


def test_names_of_results() -> None:
    assert result_names(["a.jpg", "b.dng", "c.BMP", "d/a.png"], None) == {
        "a.jpg": "a.jpg",
        "b.dng": "b.tif",
        "c.BMP": "c.png",
        "d/a.png": "d/a.png",
    }
    assert result_names(["a.jpg", "a.dng"], None) == {"a.jpg": "a.jpg.jpg", "a.dng": "a.dng.tif"}
    assert result_names(["a.png"], ".webp") == {"a.png": "a.webp"}


EVIL = ("../evil.jpg", "a/../../evil.jpg", "/evil.jpg", "a\\..\\evil.jpg", "C:/evil.jpg", "a/\x00b.jpg", "./x.jpg")


@pytest.mark.parametrize("name", [*EVIL, "", "a//b.jpg", "x" * 256, "a\nb.jpg"])
def test_names_that_lead_out_are_refused(name: str) -> None:
    with pytest.raises(UnsafeNameError):
        check_name(name)


SOUND = (
    "Screenshot 2026-05-01 at 9.41.00\u202fAM.jpg",
    "no\u00a0break.jpg",
    "\U0001f468\u200d\U0001f469\u200d\U0001f467 \u2764\ufe0f.jpg",
    "12:30 lunch.jpg",
    "a:b.jpg",
    "back\\slash.jpg",
    "f::g.jpg",
    "写" * 80 + ".jpg",
    "x" * 250 + ".jpg",
    "100%[1]{2}*?'\".jpg",
)


def test_names_of_sound_photos_are_names(tmp_path: Path) -> None:
    source = tmp_path / "in"
    source.mkdir()
    for number, name in enumerate(SOUND):
        (source / name).write_bytes(b"ab" + bytes([number]))
    (source / "12:30").mkdir()
    (source / "12:30" / "a.jfif").write_bytes(b"xy")
    summary = run(source, tmp_path / "out")
    assert summary.failed == {} and summary.done == len(SOUND) + 1
    assert {name for name in contents(tmp_path / "out") if name.endswith(("jpg", "jfif"))} == {*SOUND, "12:30/a.jfif"}
    assert run(source, tmp_path / "out").skipped == len(SOUND) + 1
    one = Place.open(str(source / "f::g.jpg"))
    assert (one.only, one.read("f::g.jpg")) == ("f::g.jpg", source / "f::g.jpg")
    assert Place.open(str(tmp_path / "out")).is_same(Place.open(str(tmp_path / "x" / ".." / "out")))


@pytest.mark.parametrize(
    ("name", "reason"), [("a\n.jpg", "control"), ("\udce4.jpg", "UTF-8"), ("写" * 90, "255 bytes")]
)
def test_names_that_are_refused_say_why(name: str, reason: str) -> None:
    with pytest.raises(UnsafeNameError, match=reason):
        check_name(name)


def test_suffixes_of_cameras_and_browsers(tmp_path: Path) -> None:
    names = ["a.HIF", "b.jfif", "c.jpe", "d.mpo", "e.MPO"]
    assert list(photos_among(dict.fromkeys(names, ""))) == names
    assert list(result_names(names, None).values()) == ["a.HIF", "b.jfif", "c.jpe", "d.jpg", "e.jpg"]


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_an_archive_cannot_write_outside(tmp_path: Path, kind: str) -> None:
    names = ("good.jpg", *(name for name in EVIL if "\x00" not in name))
    archive = tmp_path / f"photos.{kind}"
    if kind == "zip":
        with zipfile.ZipFile(archive, "w") as file:
            for name in names:
                file.writestr(name, b"ab")
    else:
        with tarfile.open(archive, "w") as file:
            for name in names:
                member = tarfile.TarInfo(name)
                member.size = 2
                file.addfile(member, io.BytesIO(b"ab"))
            link = tarfile.TarInfo("link.jpg")
            link.type, link.linkname = tarfile.SYMTYPE, "/etc/hostname"
            file.addfile(link)
    out = tmp_path / "deep" / "out"
    summary = run(archive, out)
    assert contents(tmp_path)["deep/out/good.jpg"] == b"ba"
    outside = {name for name in contents(tmp_path) if not name.startswith("deep/out/")}
    assert outside == {archive.name}
    assert set(contents(out)) <= {"good.jpg", "good.json", "evil.jpg", "evil.json", "x.jpg", "x.json"}
    assert summary.done >= 1


def test_a_link_in_the_target_is_not_followed_out_of_it(tmp_path: Path) -> None:
    source = fill(tmp_path / "in", sub__a_jpg=b"ab")
    (tmp_path / "out").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out" / "sub").symlink_to(tmp_path / "elsewhere")
    summary = run(source, tmp_path / "out")
    assert "leads out of" in summary.failed["sub/a.jpg"]
    assert not list((tmp_path / "elsewhere").iterdir())


def test_an_archive_bomb_is_refused(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(places, "MAX_FILE_BYTES", 2**20)
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("a.jpg", bytes(2**24))
    place = Place.open(str(tmp_path / "bomb.zip"))
    with pytest.raises(OversizedFileError):
        place.read("a.jpg")


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """The address of an S3 server on this machine."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        }.items():
            patch.setenv(name, value)
        yield f"http://{host}:{port}"
    server.stop()


def test_a_bucket_from_and_to(s3: str) -> None:
    system = fsspec.filesystem("s3")
    system.mkdir("camera")
    system.pipe({"camera/in/a.jpg": b"ab", "camera/in/sub/b.jpg": b"cd", "camera/in/bad.jpg": b"bad"})
    for done, skipped in ((2, 0), (0, 2)):
        summary = run("s3://camera/in", "s3://camera/out")
        assert (summary.done, summary.skipped, list(summary.failed)) == (done, skipped, ["bad.jpg"])
    assert system.cat("camera/out/sub/b.jpg") == b"dc"
    system.pipe("camera/in/a.jpg", b"xyz")
    system.invalidate_cache()
    assert run("s3://camera/in", "s3://camera/out").done == 1
    assert system.cat("camera/out/a.jpg") == b"zyx"
