"""Time and memory of editing one photo at full resolution, against Pillow decoding and encoding the same file.

    python -m benchmarks.enhance_speed large.jpg --repeats 5

A program of its own, because peak memory is that of a process and the rest of the benchmark imports the models.
"""

import io
import json
import math
import statistics
import sys
import time
from pathlib import Path

import click
import torch
from PIL import Image

from components.command_line import PATH, Command, Number, Option, run
from components.imaging.originals import read_original, write_original
from components.inference.transfer import FieldEdit, fit_field

WORKING_SIDE = 96
QUALITY = 95
THREADS = 1
"""As Pillow has. A second one gains little here and, on a machine that has other work, costs much."""


def working_size(height: int, width: int, side: int = WORKING_SIDE) -> tuple[int, int]:
    """Height and width, multiples of 8, with an area of about ``side`` squared, in the photo's proportions."""
    scale = side / math.sqrt(height * width)
    return max(8, round(height * scale / 8) * 8), max(8, round(width * scale / 8) * 8)


def transfer_file(source: Path, target: Path) -> float:
    """Decode a photo, reduce it, carry a known edit over and encode it again; the seconds that took."""
    began = time.perf_counter()
    original = read_original(source)
    height = original.height
    (small,) = original.reduced([working_size(height, original.width)])
    field = fit_field(small, (0.9 * small**0.8 + 0.05).clamp(0, 1))  # the edit is given, so it costs nothing here
    edited = original.edited(FieldEdit(field, height), in_place=True)
    del original
    write_original(edited, target, QUALITY)
    return time.perf_counter() - began


def recode_file(source: Path, target: Path) -> float:
    """Pillow alone: decode a JPEG and encode it with the settings that our writer uses; the seconds that took."""
    began = time.perf_counter()
    with Image.open(source) as image:
        image.load()
        stream = io.BytesIO()
        image.save(stream, "JPEG", quality=QUALITY, subsampling=0)
    target.write_bytes(stream.getvalue())
    return time.perf_counter() - began


_PARAMETERS: list[click.Parameter] = [
    click.Argument(["photo"], type=PATH, help="A JPEG file; results are written beside it."),
    Option(["--repeats"], type=Number(int, 1), default=5, help="How often the timed work is done."),
]


@click.command(cls=Command, params=_PARAMETERS)
def main(photo: Path, repeats: int) -> int:
    """Measure both in turns and print median seconds and the peak memory of the process as one JSON object."""
    torch.set_num_threads(THREADS)
    ours, theirs = [], []
    for _ in range(repeats):
        ours.append(transfer_file(photo, photo.with_name("ours.jpg")))
        theirs.append(recode_file(photo, photo.with_name("theirs.jpg")))
    print(json.dumps({"ours": statistics.median(ours), "theirs": statistics.median(theirs), "peak": peak_memory()}))
    return 0


def peak_memory() -> int:
    """Largest resident memory of this process so far, bytes (Linux: VmHWM, see proc(5)).

    Not getrusage's ru_maxrss, which begins with the memory of the process that started this one.
    """
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


if __name__ == "__main__":
    sys.exit(run(main, program="python -m benchmarks.enhance_speed"))
