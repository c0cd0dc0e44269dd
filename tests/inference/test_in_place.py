"""In place: each photo is replaced once, whole, at the very end, and loses nothing; a kill changes none of that."""

import multiprocessing
import os
import shutil
import signal
import sys
from pathlib import Path
from types import FrameType

import pytest
from PIL import Image

from components.imaging.photo import Photo, read_photo, write_photo
from components.imaging.source import PictureFile
from components.inference.batch import BusyError, Summary, run_batch
from components.inference.places import Place
from pipelines.__main__ import main
from tests.conftest import make_photo


def folder_of(tmp_path: Path, count: int = 3) -> Path:
    for number in range(count):
        write_photo(Photo(make_photo(16, 24, seed=number)), tmp_path / "photos" / f"{number}.png")
    return tmp_path / "photos"


def appending(name: str, source: PictureFile, result: str, beside: str) -> tuple[dict[str, bytes], str]:
    """The work of a test: one byte more, which a PNG may have behind its end."""
    return {result: source.read_bytes() + b"+"}, name


def run(folder: Path, **more: object) -> Summary:
    return run_batch(Place.open(str(folder)), Place.open(str(folder)), appending, "o", in_place=True, **more)


def edits(folder: Path) -> list[int]:
    """How often each photo was replaced."""
    return [path.read_bytes()[-3:].count(b"+") for path in sorted(folder.glob("*.png"))]


def test_a_folder_is_replaced_once_whatever_the_options(enhancer, tmp_path: Path, capsys) -> None:
    folder = folder_of(tmp_path)
    before = {path.name: read_photo(path).pixels for path in folder.iterdir()}
    for options in ([], [], ["--strength", "0.5"], ["--redo"], ["--sidecar"]):
        assert main(["enhance", str(folder), "--in-place", *options]) == 0
    assert len(enhancer.asked) == 3
    for name, pixels in before.items():
        assert (read_photo(folder / name).pixels - pixels / 2).abs().max() < 0.02
    assert "0 of 3 photos enhanced, 3 were done before" in capsys.readouterr().err


def test_a_single_photo_is_replaced_once(enhancer, source: Path) -> None:
    before = read_photo(source).pixels
    for _ in range(2):
        assert main(["enhance", str(source), "--in-place", "--sidecar"]) == 0
    assert (read_photo(source).pixels - before / 2).abs().mean() < 0.02
    assert source.with_suffix(".xmp").exists()
    with Image.open(source) as image:
        assert len(image.getexif())


def test_permissions_and_attributes_are_kept(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, 1)
    photo = folder / "0.png"
    photo.chmod(0o640)
    os.link(photo, tmp_path / "backup.png")
    original = photo.read_bytes()
    attributes = True
    try:
        os.setxattr(photo, "user.tag", b"holiday")
    except OSError:
        attributes = False  # not on this file system
    assert run(folder).done == 1
    assert photo.stat().st_mode & 0o777 == 0o640 and edits(folder) == [1]
    assert not attributes or os.getxattr(photo, "user.tag") == b"holiday"
    assert (tmp_path / "backup.png").read_bytes() == original  # a new file was renamed over one of its names


def test_nothing_is_replaced_when_something_fails(tmp_path: Path, enhancer, capsys) -> None:
    folder = folder_of(tmp_path, 2)
    (folder / "0.json").write_text('{"exported": true}')
    before = (folder / "0.png").read_bytes()
    assert main(["enhance", str(folder), "--in-place", "--sidecar"]) == 1
    assert "0.json in OUT was not written by this program" in capsys.readouterr().err
    assert (folder / "0.png").read_bytes() == before and not (folder / "0.xmp").exists()
    assert (folder / "1.xmp").exists()


def test_what_would_lose_more_than_its_pixels_is_refused(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, 1)
    (folder / "a.nef").write_bytes(b"raw")
    (folder / "a.bmp").write_bytes(b"BM")
    shutil.copy(folder / "0.png", folder / "named.jpg")
    (folder / "link.png").symlink_to("0.png")
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("red", "blue")]
    frames[0].save(folder / "pages.tif", save_all=True, append_images=frames[1:])
    frames[0].save(folder / "both.webp", save_all=True, append_images=frames[1:])
    summary = run(folder)
    assert summary.done == 1
    assert {name: summary.failed[name].split(":")[0] for name in summary.failed} == {
        "a.bmp": ".bmp files are only read, never written",
        "a.nef": ".nef files are only read, never written",
        "both.webp": "it holds 2 pictures, and the result only one",
        "link.png": "it is reached by a link",
        "named.jpg": "its name says JPEG, its content is PNG",
        "pages.tif": "it holds 2 pictures, and the result only one",
    }
    assert edits(folder)[0] == 1


def test_a_photo_that_was_changed_since_is_left_until_it_is_asked_for(tmp_path: Path) -> None:
    folder = folder_of(tmp_path)
    run(folder)
    with (folder / "1.png").open("ab") as file:
        file.write(b"tagged")
    summary = run(folder)
    assert (summary.done, summary.skipped, summary.changed) == (0, 3, ["1.png"]) and "1.png: changed" in summary.text()
    assert run(folder, redo=True).done == 1
    assert (folder / "1.png").read_bytes().endswith(b"+tagged+") and edits(folder)[::2] == [1, 1]


def test_a_photo_that_somebody_edits_meanwhile_is_left(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, 1)

    def interrupted(name: str, *more: object) -> tuple[dict[str, bytes], str]:
        made = appending(name, *more)
        (folder / name).write_bytes(b"cropped")
        return made

    place = Place.open(str(folder))
    summary = run_batch(place, place, interrupted, "o", in_place=True)
    assert "changed while its result was made" in summary.failed["0.png"]
    assert (folder / "0.png").read_bytes() == b"cropped"


def test_only_one_run_at_a_time(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, 1)

    def nested(*arguments: object) -> tuple[dict[str, bytes], str]:
        with pytest.raises(BusyError, match="another run is at work"):
            run(folder)
        return appending(*arguments)

    place = Place.open(str(folder))
    assert run_batch(place, place, nested, "o", in_place=True).done == 1


def dying(folder: Path, moment: int, steps: list[int]) -> None:
    """Run in place, and die at a moment: the calls and returns within the code that writes are counted."""
    calls = 0

    def count(frame: FrameType, event: str, _: object) -> None:
        nonlocal calls
        if frame.f_code.co_filename.endswith(("components/files.py", "enhance/batch.py", "enhance/records.py")):
            calls += 1
            if calls == moment:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.setprofile(count)
    try:
        run(folder)
    finally:
        sys.setprofile(None)
        steps.append(calls)


def test_no_kill_makes_it_edit_a_photo_twice_or_leave_one_out(tmp_path: Path) -> None:
    steps: list[int] = []
    dying(folder_of(tmp_path / "whole", 2), 0, steps)
    seen = set()
    for moment in range(10, steps[0], max(1, steps[0] // 15)):
        folder = folder_of(tmp_path / str(moment), 2)
        originals = [path.read_bytes() for path in sorted(folder.iterdir())]
        process = multiprocessing.get_context("fork").Process(target=dying, args=(folder, moment, []))
        process.start()
        process.join(60)
        assert process.exitcode == -signal.SIGKILL
        now = [(folder / name).read_bytes() for name in ("0.png", "1.png")]
        assert all(content in (before, before + b"+") for content, before in zip(now, originals, strict=True))
        seen.add(tuple(content[-1:] == b"+" for content in now))
        run(folder)
        assert edits(folder) == [1, 1], moment
        assert {path.name for path in folder.iterdir()} == {"0.png", "1.png", ".smartphotocrafter"}
    assert seen == {(False, False), (True, False), (True, True)}


def test_a_photo_in_a_bucket_is_not_replaced() -> None:
    place = Place.open("memory://bucket-in-place")
    place.put(b"a photo", "a.png")
    found = {"a.png": place.mark("a.png")}
    summary = run_batch(place, place, appending, "o", in_place=True, found=found)
    assert list(summary.failed) == ["a.png"] and "not on this machine's disk" in summary.failed["a.png"]
    assert place.read_bytes("a.png") == b"a photo"
