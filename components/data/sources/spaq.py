"""SPAQ: 11,125 smartphone photos with scores of quality and of five attributes (Fang et al. 2020, CVPR).

All scores run from 0 to 100 and higher is better, Noisiness too (a clean photo scores high). `EXIF_tags.xlsx` has a
Brightness of its own, the APEX value, which is not the attribute and is never read. Copies name the folders
differently, so both the score file and the photos are searched for.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar
from zipfile import BadZipFile

import openpyxl
from openpyxl.utils.exceptions import InvalidFileException

from components.data.sources import folders
from components.data.sources.base import MISSING, Skipped, Source, SourceRecord

ATTRIBUTES = ("Brightness", "Colorfulness", "Contrast", "Noisiness", "Sharpness")
_COLUMNS = ("Image name", "MOS", *ATTRIBUTES)
_TABLE = "MOS and Image attribute scores.xlsx"


class Spaq(Source):
    """Rated photos with attribute scores as labels ("brightness=54.2"). No split is published."""

    name: ClassVar[str] = "spaq"
    layout: ClassVar[str] = (
        f"TestImage/00001.jpg..11125.jpg; Annotations/{_TABLE} ({', '.join(_COLUMNS)}); folder names may differ"
    )
    licence: ClassVar[str] = "not stated (the authors' code is for education and research only)"
    homepage: ClassVar[str] = "https://github.com/h4nwei/SPAQ"

    def prepare(self) -> None:
        table = folders.search(self.root, _TABLE, 1 + self.reach)
        if table is None:
            raise self.error(
                self.root / "Annotations" / _TABLE, "missing, and found nowhere in the three levels below the root"
            )
        self.table = table
        first = next(self._rows(), None)
        if first is None:
            raise self.error(table, "no row below the header")
        file = str(first[1]["Image name"])
        found = self._search_photo(file)
        if found is None:
            raise self.error(
                self.root / "TestImage" / file, "missing, and found nowhere in the three levels below the root"
            )
        self.photos = found.parent

    def scan(self) -> Iterator[SourceRecord | Skipped]:
        for line, row in self._rows():
            name = str(row["Image name"])
            path = self.photo(self.photos, name)
            if path is None:
                yield self.skip(self.photos / name, MISSING)
                continue
            values = {column: self.number(row[column], self.table, line, column) for column in _COLUMNS[1:]}
            for column in ATTRIBUTES:
                self.score(values[column], 0, 100, self.table, line)
            labels = ("quality", *(f"{column.lower()}={values[column]:g}" for column in ATTRIBUTES))
            yield self.record(path, None, labels=labels, **self.score(values["MOS"], 0, 100, self.table, line))

    def _rows(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """Line number and values of each row of the first sheet, read as it goes."""
        try:
            book = openpyxl.load_workbook(self.table, read_only=True, data_only=True)
        except (BadZipFile, InvalidFileException, KeyError, OSError) as problem:
            raise self.error(self.table, f"not a readable Excel file: {problem}") from problem
        try:
            lines = book.worksheets[0].iter_rows(values_only=True)
            header = [str(cell).strip() if cell is not None else "" for cell in next(lines, ())]
            if missing := [column for column in _COLUMNS if column not in header]:
                raise self.error(self.table, f"missing columns: {', '.join(missing)}; found: {', '.join(header)}")
            places = {column: header.index(column) for column in _COLUMNS}
            for line, cells in enumerate(lines, start=2):
                if any(cell is not None for cell in cells):  # sheets often end in empty rows
                    yield line, {column: cells[place] for column, place in places.items()}
        finally:
            book.close()

    def _search_photo(self, name: str) -> Path | None:
        usual = self.find(self.root, "TestImage")
        found = self.photo(usual, name) if usual else None
        return found or folders.search(self.root, name, 1 + self.reach)
