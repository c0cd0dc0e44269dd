"""Files that are whole or absent: what is told of one that cannot be written."""

from pathlib import Path

import pytest

from components import files


def test_a_message_names_the_file_and_not_the_temporary_one_beside_it(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    target.mkdir()
    with pytest.raises(IsADirectoryError) as caught:
        files.write_text(target, "content")
    assert (caught.value.filename, caught.value.filename2) == (str(target), None)
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.skipif(not Path("/proc/sys").exists(), reason="needs a folder that takes no files")
def test_a_folder_that_takes_no_files_is_told_with_the_name_of_the_file() -> None:
    with pytest.raises(OSError) as caught:  # whatever the system calls it
        files.write_text(Path("/proc/sys/a.txt"), "content")
    assert caught.value.filename == "/proc/sys/a.txt"


def test_an_error_about_another_file_is_told_as_it_is(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught, files.replacing(tmp_path / "a.txt"):
        (tmp_path / "b.txt").read_bytes()
    assert caught.value.filename == str(tmp_path / "b.txt")
    assert not list(tmp_path.iterdir())
