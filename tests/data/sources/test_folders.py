"""Folders as people unpack them: pairing by name, extensions in any case, leftovers, ambiguity."""

from pathlib import Path

import pytest

from components.data.sources import folders
from tests.data.sources.layouts import litter, save, save_all, write


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
    assert folders.find_photo(tmp_path, "a.b.jpg") == tmp_path / there
    assert folders.find_photo(tmp_path, "a.jpg") is None


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
    with pytest.raises(folders.AlteredFile, match="byte 0xfc is not UTF-8: save the table as UTF-8"):
        list(folders.csv_rows(path, ("name", "score")))


def test_altered_tables_are_refused(tmp_path: Path) -> None:
    with pytest.raises(folders.AlteredFile, match="missing columns: score; found: name, value"):
        list(folders.csv_rows(write(tmp_path / "a.csv", "name,value", "a,1"), ("name", "score")))
    with pytest.raises(folders.AlteredFile, match="line 2: expected 2 values"):
        list(folders.csv_rows(write(tmp_path / "b.csv", "name,score", "a"), ("name", "score")))
    with pytest.raises(folders.AlteredFile, match="found: none"):
        list(folders.csv_rows(write(tmp_path / "c.csv"), ("name",)))
