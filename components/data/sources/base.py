"""What every dataset adapter shares: the record it yields, how it skips and fails, and how it is found by name.

An adapter reads a dataset exactly as its authors publish it, from a local folder, and yields one `SourceRecord` for
each photo as it goes: nothing is collected, so memory does not grow with the dataset. It decodes no pixels (that, with
EXIF orientation and colour profiles, is the business of `components.imaging.photo.read_photo`).

    >>> source = open_source("koniq10k", Path("/data/koniq10k"))   # doctest: +SKIP
    >>> for record in source.records(): ...                        # doctest: +SKIP
    >>> source.skipped                                             # doctest: +SKIP
    Counter({'listed in the annotations but missing': 2})
"""

import importlib
import itertools
import logging
import math
import pkgutil
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from components.data.sources import folders, places
from components.data.sources.entries import ADDABLE as ADDABLE  # what adapters and their readers name
from components.data.sources.entries import MISSING as MISSING
from components.data.sources.entries import Role as Role
from components.data.sources.entries import Skipped as Skipped
from components.data.sources.entries import SourceRecord as SourceRecord
from components.data.splits import Split
from components.strict import Strict

if TYPE_CHECKING:  # pairs imports the ingest, which imports the sources
    from components.data.pairs import PairKind

log = logging.getLogger(__name__)

_FOLDERS_HELD = 8
_HELPERS = frozenset(("base", "entries", "folders", "own_photos", "places"))


class SourceError(ValueError):
    """A dataset that is not laid out as published.

    Attributes:
        dataset: its name.
        path: the file or folder at fault.
        problem: what is wrong with it.
        begins_here: whether the dataset is where it was looked for, so that it need not be looked for elsewhere.
    """

    def __init__(self, dataset: str, path: Path, problem: str, layout: str, begins_here: bool = False) -> None:
        super().__init__(f"{dataset}: {folders.printable(str(path))}: {problem}\nexpected layout: {layout}")
        self.dataset = dataset
        self.path = Path(path)
        self.problem = problem
        self.begins_here = begins_here


def normalise_score(value: float, low: float, high: float, ascending: bool) -> float:
    """A score on the scale ``low`` to ``high`` as 0 (worst) to 100 (best); on that very scale it stays as it is."""
    if (low, high, ascending) == (0, 100, True):
        return value
    return 100.0 * ((value - low) if ascending else (high - value)) / (high - low)


class NoSettings(Strict):
    """For adapters with nothing to choose."""


class Source(ABC):
    """A dataset in a folder. A subclass fills in the four names and `scan`, and checks the layout in `prepare`.

    Args:
        root: folder into which the original download was unpacked, or a folder a level or two above it.
        settings: an instance of the adapter's ``Settings``; its defaults when None.

    Attributes:
        root: folder in which the dataset begins; paths in records are relative to it.
        named: folder that was given as root.
        reach: levels below the root at which `seek` looks.
        skipped: how many files the last complete or partial pass of `survey` or `records` skipped, by reason.

    Raises:
        SourceError: ``root`` does not hold the dataset as published.
    """

    name: ClassVar[str]
    layout: ClassVar[str]
    licence: ClassVar[str]
    homepage: ClassVar[str | None]
    Settings: ClassVar[type[Strict]] = NoSettings
    own: ClassVar[bool] = False
    """Whether the photos are the user's own, whose pairs nobody has checked."""

    def __init__(self, root: Path, settings: Strict | None = None) -> None:
        self.root = self.named = Path(root)
        self.reach = places.LEVELS
        self.settings: Any = self.Settings() if settings is None else settings
        self.skipped: Counter[str] = Counter()
        self._names: dict[Path, folders.Names] = {}
        if not self.root.is_dir():
            raise self.error(self.root, places.told(self.root))
        self._find_root()

    def _find_root(self) -> None:
        """Find the folder in which the dataset begins: the one that was named, or a folder a level or two below it."""
        named = self.root
        first = self._problem_at(named)
        if first is None:
            return
        for level in places.below(named):
            problems = {folder: self._problem_at(folder) for folder in level}
            if found := [folder for folder, problem in problems.items() if problem is None]:
                if len(found) > 1:
                    several = ", ".join(str(folder) for folder in found)
                    self.root = named
                    raise self.error(named, f"found in several folders, set root to one of them: {several}")
                log.info("%s: found in %s", self.name, found[0])
                self._problem_at(found[0])
                return
        self.reach = 0
        around = next((folder for folder in places.above(named) if self._holds(folder, named)), None)
        self.root = named
        if around is not None:
            raise self.error(named, f"this lies inside the dataset, which begins at {around}: set root to that")
        raise self.error(first.path, f"{first.problem}. In {named}: {places.told(named)}") from first

    def _holds(self, folder: Path, named: Path) -> bool:
        """Whether the dataset begins at a folder and something of it lies in ``named``."""
        if self._problem_at(folder) is not None:
            return False
        found = {name: value for name, value in vars(self).items() if name not in ("root", "named")}
        return places.uses(found, named)

    def _problem_at(self, folder: Path) -> SourceError | None:
        """Why the dataset does not begin at a folder; None where it does, and then the source is ready.

        Raises:
            SourceError: it begins there, and something is wrong with it.
            OSError: the folder that was named cannot be looked into; another one is passed over.
        """
        self.root = folder
        try:
            self.prepare()
        except SourceError as problem:
            if problem.begins_here:
                raise
            return problem
        except OSError as problem:
            if folder == self.named:
                raise
            return self.error(folder, f"cannot be looked into: {problem}")
        return None

    @property
    def dataset(self) -> str:
        """The name in the records."""
        return self.name

    def prepare(self) -> None:  # noqa: B027 (a dataset of loose photos has nothing to find)
        """Find the folders and files that `scan` reads; raise `SourceError` early where one is missing."""

    @abstractmethod
    def scan(self) -> Iterator[SourceRecord | Skipped]:
        """Everything the dataset lists or holds, one by one, in an order that does not depend on the file system."""

    def records(self) -> Iterator[SourceRecord]:
        """The records of `survey`, with the same errors."""
        return (entry for entry in self.survey() if isinstance(entry, SourceRecord))

    def survey(self) -> Iterator[SourceRecord | Skipped]:
        """What `scan` gives; what is skipped is counted in `skipped` and logged at the end.

        Raises:
            SourceError: an annotation is altered, or not a single record came out.
        """
        self.skipped = Counter()
        examples: dict[str, str] = {}
        count = 0
        for entry in self.scan():
            if isinstance(entry, Skipped):
                self.skipped[entry.reason] += 1
                examples.setdefault(entry.reason, entry.path)
            else:
                count += 1
            yield entry
        self._names.clear()
        for reason, number in self.skipped.most_common():
            log.warning("%s: skipped %d files: %s (the first: %s)", self.dataset, number, reason, examples[reason])
        if not count:
            reasons = ", ".join(f"{reason}: {number}" for reason, number in self.skipped.most_common())
            raise self.error(self.root, f"not a single photo found ({reasons or 'the folders are empty'})")

    # ------------------------------------------------------------------------------------ for subclasses

    def error(self, path: Path, problem: str, begins_here: bool = False) -> SourceError:
        """The error to raise about ``path``; it shows the layout."""
        return SourceError(self.dataset, path, problem, self.layout, begins_here)

    def relative(self, path: Path) -> str:
        """``path`` as records hold it."""
        return path.relative_to(self.root).as_posix()

    def skip(self, path: Path, reason: str) -> Skipped:
        """What is told of a file that yields no record; a name that is not UTF-8 is told so that it can be printed."""
        return Skipped(folders.printable(self.relative(path)), reason)

    def photo(self, folder: Path, name: str) -> Path | None:
        """The photo ``name`` of ``folder``, in any spelling (`folders.Names`); None when it is missing.

        A folder is listed once per pass; the names of the last few folders are held.
        """
        return self._names_in(folder).find(name)

    def innermost(self, folder: Path) -> Path:
        """The folder in which the files of ``folder`` are: itself, or the only one in it (images/images), or deeper."""
        for _ in range(places.LEVELS):
            names = self._names_in(folder)
            if names.files or len(names.folders) != 1:
                break
            folder = folder / names.folders[0]
        return folder

    def _names_in(self, folder: Path) -> folders.Names:
        names = self._names.pop(folder, None) or folders.Names(folder)
        self._names[folder] = names  # the last one used is the last to go
        if len(self._names) > _FOLDERS_HELD:
            self._names.pop(next(iter(self._names)))
        return names

    def below(self, *names: str) -> Path:
        """The root, or the folder that the download's archive makes in it, whichever is there."""
        for name in names:
            inner = folders.find_child(self.root, name)
            if inner is not None and inner.is_dir():
                return inner
        return self.root

    def find(self, parent: Path, *parts: str) -> Path | None:
        """The file or folder at ``parts`` below ``parent``, without regard to case; None when there is none."""
        path: Path | None = parent
        for part in parts:
            path = folders.find_child(path, part) if path is not None else None
        return path

    def seek(self, *parts: str) -> Path | None:
        """Like `find` below the root or a folder a level or two further down, of what is downloaded by itself."""
        found = self.find(self.root, *parts)
        if found is None:
            inner = itertools.chain.from_iterable(places.below(self.root, self.reach))
            found = next((path for folder in inner if (path := self.find(folder, *parts)) is not None), None)
        return found

    def needed(self, *parts: str) -> Path:
        """Like `seek`, but its absence is an error."""
        path = self.seek(*parts)
        if path is None:
            raise self.error(self.root.joinpath(*parts), "missing")
        return path

    def require(self, parent: Path, *parts: str) -> Path:
        """Like `find`, but its absence is an error."""
        path = self.find(parent, *parts)
        if path is None:
            raise self.error(parent.joinpath(*parts), "missing")
        return path

    def rows(self, path: Path, columns: tuple[str, ...]) -> Iterator[tuple[int, dict[str, str]]]:
        """Line number and values of each row of a CSV file that has at least ``columns``."""
        try:
            yield from folders.csv_rows(path, columns)
        except folders.AlteredFile as problem:
            raise self.error(path, str(problem)) from problem

    def lines(self, path: Path) -> Iterator[tuple[int, str]]:
        """Number and text of each line of a list that is not empty, as people save it (`folders.text_of`)."""
        with folders.text_of(path) as file:
            try:
                for number, text in enumerate(file, start=1):
                    if text := text.strip():
                        yield number, text
            except UnicodeDecodeError as problem:
                raise self.error(path, f"not text in UTF-8 or UTF-16: save it as one of them ({problem})") from problem

    def number(self, text: object, path: Path, line: int, column: str) -> float:
        """A finite number from an annotation file; anything else is an error that names file, line and column."""
        try:
            value = float(text)  # type: ignore[arg-type]
        except (TypeError, ValueError):
            value = math.nan
        if not math.isfinite(value):
            raise self.error(path, f"line {line}: expected a number in the column {column}, found {text!r}")
        return value

    def score(
        self, value: float, low: float, high: float, path: Path, line: int, *, ascending: bool = True
    ) -> dict[str, Any]:
        """The five fields of a record's score; a value off its scale is an error that names file and line."""
        if not low <= value <= high:
            raise self.error(path, f"line {line}: expected a score from {low:g} to {high:g}, found {value:g}")
        return {
            "mos": normalise_score(value, low, high, ascending),
            "mos_original": value,
            "mos_low": low,
            "mos_high": high,
            "mos_ascending": ascending,
        }

    def record(self, path: Path, split: Split | None, **fields: Any) -> SourceRecord:
        """The record of ``path``; dataset, licence and source are filled in, names of pair and scene made unique."""
        fields.setdefault("licence", self.licence)
        fields.setdefault("source", self.homepage)
        for name in ("pair", "scene"):
            if fields.get(name) is not None:
                fields[name] = f"{self.dataset}/{fields[name]}"
        return SourceRecord(self.relative(path), self.dataset, split, **fields)

    def paired(
        self,
        pair: str,
        photo: Path,
        target: Path,
        split: Split | None,
        *,
        kind: "PairKind" = "restoration",
        labels: tuple[str, ...] = (),
        target_labels: tuple[str, ...] = (),
        **fields: Any,
    ) -> tuple[SourceRecord, SourceRecord]:
        """The records of an input ``photo`` with the distortions ``labels`` and of its target."""
        return (
            self.record(photo, split, pair=pair, role="input", kind=kind, labels=labels, **fields),
            self.record(target, split, pair=pair, role="target", kind=kind, labels=target_labels, **fields),
        )

    def matched(
        self,
        inputs: Path,
        targets: Path,
        input_key: folders.Key = folders.same,
        target_key: folders.Key = folders.same,
    ) -> Iterator[tuple[str, Path, Path] | Skipped]:
        """(key, input, target) of the photos of two folders whose keys agree; see `folders.match`."""
        for entry in folders.match(inputs, targets, input_key, target_key):
            yield self.skip(*entry) if len(entry) == 2 else entry

    def paired_folders(
        self,
        inputs: Path,
        targets: Path,
        split: Split | None,
        prefix: str,
        keys: tuple[folders.Key, folders.Key] = (folders.same, folders.same),
        **fields: Any,
    ) -> Iterator[SourceRecord | Skipped]:
        """Records of the photos of two folders whose keys agree: the pair is ``prefix`` and the key; see `paired`."""
        for entry in self.matched(inputs, targets, *keys):
            if isinstance(entry, Skipped):
                yield entry
            else:
                yield from self.paired(prefix + entry[0], entry[1], entry[2], split, **fields)


def known_sources() -> tuple[str, ...]:
    """Names that `open_source` takes: one for each module of this package that is an adapter."""
    names = {module.name for module in pkgutil.iter_modules([str(Path(__file__).parent)])}
    return tuple(sorted(names - _HELPERS))


def source_class(name: str) -> type[Source]:
    """The adapter of that name.

    Raises:
        ValueError: there is none; the message lists those there are.
    """
    known = known_sources()
    if name not in known:
        raise ValueError(f"unknown dataset {name!r}; expected one of {', '.join(known)}")
    module = importlib.import_module(f"{__package__}.{name}")
    for value in vars(module).values():
        if isinstance(value, type) and issubclass(value, Source) and value.__module__ == module.__name__:
            return value
    raise TypeError(f"{module.__file__}: expected a subclass of Source")


def open_source(name: str, root: Path, **settings: Any) -> Source:
    """Open the dataset ``name`` in the folder ``root``; ``settings`` are the fields of the adapter's ``Settings``.

    Raises:
        ValueError: an unknown name; the message lists the known ones.
        pydantic.ValidationError: unknown or wrong settings.
        SourceError: the folder does not hold the dataset as published.
    """
    adapter = source_class(name)
    return adapter(Path(root), adapter.Settings(**settings))
