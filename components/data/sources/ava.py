"""AVA: 255,530 photos of dpchallenge.com with ratings from 1 to 10 (Murray, Marchesotti, Perronnin 2012, CVPR).

The score is the mean of the ratings. Some files are missing from every copy and some are cut short: the former are
skipped and counted here, the latter quarantined when they are read. The test list is the authors'; without its folder
no split is given.
"""

import itertools
import logging
from collections.abc import Iterator
from typing import ClassVar

from components.data.sources.base import MISSING, Skipped, Source, SourceError, SourceRecord
from components.data.splits import Split

log = logging.getLogger(__name__)

_TEST_LIST = ("aesthetics_image_lists", "generic_test.jpgl")
_VALUES = 15


class Ava(Source):
    """Rated photos; tags and challenge as labels ("tag=15", "challenge=1396")."""

    name: ClassVar[str] = "ava"
    layout: ClassVar[str] = (
        "image/<id>.jpg (or images/, ava_images/); AVA.txt, no header, separated by spaces: index, image id, ten "
        "counts of the ratings 1..10, two tag ids, challenge id; aesthetics_image_lists/generic_test.jpgl, an id a line"
    )
    licence: ClassVar[str] = "all rights stay with the photographers; research use only"
    homepage: ClassVar[str] = "https://github.com/imfing/ava_downloader"

    def prepare(self) -> None:
        names = ("image", "images", "ava_images")
        self.table = self.needed("AVA.txt")
        beside = (path for name in names if (path := self.find(self.table.parent, name)))
        anywhere = (path for name in names if (path := self.seek(name)))
        photos = next(itertools.chain(beside, anywhere), None)
        if photos is None:
            raise self.error(self.root / "image", "missing, and so are images/ and ava_images/")
        self.photos = self.innermost(photos)
        self.test = self._test_ids()

    def scan(self) -> Iterator[SourceRecord | Skipped]:
        for line, text in self.lines(self.table):
            yield self._entry(line, text)

    def _entry(self, line: int, text: str) -> SourceRecord | Skipped:
        try:
            values = [int(word) for word in text.split()]
        except ValueError:
            values = []
        if len(values) != _VALUES or min(values) < 0:
            raise self.error(self.table, f"line {line}: expected {_VALUES} whole numbers, found {text!r}")
        identity, counts, tags, challenge = values[1], values[2:12], values[12:14], values[14]
        if not sum(counts):
            raise self.error(self.table, f"line {line}: expected the ratings of image {identity}, found none")
        path = self.photo(self.photos, f"{identity}.jpg")
        if path is None:
            return self.skip(self.photos / f"{identity}.jpg", MISSING)
        mean = sum(rating * count for rating, count in enumerate(counts, start=1)) / sum(counts)
        labels = ("aesthetics", *(f"tag={tag}" for tag in tags if tag), f"challenge={challenge}")
        split: Split | None = None if self.test is None else "test" if identity in self.test else "train"
        page = f"https://www.dpchallenge.com/image.php?IMAGE_ID={identity}"
        return self.record(path, split, labels=labels, source=page, **self.score(mean, 1, 10, self.table, line))

    def _test_ids(self) -> frozenset[int] | None:
        """Ids of the test photos (19,930), or None when the copy comes without the authors' lists."""
        folder = self.seek(_TEST_LIST[0])
        if folder is None:
            log.warning("ava: %s: no %s: photos are split by hash", self.root, "/".join(_TEST_LIST))
            return None
        path = self.require(self.innermost(folder), _TEST_LIST[1])
        try:
            return frozenset(int(word) for _, text in self.lines(path) for word in text.split())
        except SourceError:
            raise
        except ValueError as problem:
            raise self.error(path, f"expected one image id a line: {problem}") from problem
