"""KonIQ-10k: 10,073 photos from YFCC100M, each rated by about 120 people (Hosu et al. 2020, IEEE TIP 29).

Two score files circulate, and both call a column MOS: `koniq10k_distributions_sets.csv` holds it on 0-100 beside the
published sets, `koniq10k_scores_and_distributions.csv` on 1-5 beside the 0-100 MOS_zscore. Which scale a MOS column has
is decided by the counts of the ratings 1..5 that stand in the same row, never by the file's name.
"""

from collections.abc import Iterator
from typing import ClassVar, Literal

from pydantic import Field

from components.data.sources.base import MISSING, Skipped, Source, SourceRecord
from components.data.splits import Split
from components.strict import Strict

_SETS: dict[str, Split] = {"training": "train", "validation": "validation", "test": "test"}
_RATINGS = ("c1", "c2", "c3", "c4", "c5")
_COLUMNS = ("image_name", *_RATINGS, "MOS")
_ROUNDING = 0.02


class Koniq10k(Source):
    """Rated photos; split as in the column ``set`` of the sets file, None with the other file."""

    class Settings(Strict):
        size: Literal["1024x768", "512x384"] = Field(default="1024x768", description="Which of the two copies.")

    name: ClassVar[str] = "koniq10k"
    layout: ClassVar[str] = (
        "1024x768/<id>.jpg or 512x384/<id>.jpg; koniq10k_distributions_sets.csv (image_name, c1..c5, c_total, MOS, SD, "
        "set) or koniq10k_scores_and_distributions.csv (image_name, c1..c5, c_total, MOS, SD, MOS_zscore)"
    )
    licence: ClassVar[str] = "photos under their authors' Creative Commons licences (YFCC100M), scores for research"
    homepage: ClassVar[str] = "http://database.mmsp-kn.de/koniq-10k-database.html"

    def prepare(self) -> None:
        tables = ("koniq10k_distributions_sets.csv", "koniq10k_scores_and_distributions.csv")
        table = next((path for name in tables if (path := self.seek(name))), None)
        if table is None:
            raise self.error(self.root / tables[0], f"missing, and so is {tables[1]}")
        self.table = table
        self.photos = self.innermost(self.find(table.parent, self.settings.size) or self.needed(self.settings.size))
        self.column, self.low, self.high = self._scale()

    def scan(self) -> Iterator[SourceRecord | Skipped]:
        for line, row in self.rows(self.table, (*_COLUMNS, self.column)):
            path = self.photo(self.photos, row["image_name"])
            if path is None:
                yield self.skip(self.photos / row["image_name"], MISSING)
                continue
            part = row.get("set")
            if part is not None and part not in _SETS:
                raise self.error(self.table, f"line {line}: expected a set of {', '.join(_SETS)}, found {part!r}")
            value = self.number(row[self.column], self.table, line, self.column)
            rating = self.score(value, self.low, self.high, self.table, line)
            yield self.record(path, _SETS[part] if part else None, labels=("quality",), **rating)

    def _scale(self) -> tuple[str, float, float]:
        """Column of the score and the ends of its scale, from one pass over the table."""
        zscored = raw = 0
        columns: set[str] = set()
        for line, row in self.rows(self.table, _COLUMNS):
            columns = set(row)
            counts = [self.number(row[column], self.table, line, column) for column in _RATINGS]
            if min(counts) < 0 or sum(counts) <= 0:
                raise self.error(self.table, f"line {line}: expected counts of ratings in c1..c5, found {counts}")
            mean = sum(rating * count for rating, count in enumerate(counts, start=1)) / sum(counts)
            agrees = abs(self.number(row["MOS"], self.table, line, "MOS") - mean) <= _ROUNDING
            raw, zscored = raw + agrees, zscored + (not agrees)
        if raw and zscored:
            raise self.error(
                self.table, f"MOS is the mean of c1..c5 in {raw} rows and not in {zscored}: two scales mixed"
            )
        if "MOS_zscore" in columns:
            return "MOS_zscore", 0.0, 100.0
        return ("MOS", 1.0, 5.0) if raw else ("MOS", 0.0, 100.0)
