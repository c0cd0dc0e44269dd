"""Try every photo of a folder, and count by kind what is read, right, refused and wrong: `make test-files FOLDER=`.

Each file is read as `enhance` reads it, written without an edit and read again: the samples have to be the same. Where
Pillow reads the file too, both have to show the same picture. With ExifTool on PATH the tags of EXIF, IPTC and XMP are
compared as well. A decoder that takes the program down, or hangs, is a wrong file like any other.
"""

import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import click
import numpy as np
import pillow_heif
import torch
from PIL import Image, ImageCms, ImageOps

from components.imaging.formats import FORMAT_OF_SUFFIX, PHOTO_SUFFIXES
from components.imaging.originals import Original, encode_original, read_original
from components.imaging.photo import UnreadablePhoto
from components.imaging.profiles import is_srgb
from components.imaging.source import MemoryFile

_SIDE = 64  # of the pictures that are compared
_MOST_DIFFERENCE = 3.0  # mean, of 255: readers interpolate chroma and convert profiles each in their way
_SECONDS = 300.0
_VERDICTS = ("right", "unchecked", "refused", "wrong")
_CHANGED_ON_PURPOSE = (
    "Orientation", "ExifImageWidth", "ExifImageHeight", "ImageWidth", "ImageHeight", "Thumbnail", "PreviewImage",
    "ByteOrder", "Compression", "Predictor", "FillOrder", "RowsPerStrip", "Strip", "Tile", "PageNumber", "ColorSpace",
    "MotionPhoto", "MicroVideo", "Directory", "GainMap", "PhotometricInterpretation", "BitsPerSample",
    "SamplesPerPixel",
    "SubfileType", "SampleFormat", "YCbCrPositioning", "SampleValue",
)  # fmt: skip


@dataclass(frozen=True)
class Outcome:
    """What became of one file.

    Attributes:
        kind: its suffix.
        verdict: "right", "unchecked" (read, but Pillow does not read it), "refused" or "wrong".
        reason: of "refused" and "wrong".
        lost: tags that ExifTool finds no more.
    """

    kind: str
    verdict: str
    reason: str = ""
    lost: tuple[str, ...] = ()


def tried(path: Path) -> Outcome:
    """Read, write and read again one file."""
    kind = path.suffix.lower()
    try:
        original = read_original(path)
    except UnreadablePhoto as error:
        return Outcome(kind, "refused", error.reason)
    except OSError as error:
        return Outcome(kind, "refused", f"the system says: {error.strerror or error}")
    except Exception as error:  # what this looks for
        return Outcome(kind, "wrong", f"{type(error).__name__}: {error}")
    try:
        reason = _changed(original)
        seen = None if reason else _seen_by_pillow(path, original)
        lost = _lost(path, original) if shutil.which("exiftool") else ()
    except Exception as error:  # what this looks for
        return Outcome(kind, "wrong", f"{type(error).__name__}: {error}")
    if reason is None and seen is not None and seen > _MOST_DIFFERENCE:
        reason = f"Pillow shows another picture: a mean difference of {seen:.1f} of 255"
    if reason:
        return Outcome(kind, "wrong", reason, lost)
    return Outcome(kind, "unchecked" if seen is None else "right", lost=lost)


def table(outcomes: list[Outcome]) -> str:
    """The counts by kind, and in all."""
    rows: list[tuple[str, ...]] = [("kind", "tried", "read", *_VERDICTS)]
    for kind in [*sorted({outcome.kind for outcome in outcomes}), "all"]:
        counts = Counter(outcome.verdict for outcome in outcomes if kind in ("all", outcome.kind))
        read = counts["right"] + counts["unchecked"]
        rows.append((kind, *map(str, (counts.total(), read, *(counts[verdict] for verdict in _VERDICTS)))))
    return "\n".join(f"{row[0]:<8}" + "".join(f"{cell:>11}" for cell in row[1:]) for row in rows)


@click.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
def main(folder: Path) -> None:
    """Try every photo of FOLDER; print each that is refused or wrong, with the reason, and a table by kind.

    The exit status is 1 where a file is wrong.
    """
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in PHOTO_SUFFIXES and path.is_file())
    outcomes = {}
    for path, outcome in _each(paths):
        outcomes[path] = outcome
        if outcome.reason:
            print(f"{outcome.verdict}: {path.relative_to(folder)}: {outcome.reason}", flush=True)
    print(table(list(outcomes.values())))
    lost = Counter(tag for outcome in outcomes.values() for tag in outcome.lost)
    if lost:
        print("lost by ExifTool's reading: " + ", ".join(f"{tag} ({count})" for tag, count in lost.most_common()))
    sys.exit(1 if any(outcome.verdict == "wrong" for outcome in outcomes.values()) else 0)


def _each(paths: list[Path]) -> Iterator[tuple[Path, Outcome]]:
    """The outcome of each file, which a process of its own works out; a new one follows one that breaks off."""
    pool = _pool()
    for path in paths:
        future = pool.submit(tried, path)
        try:
            yield path, future.result(timeout=_SECONDS)
        except (BrokenProcessPool, TimeoutError) as error:
            what = "it hangs" if isinstance(error, TimeoutError) else "it takes the program down"
            yield path, Outcome(path.suffix.lower(), "wrong", what)
            _end(pool)
            pool = _pool()
    pool.shutdown()


def _pool() -> ProcessPoolExecutor:
    return ProcessPoolExecutor(1, mp_context=get_context("spawn"), initializer=_prepare)


def _prepare() -> None:
    torch.set_num_threads(1)
    pillow_heif.register_heif_opener()


def _end(pool: ProcessPoolExecutor) -> None:
    for process in list((pool._processes or {}).values()):
        process.kill()
    pool.shutdown(wait=False, cancel_futures=True)


def _changed(original: Original) -> str | None:
    """What is different in the photo after it was written as PNG without an edit, or None."""
    written = encode_original(original.edited(lambda strip, top: strip), "a.png")
    again = read_original(MemoryFile("a.png", written))
    if again.icc != original.icc:
        return "its colour profile is another one when it is written"
    if (original.alpha is None) != (again.alpha is None):
        return "its alpha is lost when it is written"
    rounding = 1 if again.samples.dtype == np.uint8 else 64
    levels = again.samples.astype(np.int64)
    expected = original.samples.astype(np.int64)
    if original.samples.dtype != again.samples.dtype:  # 16 bits of a profile's conversion, stored in the file's 8
        levels = levels * 257
        rounding = 257
    difference = int(np.abs(levels - expected).max())
    return f"its samples differ by up to {difference} when it is written" if difference > rounding else None


def _seen_by_pillow(path: Path, original: Original) -> float | None:
    """Mean difference from what Pillow shows, of 255; None where it does not read the file or its colours."""
    if original.format == "RAW":
        return None
    try:
        with Image.open(path) as opened:
            profile = opened.info.get("icc_profile")
            if opened.mode.startswith(("I", "F")) or (opened.mode == "CMYK" and profile):
                return None
            image = ImageOps.exif_transpose(opened)
            if opened.mode == "L" and profile:
                grey, srgb = ImageCms.ImageCmsProfile(io.BytesIO(profile)), ImageCms.createProfile("sRGB")
                image = ImageCms.profileToProfile(image, grey, srgb, outputMode="RGB") or image
            image = image.convert("RGBA" if "transparency" in image.info else "RGB").convert("RGB")
    except Exception:  # Pillow raises anything; that it does not read a file is no fault of it
        return None
    if original.icc and not is_srgb(original.icc):
        if profile != original.icc:
            return None
        theirs, srgb = ImageCms.ImageCmsProfile(io.BytesIO(profile)), ImageCms.createProfile("sRGB")
        image = ImageCms.profileToProfile(image, theirs, srgb) or image
    scale = min(1.0, _SIDE / max(original.width, original.height))
    size = (max(1, round(original.height * scale)), max(1, round(original.width * scale)))
    if (image.height, image.width) != (original.height, original.width):
        return 255.0
    (ours,) = original.reduced([size])
    shown = np.asarray(image.resize(size[::-1], Image.Resampling.BICUBIC), np.float32).transpose(2, 0, 1)
    return float(np.abs(ours.numpy() * 255 - shown).mean())


def _lost(path: Path, original: Original) -> tuple[str, ...]:
    """The tags that ExifTool finds in a file, and not, or otherwise, in what is written in its format."""
    suffix = path.suffix if FORMAT_OF_SUFFIX.get(path.suffix.lower()) == original.format else ".tif"
    handle, name = tempfile.mkstemp(suffix=suffix)
    os.close(handle)
    try:
        Path(name).write_bytes(encode_original(original, f"a{suffix}"))
        before, after = _tags(path), _tags(Path(name))
    finally:
        Path(name).unlink()
    kept = {tag: value for tag, value in before.items() if not any(word in tag for word in _CHANGED_ON_PURPOSE)}
    return tuple(tag for tag, value in kept.items() if after.get(tag) != value)


def _tags(path: Path) -> dict[str, object]:
    command = ["exiftool", "-json", "-n", "-G0", "-EXIF:all", "-IPTC:all", "-XMP:all", "--", str(path)]
    listed = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    found: dict[str, object] = (json.loads(listed) or [{}])[0] if listed.strip() else {}
    found.pop("SourceFile", None)
    return found


if __name__ == "__main__":
    main()
