"""Folders as people unpack them: pairing by name, extensions in any case, leftovers, ambiguity."""

import os
from pathlib import Path

import pytest

from components.data.building import BuildSettings, build
from components.data.records import read_manifest
from components.data.sources import folders
from components.data.sources.base import open_source
from tests.data.sources.layouts import litter, save, save_all, write
from tests.data.sources.miniatures import MINIATURES


def test_partners_are_found_by_name_never_by_order(tmp_path: Path) -> None:
    save_all(tmp_path, ["in/2.png", "in/10.png", "in/b.JPG", "out/10.jpeg", "out/2.PNG", "out/c.jpg", "out/b.Jpg"])
    found = list(folders.match(tmp_path / "in", tmp_path / "out", folders.same, folders.same))
    whole = [(entry[0], entry[1].name, entry[2].name) for entry in found if len(entry) == 3]
    assert whole == [("10", "10.png", "10.jpeg"), ("2", "2.png", "2.PNG"), ("b", "b.JPG", "b.Jpg")]
    assert [(path.name, reason) for path, reason in (e for e in found if len(e) == 2)] == [("c.jpg", folders.NO_INPUT)]


def test_two_files_of_one_name_are_both_left_out(tmp_path: Path) -> None:
    save_all(tmp_path, ["in/1.png", "in/1.jpg", "in/1.webp", "in/2.png", "out/1.png", "out/2.png"])
    found = list(folders.match(tmp_path / "in", tmp_path / "out", folders.same, folders.same))
    assert [entry[0] for entry in found if len(entry) == 3] == ["2"]
    reasons = {path.relative_to(tmp_path).as_posix(): reason for path, reason in (e for e in found if len(e) == 2)}
    doubled = {f"in/1.{suffix}": folders.SAME_STEM for suffix in ("png", "jpg", "webp")}
    assert reasons == doubled | {"out/1.png": folders.NO_INPUT}


def test_leftovers_are_no_part_of_a_dataset(tmp_path: Path) -> None:
    save(tmp_path / "0001.png")
    litter(tmp_path)
    assert list(folders.walk(tmp_path)) == [tmp_path / "0001.png"]
    assert folders.search(tmp_path, "._0001.png") is None


def test_walking_goes_below_in_a_fixed_order(tmp_path: Path) -> None:
    save_all(tmp_path, ["b/2.png", "a/1.png", "z.png", "b/c/3.png"])
    names = [path.relative_to(tmp_path).as_posix() for path in folders.walk(tmp_path)]
    assert names == ["z.png", "a/1.png", "b/2.png", "b/c/3.png"]


@pytest.mark.parametrize("there", ["a.b.JPG", "a.b.jpg", "a.b.jpeg", "a.b.Jpg", "a.b.JPEG"])
def test_a_photo_is_found_whatever_the_case_of_its_extension(there: str, tmp_path: Path) -> None:
    save(tmp_path / there)
    names = folders.Names(tmp_path)
    assert names.find("a.b.jpg") == tmp_path / there
    assert names.find("a.jpg") is None and folders.Names(tmp_path / "absent").find("a.b.jpg") is None


def test_folders_are_found_in_any_case(tmp_path: Path) -> None:
    (tmp_path / "Train" / "Input").mkdir(parents=True)
    assert folders.find_child(tmp_path, "train") == tmp_path / "Train"
    assert folders.find_child(tmp_path, "test") is None
    assert folders.find_child(tmp_path / "absent", "test") is None


def test_tables_are_read_with_byte_order_mark_and_spaces(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes('\ufeffname, "score"\na.jpg, 1\n"b,c.jpg", 2\n'.encode())
    rows = list(folders.csv_rows(path, ("name", "score")))
    assert rows == [(2, {"name": "a.jpg", "score": "1"}), (3, {"name": "b,c.jpg", "score": "2"})]


@pytest.mark.parametrize("sign", [";", "\t"])
def test_tables_of_spreadsheets_are_read(tmp_path: Path, sign: str) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(f"\ufeffname{sign}score\r\nb,c.jpg{sign}2\r\n".encode())
    assert list(folders.csv_rows(path, ("name", "score"))) == [(2, {"name": "b,c.jpg", "score": "2"})]


def test_a_table_that_is_not_in_utf_8_says_so(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes("name,score\nMünchen.jpg,2\n".encode("cp1252"))
    with pytest.raises(folders.AlteredFile, match="not UTF-8 text: save it as CSV in UTF-8"):
        list(folders.csv_rows(path, ("name", "score")))


def test_altered_tables_are_refused(tmp_path: Path) -> None:
    with pytest.raises(folders.AlteredFile, match="missing columns: score; found: name, value"):
        list(folders.csv_rows(write(tmp_path / "a.csv", "name,value", "a,1"), ("name", "score")))
    with pytest.raises(folders.AlteredFile, match="line 2: expected 2 values"):
        list(folders.csv_rows(write(tmp_path / "b.csv", "name,score", "a"), ("name", "score")))
    with pytest.raises(folders.AlteredFile, match="found: none"):
        list(folders.csv_rows(write(tmp_path / "c.csv"), ("name",)))


GBK = "\u7167".encode("gbk")  # the first half of "photo" as an archiver under Chinese Windows writes it


def test_accents_are_written_in_two_ways(tmp_path: Path) -> None:
    apart, together = "cafe\u0301", "caf\u00e9"
    save_all(tmp_path, [f"in/{apart}.png", f"out/{together}.png"])
    (found,) = folders.match(tmp_path / "in", tmp_path / "out", folders.same, folders.same)
    assert found == (together, tmp_path / "in" / f"{apart}.png", tmp_path / "out" / f"{together}.png")
    assert folders.Names(tmp_path / "in").find(f"{together}.PNG") == tmp_path / "in" / f"{apart}.png"
    assert folders.find_child(tmp_path / "in", f"{together}.png") == tmp_path / "in" / f"{apart}.png"
    assert folders.search(tmp_path, f"{together}.png") == tmp_path / "in" / f"{apart}.png"


def test_a_name_that_is_not_utf8_is_told_and_stops_nothing(tmp_path: Path) -> None:
    card = tmp_path / "card"
    save_all(card, ["1.jpg", "zh/2.jpg"])
    (card / "1.jpg").rename(card / os.fsdecode(GBK + b".jpg"))
    (card / "zh").rename(card / os.fsdecode(GBK))
    save_all(card, ["3.jpg"])
    source = open_source("single_folder", card)
    settings = BuildSettings(min_short_side=16)
    manifest = build([source], tmp_path / "out", settings, photos_dir=tmp_path, facts=tmp_path / "facts.sqlite")
    assert [record.path for record in manifest] == ["card/3.jpg"]
    reasons = {entry.path: entry.reason for entry in read_manifest(tmp_path / "out").quarantine}
    assert reasons == dict.fromkeys((r"card/\xd5\xd5.jpg", r"card/\xd5\xd5/2.jpg"), folders.NOT_UTF8)
    assert "convmv" in folders.NOT_UTF8


def test_a_link_loop_says_what_to_do(tmp_path: Path) -> None:
    save_all(tmp_path / "photos", ["1.jpg", "inner/2.jpg"])
    (tmp_path / "photos" / "inner" / "up").symlink_to(tmp_path / "photos")
    with pytest.raises(OSError, match=r"this link leads back to .*photos, in which it lies: remove it.*inner/up"):
        list(folders.walk(tmp_path / "photos"))
    (tmp_path / "photos" / "inner" / "up").unlink()
    (tmp_path / "elsewhere").symlink_to(tmp_path / "photos")
    (tmp_path / "itself.jpg").symlink_to(tmp_path / "itself.jpg")
    assert list(folders.walk(tmp_path)) == [
        tmp_path / name
        for name in ("itself.jpg", "elsewhere/1.jpg", "elsewhere/inner/2.jpg", "photos/1.jpg", "photos/inner/2.jpg")
    ]


def test_a_closed_folder_is_told_whoever_asks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def closed(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "scandir", closed)
    with pytest.raises(PermissionError, match=r"cannot be listed: let this user read it .*chmod u\+rx"):
        list(folders.walk(tmp_path))


def test_tables_in_utf16_are_read_and_others_named(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes("name,score\nä.jpg,1\n".encode("utf-16"))
    assert list(folders.csv_rows(path, ("name", "score"))) == [(2, {"name": "ä.jpg", "score": "1"})]
    path.write_bytes("name,score\nä.jpg,1\n".encode("latin-1"))
    with pytest.raises(folders.AlteredFile, match="not UTF-8 text: save it as CSV in UTF-8"):
        list(folders.csv_rows(path, ("name", "score")))


def test_a_listing_is_taken_once_for_all_photos_of_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    MINIATURES["kadid10k"](tmp_path)
    listed: list[str] = []
    original = os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: (listed.append(Path(path).name), original(path))[1])
    source = open_source("kadid10k", tmp_path)
    assert len(list(source.records())) == 26 and listed.count("images") == 1
    assert len(list(source.records())) == 26 and listed.count("images") == 2


def test_what_a_file_is_its_first_bytes_say_where_its_name_does_not(tmp_path: Path) -> None:
    save_all(tmp_path, [f"{number}.{suffix}" for number, suffix in enumerate(("jpg", "png", "gif", "webp", "avif"))])
    for path in list(tmp_path.iterdir()):
        path.rename(path.with_name(f"{path.stem}.dat"))
    save(tmp_path / "a.jpg").rename(tmp_path / "a.jfif")
    save(tmp_path / "b.jpg").rename(tmp_path / "b")
    save(tmp_path / "c.jpg").rename(tmp_path / "c.mov")
    write(tmp_path / "d.gif", "named like a picture, and told when it is read")
    write(tmp_path / "e.txt", "II is no signature")
    write(tmp_path / "f.CR2", "II*")
    found = [entry for entry in folders.photos(tmp_path) if isinstance(entry, Path)]
    assert [path.name for path in found] == ["0.dat", "1.dat", "2.dat", "3.dat", "4.dat", "a.jfif", "b", "d.gif"]
    assert ".hif" in folders.PHOTO_SUFFIXES
