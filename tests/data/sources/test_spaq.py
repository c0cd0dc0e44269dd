"""SPAQ: an Excel file with spaces in its name, attributes whose direction surprises, and a decoy."""

from pathlib import Path

import openpyxl
import pytest

from components.data.sources.base import SourceError, open_source
from tests.data.sources.layouts import litter, read, save, write

COLUMNS = ["Image name", "MOS", "Brightness", "Colorfulness", "Contrast", "Noisiness", "Sharpness"]
TABLE = "MOS and Image attribute scores.xlsx"


def sheet(path: Path, header: list[str], *rows: list) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    book = openpyxl.Workbook()
    for row in (header, *rows):
        book.active.append(row)
    book.save(path)
    return path


def build(root: Path, photos: str = "TestImage", annotations: str = "Annotations") -> Path:
    rows = [
        ["00001.jpg", 41.6, 54.2, 46.0, 49.5, 36.4, 33.0],
        ["00002.jpg", 80, 61.25, 60, 62, 90, 78],
        ["00003.jpg", 0, 0, 0, 0, 0, 0],
    ]
    for seed, row in enumerate(rows):
        save(root / photos / row[0], seed)
    sheet(root / annotations / "EXIF_tags.xlsx", ["Image name", "Brightness"], ["00001.jpg", -3.1])
    litter(root)
    return sheet(root / annotations / TABLE, COLUMNS, *rows, [None] * 7)


def test_scores_and_attributes(tmp_path: Path) -> None:
    build(tmp_path)
    found = read(open_source("spaq", tmp_path))
    assert {path: record.mos for path, record in found.items()} == {
        "TestImage/00001.jpg": 41.6,
        "TestImage/00002.jpg": 80,
        "TestImage/00003.jpg": 0,
    }
    record = found["TestImage/00002.jpg"]
    attributes = ("brightness=61.25", "colorfulness=60", "contrast=62", "noisiness=90", "sharpness=78")
    assert record.labels == ("quality", *attributes)
    assert (record.mos_original, record.mos_low, record.mos_high, record.mos_ascending) == (80, 0, 100, True)
    assert record.split is None and record.pair is None


def test_other_folder_names_are_searched(tmp_path: Path) -> None:
    build(tmp_path, "SPAQ/Test Image", "SPAQ zip/annotation files")
    assert list(read(open_source("spaq", tmp_path))) == [f"SPAQ/Test Image/0000{n}.jpg" for n in (1, 2, 3)]


def test_columns_may_stand_in_another_order(tmp_path: Path) -> None:
    path = build(tmp_path)
    sheet(path, ["MOS ", *COLUMNS[2:], "Image name"], [41.6, 54.2, 46.0, 49.5, 36.4, 33.0, "00001.jpg"])
    (record,) = read(open_source("spaq", tmp_path)).values()
    assert (record.path, record.mos, record.labels[-1]) == ("TestImage/00001.jpg", 41.6, "sharpness=33")


def test_missing_photos_are_skipped(tmp_path: Path) -> None:
    build(tmp_path)
    (tmp_path / "TestImage" / "00002.jpg").unlink()
    source = open_source("spaq", tmp_path)
    assert len(read(source)) == 2 and source.skipped.total() == 1


def test_altered_files_are_errors(tmp_path: Path) -> None:
    path = build(tmp_path)
    sheet(path, ["Image name", "MOS", *COLUMNS[3:]], ["00001.jpg", 41.6, 46.0, 49.5, 36.4, 33.0])
    with pytest.raises(SourceError, match="missing columns: Brightness; found: Image name, MOS, Colorfulness"):
        open_source("spaq", tmp_path)
    sheet(path, COLUMNS, ["00001.jpg", 41.6, 54.2, 46.0, 49.5, 136.4, 33.0])
    with pytest.raises(SourceError, match=r"line 2: expected a score from 0 to 100, found 136\.4"):
        list(open_source("spaq", tmp_path).records())
    sheet(path, COLUMNS, ["00001.jpg", None, 54.2, 46.0, 49.5, 36.4, 33.0])
    with pytest.raises(SourceError, match="line 2: expected a number in the column MOS, found None"):
        list(open_source("spaq", tmp_path).records())
    sheet(path, COLUMNS)
    with pytest.raises(SourceError, match="no row below the header"):
        open_source("spaq", tmp_path)
    write(path, "Image name,MOS")
    with pytest.raises(SourceError, match=f"{TABLE}: not a readable Excel file"):
        open_source("spaq", tmp_path)
    path.unlink()
    with pytest.raises(SourceError, match=f"{TABLE}: missing, and found nowhere in the three levels below the root"):
        open_source("spaq", tmp_path)


def test_absent_photos_are_an_error(tmp_path: Path) -> None:
    build(tmp_path)
    for path in (tmp_path / "TestImage").iterdir():
        path.unlink()
    with pytest.raises(SourceError, match=r"00001.jpg: missing, and found nowhere in the three levels below the root"):
        open_source("spaq", tmp_path)
