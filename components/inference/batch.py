"""Enhance every photo of a folder, archive or bucket, and go on where a killed run stopped.

For each photo a small record lies in OUT/.smartphotocrafter (`components.inference.records`): written first as "begun",
then with the digests of the files that will be put in place, and when all are there as "done" with the fingerprints of
source and options. A photo with a valid "done" is skipped. One that was begun twice and never done has taken the
program down with it twice, and is counted as failed instead of a third try.

No file is replaced that this program did not write, and none, whatever its name, that is one of the photos of IN. The
one exception is a batch in place: it replaces each photo by its result, at the very end, and never does so twice. Its
record then tells a photo that was replaced already (its digest is noted) from one that was not yet, so that a run
killed in between neither repeats nor leaves out an edit.
"""

import errno
import sys
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import PurePosixPath

from filelock import FileLock, Timeout
from tqdm import tqdm

from components.imaging.formats import FORMAT_OF_SUFFIX, PHOTO_SUFFIXES, RAW_SUFFIXES
from components.imaging.source import PictureFile
from components.inference.in_place import InPlaceError, check_in_place
from components.inference.places import Place, check_name
from components.inference.records import RECORDS, Record, read_record, write_record
from components.inference.seal import ForeignFileError, is_sealed

_MOST_ATTEMPTS = 2
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
"""Errors that every other photo would meet too."""
_SEALED = (".json", ".xmp", ".cube")
_SIDECARS = (".json", ".xmp")
_SHOWN = 5


class BusyError(RuntimeError):
    """Another run is at work in OUT."""


@dataclass
class Summary:
    """How a batch went.

    Attributes:
        done: photos enhanced now.
        skipped: photos that an earlier run had enhanced with the same model and options.
        ignored: files whose name is not that of a picture.
        failed: reason by photo name.
        kept: files in OUT that would have been replaced and are not this program's.
        changed: photos enhanced in place that were changed since, and are left as they are.
        stopped: why the photos after the last failure were not tried, or None.
    """

    done: int = 0
    skipped: int = 0
    ignored: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    kept: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    stopped: str | None = None

    def text(self) -> str:
        """The counts, and the failures by how often their reason occurs."""
        total = self.done + self.skipped + len(self.failed)
        lines = [f"{self.done} of {total} photos enhanced, {self.skipped} were done before, {len(self.failed)} failed"]
        if self.ignored:
            lines.append(f"{self.ignored} files are no pictures by their name and were left out")
        if self.kept:
            lines.append(f"{_several(self.kept)}: not written by this program, or changed since, and left as it is")
        if self.changed:
            lines.append(f"{_several(self.changed)}: changed since enhanced in place; --redo enhances it again")
        for reason, count in Counter(self.failed.values()).most_common():
            names = [name for name, why in self.failed.items() if why == reason]
            more = f" and {count - 3} more" if count > 3 else ""
            lines.append(f"  {count} x {reason}: {', '.join(names[:3])}{more}")
        if self.stopped:
            lines.append(f"stopped before the end: {self.stopped}")
        return "\n".join(lines)


Process = Callable[[str, PictureFile, str, str], tuple[dict[str, bytes], str]]
"""Given the name of a photo, its file, the name of the result and the name whose stem the files beside it have: makes
the contents of all files by name, the photo last, and what is to be printed."""


def run_batch(
    source: Place,
    target: Place,
    process: Process,
    options: str,
    suffix: str | None = None,
    redo: bool = False,
    overwrite: bool = False,
    in_place: bool = False,
    report: Callable[[str], None] = tqdm.write,
    found: dict[str, str] | None = None,
) -> Summary:
    """Process every photo of ``source`` into ``target``, under the same names; a photo that fails stops no other.

    Args:
        process: makes one photo; any exception is that photo's failure.
        options: fingerprint of model and options; photos done with another one are done again.
        suffix: of the results, such as ".jpg"; by default that of the source, ".tif" for camera raw, ".jpg" for
            MPO, ".png" for the other formats that are only read.
        redo: do all photos again; in place, only those that were changed since or gave up.
        overwrite: also replace pictures and tables in ``target`` that this program did not write; never a photo of
            ``source``, and never another program's sidecars.
        in_place: ``target`` is the folder of ``source``, and each photo is replaced by its result.
        report: prints what became of a photo, above the progress bar.
        found: what ``source.names()`` gave, if it has been listed already.

    Raises:
        ValueError: ``target`` is ``source``, and ``in_place`` does not say so.
        BusyError: another run is at work in ``target``.
        OSError: ``source`` cannot be listed or ``target`` cannot be written at all.
    """
    if in_place != target.is_same(source):
        raise ValueError("expected a target that is not the source, or in_place and one that is")
    summary = Summary()
    found = _without(source.names() if found is None else found, source, target)
    photos = photos_among(found)
    summary.ignored = len(found) - len(photos)
    names = result_names(photos, suffix)
    work = _Work(source, target, process, options, redo, overwrite, in_place, report, summary, photos)
    with _alone(target), tqdm(photos.items(), unit="photo", disable=len(photos) < 2) as progress:
        for name, mark in progress:
            try:
                check_name(name)
                work.one(name, mark, names[name])
            except Exception as error:  # one photo's failure, reported with its reason, is not the batch's
                summary.failed[name] = _reason(error)
                said = error if isinstance(error, ForeignFileError) else summary.failed[name]
                tqdm.write(f"error: {name}: {said}", file=sys.stderr)
                if isinstance(error, OSError) and error.errno in _FULL:
                    summary.stopped = f"{target.url}: {error.strerror}: make room, and start again"
                    break
            progress.set_postfix(failed=len(summary.failed), skipped=summary.skipped)
    return summary


def photos_among(found: dict[str, str]) -> dict[str, str]:
    """Those of the names with their fingerprints that are photos by their suffix."""
    return {name: mark for name, mark in found.items() if PurePosixPath(name).suffix.lower() in PHOTO_SUFFIXES}


def result_names(photos: Iterable[str], suffix: str | None) -> dict[str, str]:
    """The name of each photo's result, without its companions' suffixes clashing.

    Where two photos of a folder have the same stem (a.jpg and a.dng), the results keep the whole name of their source
    in front of the suffix (a.jpg.jpg and a.dng.tif), so that sidecars and tables of one do not replace the other's.
    """
    stems = Counter(str(PurePosixPath(name).with_suffix("")) for name in photos)
    results = {}
    for name in photos:
        path = PurePosixPath(name)
        own = path.suffix.lower()
        if suffix is not None:
            wanted = suffix
        elif own in RAW_SUFFIXES:
            wanted = ".tif"
        else:
            wanted = path.suffix if own in FORMAT_OF_SUFFIX else ".jpg" if own == ".mpo" else ".png"
        stem = path if stems[str(path.with_suffix(""))] > 1 else path.with_suffix("")
        results[name] = f"{stem}{wanted}"
    return results


@dataclass
class _Work:
    """One photo after the other; the arguments are those of `run_batch`."""

    source: Place
    target: Place
    process: Process
    options: str
    redo: bool
    overwrite: bool
    in_place: bool
    report: Callable[[str], None]
    summary: Summary
    photos: dict[str, str]

    def one(self, name: str, mark: str, result: str) -> None:
        """Process one photo unless that was done before.

        Raises: whatever goes wrong.
        """
        before = read_record(self.target, name)
        beside = result
        if before is not None and self._is_done(before, name, mark):
            return
        if self.in_place:
            result = name
            check_in_place(self.source, name)
        record = Record(state="begun", attempts=1, source=mark, options=self.options)
        if before is not None:
            record = record.model_copy(update={"outputs": before.outputs, "written": before.written})
            if before.state == "begun":
                for output in before.written:
                    self.target.sweep(output)
            if before.state == "begun" and not self.redo and before.source == mark and before.options == self.options:
                if before.attempts >= _MOST_ATTEMPTS:
                    raise RuntimeError(
                        f"the program ended {before.attempts} times while at work on it; --redo tries again"
                    )
                record = record.model_copy(update={"attempts": before.attempts + 1})
        write_record(self.target, name, record)
        try:
            self._check(result, record)
            made, text = self.process(name, self.source.read(name), result, beside)
            for output in made:
                self._check(output, record)
            if self.in_place and self.source.mark(name) != mark:
                raise InPlaceError("it was changed while its result was made, and is left as it is: start again")
            record = record.about_to_write(made)
            write_record(self.target, name, record)
            for output, content in made.items():
                self.target.put(content, output, like_old=self.in_place)
        except BaseException:  # it failed or was interrupted, but it did not take the program down
            again = record.model_copy(update={"attempts": record.attempts - 1})
            write_record(self.target, name, again)
            raise
        mark = self.target.mark(name) if self.in_place else mark
        write_record(self.target, name, record.done(tuple(made), mark))
        self.summary.done += 1
        self.report(text)

    def _is_done(self, before: Record, name: str, mark: str) -> bool:
        """Whether nothing is to be done for a photo; counts it then."""
        if self.in_place:
            return self._is_replaced(before, name, mark)
        same = (before.source, before.options) == (mark, self.options)
        if self.redo or before.state != "done" or not same:
            return False
        if not all(self.target.exists(output) for output in before.outputs):
            return False
        self.summary.skipped += 1
        return True

    def _is_replaced(self, before: Record, name: str, mark: str) -> bool:
        """Whether the photo is a result already, with whatever options, or was made from one by somebody since."""
        if name not in before.written:
            return False
        if before.state == "begun" or before.source != mark:
            if not before.wrote(name, self.source.read_bytes(name) or b""):
                if self.redo or before.state == "begun":
                    return False
                self.summary.changed.append(name)
            else:
                write_record(self.target, name, before.done((name,), mark))
        self.summary.skipped += 1
        return True

    def _check(self, output: str, record: Record) -> None:
        """Raise `ForeignFileError` unless the file ``output`` is absent or this program's to replace."""
        identity = self.target.identity(output)
        if identity is None or (self.in_place and output in self.photos and identity == self.source.identity(output)):
            return
        if identity in self._inputs:
            raise ForeignFileError(f"{output} in OUT is one of the photos of IN, and would be lost")
        suffix = PurePosixPath(output).suffix.lower()
        if self.overwrite and suffix not in _SIDECARS:
            return
        content = self.target.read_bytes(output)
        if content is None or (is_sealed(content) if suffix in _SEALED else record.wrote(output, content)):
            return
        self.summary.kept.append(output)
        way = "move it away first" if suffix in _SIDECARS else "move it away, or replace it with --overwrite"
        raise ForeignFileError(f"{output} in OUT was not written by this program, or was changed since: {way}")

    @cached_property
    def _inputs(self) -> set[Hashable]:
        return {self.source.identity(name) for name in self.photos}


def _reason(error: Exception) -> str:
    """What is told of a photo that failed, fit for counting."""
    if isinstance(error, OSError) and error.strerror:
        return f"the system says: {error.strerror}"
    return str(getattr(error, "reason", error)) or type(error).__name__


@contextmanager
def _alone(target: Place) -> Iterator[None]:
    """Keep other runs out of a folder on this machine; the system lets go of it with the process.

    Raises:
        BusyError: another run is at work there.
    """
    if target.folder is None:
        yield
        return
    folder = target.folder / RECORDS
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / ".lock", timeout=0):
            yield
    except Timeout as error:
        raise BusyError(f"another run is at work in {target.folder}: wait for its end") from error


def _without(names: dict[str, str], source: Place, target: Place) -> dict[str, str]:
    """Names that do not lie in the target, where that is within the source or linked from it."""
    if source.folder is not None and target.folder is not None:
        if source.folder.is_relative_to(target.folder):
            return names
        inside = target.folder
        return {
            name: mark for name, mark in names.items() if not (source.folder / name).resolve().is_relative_to(inside)
        }
    inner = target.root.removeprefix(source.root).lstrip("/")
    if target.files != source.files or not target.root.startswith(f"{source.root}/") or not inner:
        return names
    return {name: mark for name, mark in names.items() if not name.startswith(f"{inner}/")}


def _several(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{', '.join(names[:_SHOWN])}{more}"
