"""Continuous fuzzing with Atheris (libFuzzer): `make fuzz TARGET=photo DURATION=60`.

The project's own parsers are instrumented when they are imported, so that libFuzzer sees which of their branches an
input takes; decoders in C are not, and are reached through them. What is found stays in fuzz/TARGET: inputs that reach
something new, with which the next call goes on, and `crash-*`, `timeout-*` and `oom-*`, which end it with an error.
"""

import io
import logging
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import atheris
import numpy as np
from PIL import Image

with atheris.instrument_imports(include=["components"]):
    from components.annotation.format import read_answer
    from components.chat.replies import MalformedReply, read_reply
    from components.imaging import jpeg, xmp
    from components.imaging.boxes import Boxes
    from components.imaging.directories import check_directories
    from components.imaging.formats import FormatError
    from components.imaging.originals import encode_original, read_original
    from components.imaging.photo import UnreadablePhoto
    from components.imaging.png import read_chunks
    from components.imaging.source import MemoryFile
    from components.serving.protocol import parse_invocation
    from components.serving.work import Refused
    from components.verdict.grammar import GrammarError, Verdict, render, suggest

ROOT = Path(__file__).resolve().parent.parent
_MOST_PIXELS = 2**20
_SECONDS, _MEGABYTES = 10, 3000
"""That one input may take."""


def photo(content: bytes) -> None:
    """What a server does with a file: read it whole and write it again."""
    with suppress(UnreadablePhoto):
        original = read_original(MemoryFile("photo", content), _MOST_PIXELS)
        encode_original(original, "photo.png")


def metadata(content: bytes) -> None:
    """The walks over a file's structure, without a decoder."""
    Boxes(content).code_points  # noqa: B018 (computed when it is asked for)
    with suppress(FormatError):
        Boxes(content).check_whole()
    with suppress(FormatError):
        check_directories(io.BytesIO(content))
    jpeg.read_segments(io.BytesIO(content))
    read_chunks(io.BytesIO(content))
    xmp.without_claims(content, keep_video=False)


def answer(content: bytes) -> None:
    """What a model says, and what a server of models sends."""
    with suppress(GrammarError):
        read_answer(content.decode("utf-8", "replace"))
    with suppress(MalformedReply):
        read_reply(content)


def request(content: bytes) -> None:
    """The body of a request in MLflow's protocol."""
    with suppress(Refused):
        parse_invocation(content, 8)


TARGETS: dict[str, Callable[[bytes], None]] = {
    "photo": photo,
    "metadata": metadata,
    "answer": answer,
    "request": request,
}


def seeds(folder: Path) -> None:
    """A small sound file of every format that Pillow writes, and one text, where the folder holds nothing yet."""
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        return
    image = Image.fromarray(np.arange(12 * 16 * 3, dtype=np.uint8).reshape(12, 16, 3))
    exif = Image.Exif()
    exif[274] = 6
    for name in ("JPEG", "PNG", "TIFF", "WEBP", "AVIF", "GIF", "BMP"):
        stream = io.BytesIO()
        image.save(stream, name, **({} if name in ("GIF", "BMP") else {"exif": exif.tobytes()}))
        (folder / name.lower()).write_bytes(stream.getvalue())
    verdict = Verdict(reasoning=("a", "b", "c", "d", "e"), suggestions=(suggest("noise"),), score=50)
    (folder / "text").write_text(render(verdict))
    (folder / "json").write_text('{"inputs": [{"photo": "AAAA"}], "params": {"seed": 1}}')


def main(words: list[str]) -> None:
    """Fuzz the target that the first word names for as many seconds as the second says; more go to libFuzzer."""
    name, seconds, *more = words
    if name not in TARGETS:
        raise SystemExit(f"TARGET is {name!r}, expected one of {', '.join(TARGETS)}")
    logging.disable(logging.CRITICAL)
    folder = ROOT / "fuzz" / name
    seeds(folder / "corpus")
    options = [f"-max_total_time={seconds}", f"-timeout={_SECONDS}", f"-rss_limit_mb={_MEGABYTES}"]
    options += ["-print_final_stats=1", f"-artifact_prefix={folder}/", *more]
    atheris.Setup([sys.argv[0], str(folder / "corpus"), *options], TARGETS[name])
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv[1:])
