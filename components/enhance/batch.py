"""Enhance every photo of a folder, archive or bucket, and go on where a killed run stopped.

For each photo a small record lies in OUT/.smartphotocrafter: written first as "begun", and when all its files are in
place as "done" with the fingerprints of source and options. A photo with a valid "done" is skipped. One that was begun
twice and never done has taken the program down with it twice, and is counted as failed instead of a third try.
"""

import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Literal

from pydantic import Field, ValidationError
from tqdm import tqdm

from components.enhance.places import Place, check_name
from components.enhance.sidecar import check_own
from components.imaging.formats import FORMAT_OF_SUFFIX, PHOTO_SUFFIXES, RAW_SUFFIXES
from components.strict import Strict

RECORDS = ".smartphotocrafter"
_MOST_ATTEMPTS = 2


class Record(Strict):
    """What is known of one photo of a batch."""

    state: Literal["begun", "done"]
    attempts: int = Field(ge=0, description="Runs that ended in the middle of it; counted from the beginning.")
    source: str = Field(description="Fingerprint of the source file.")
    options: str = Field(description="Fingerprint of model and options.")
    outputs: tuple[str, ...] = Field(default=(), description="Names of the files that were written.")


@dataclass
class Summary:
    """How a batch went.

    Attributes:
        done: photos enhanced now.
        skipped: photos that an earlier run had enhanced with the same model and options.
        ignored: files whose name is not that of a picture.
        failed: reason by photo name.
    """

    done: int = 0
    skipped: int = 0
    ignored: int = 0
    failed: dict[str, str] = field(default_factory=dict)

    def text(self) -> str:
        """The counts, and the failures by how often their reason occurs."""
        total = self.done + self.skipped + len(self.failed)
        lines = [f"{self.done} of {total} photos enhanced, {self.skipped} were done before, {len(self.failed)} failed"]
        if self.ignored:
            lines.append(f"{self.ignored} files are no pictures by their name and were left out")
        for reason, count in Counter(self.failed.values()).most_common():
            names = [name for name, why in self.failed.items() if why == reason]
            more = f" and {count - 3} more" if count > 3 else ""
            lines.append(f"  {count} x {reason}: {', '.join(names[:3])}{more}")
        return "\n".join(lines)


Process = Callable[[str, Path, Path], str]
"""Given the name of a photo, its file and the path of the result: writes the result and whatever goes with it into that
folder, and returns what is to be printed."""


def run_batch(
    source: Place,
    target: Place,
    process: Process,
    options: str,
    suffix: str | None = None,
    redo: bool = False,
    report: Callable[[str], None] = tqdm.write,
    found: dict[str, str] | None = None,
) -> Summary:
    """Process every photo of ``source`` into ``target``, under the same names; a photo that fails stops no other.

    Args:
        process: makes one photo; any exception is that photo's failure.
        options: fingerprint of model and options; photos done with another one are done again.
        suffix: of the results, such as ".jpg"; by default that of the source, ".tif" for camera raw, ".png" for
            formats that are only read.
        redo: do all photos again.
        report: prints what became of a photo, above the progress bar.
        found: what ``source.names()`` gave, if it has been listed already.

    Raises:
        OSError: ``source`` cannot be listed or ``target`` cannot be written at all.
    """
    summary = Summary()
    found = _without(source.names() if found is None else found, source, target)
    photos = photos_among(found)
    summary.ignored = len(found) - len(photos)
    names = result_names(photos, suffix)
    with tqdm(photos.items(), unit="photo", disable=len(photos) < 2) as progress:
        for name, mark in progress:
            try:
                check_name(name)
                if _one(
                    source,
                    target,
                    process,
                    name,
                    names[name],
                    Record(state="begun", attempts=1, source=mark, options=options),
                    redo,
                    report,
                ):
                    summary.done += 1
                else:
                    summary.skipped += 1
            except Exception as error:  # one photo's failure, reported with its reason, is not the batch's
                reason = str(getattr(error, "reason", error)) or type(error).__name__
                summary.failed[name] = reason
                tqdm.write(f"error: {name}: {reason}", file=sys.stderr)
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
            wanted = path.suffix if own in FORMAT_OF_SUFFIX else ".png"
        stem = path if stems[str(path.with_suffix(""))] > 1 else path.with_suffix("")
        results[name] = f"{stem}{wanted}"
    return results


def _one(
    source: Place,
    target: Place,
    process: Process,
    name: str,
    result: str,
    record: Record,
    redo: bool,
    report: Callable[[str], None],
) -> bool:
    """Process one photo; False when it was done before.

    Raises: whatever goes wrong.
    """
    record_name = f"{RECORDS}/{name}.json"
    before = _read_record(target, record_name)
    if before is not None and not redo and (before.source, before.options) == (record.source, record.options):
        if before.state == "done" and all(target.exists(output) for output in before.outputs):
            return False
        if before.state == "begun" and before.attempts >= _MOST_ATTEMPTS:
            raise RuntimeError(f"the program ended {before.attempts} times while at work on it; --redo tries again")
        if before.state == "begun":
            record = record.model_copy(update={"attempts": before.attempts + 1})
    target.write_text(record_name, record.model_dump_json())
    try:
        with source.reading(name) as path, tempfile.TemporaryDirectory(prefix="spc-out-") as folder:
            made = Path(folder) / PurePosixPath(result).name
            text = process(name, path, made)
            parent = result.rpartition("/")[0]
            outputs = []
            for file in sorted(Path(folder).iterdir(), key=lambda file: (file == made, file.name)):  # the photo last
                outputs.append(f"{parent}/{file.name}" if parent else file.name)
                if file.suffix == ".xmp":
                    check_own(outputs[-1], target.read_bytes(outputs[-1]))
                target.put(file, outputs[-1])
    except BaseException:  # it failed or was interrupted, but it did not take the program down
        target.write_text(record_name, record.model_copy(update={"attempts": record.attempts - 1}).model_dump_json())
        raise
    done = record.model_copy(update={"state": "done", "attempts": 0, "outputs": tuple(outputs)})
    target.write_text(record_name, done.model_dump_json())
    report(text)
    return True


def _read_record(target: Place, name: str) -> Record | None:
    content = target.read_bytes(name)
    try:
        return None if content is None else Record.model_validate_json(content)
    except ValidationError:
        return None


def _without(names: dict[str, str], source: Place, target: Place) -> dict[str, str]:
    """Names that do not lie in the target, where that is a folder within the source."""
    inner = target.root.removeprefix(source.root).lstrip("/")
    if target.files is not source.files or not target.root.startswith(f"{source.root}/") or not inner:
        return names
    return {name: mark for name, mark in names.items() if not name.startswith(f"{inner}/")}
