"""`make benchmark-enhance`: time, memory and faithfulness of editing photos at full resolution.

Speed and memory are measured on a 24 megapixel JPEG, in a process of its own with one thread, against Pillow decoding
the same file and encoding it again with the same settings. Faithfulness is measured on photos with true tone and colour
edits: the edit at a working size of 96 px is given, as it is and with noise of 0.05, and what arrives at full
resolution is compared with the true edit there.

Prints a table and writes reports/benchmarks/enhance.json: {"rows": [{name, value, unit, peer, ratio, target, ok}]}.
"""

import json
import math
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import click
import torch
from rich.console import Console
from torch import Tensor

from benchmarks.enhance_speed import QUALITY, THREADS, working_size
from benchmarks.main import ROOT, BenchmarkRow, publish
from components.command_line import PATH, Command, Number, Option, run
from components.imaging.photo import Photo, read_photo, resize, resize_short_side, write_photo
from components.inference.edit import EditOptions, fit_edit
from components.inference.transfer import TransferSettings
from components.metrics.full_reference import psnr
from components.photometry.operations import Operation, apply_operations

RESULT = ROOT / "reports" / "benchmarks" / "enhance.json"
EDITS: dict[str, list[Operation]] = {
    "exposure up": [Operation(name="exposure", amount=0.6)],
    "exposure down": [Operation(name="exposure", amount=-0.6)],
    "contrast down": [Operation(name="contrast", amount=-0.5)],
    "saturation up": [Operation(name="saturation", amount=0.6)],
    "cooler": [Operation(name="temperature", amount=-60)],
    "three at once": [
        Operation(name="exposure", amount=-0.5),
        Operation(name="contrast", amount=0.3),
        Operation(name="temperature", amount=40),
    ],
}
_WIDTH, _HEIGHT = 6000, 4000


def faithfulness(photos: Sequence[Tensor], noise: float, tone_only: bool = False) -> list[float]:
    """PSNR in dB of the transferred to the true edit, for every photo and edit.

    Args:
        photos: (3, H, W) sRGB.
        noise: standard deviation of the noise added to the edit at working size.
        tone_only: carry over the global part only.
    """
    options = EditOptions(tone_only=tone_only)
    values = []
    for number, photo in enumerate(photos):
        size = working_size(*photo.shape[-2:])
        small = resize(photo, size)
        for operations in EDITS.values():
            true = apply_operations(photo, operations)
            after = resize(true, size)
            after = after + noise * torch.randn(after.shape, generator=torch.Generator().manual_seed(number))
            edit = fit_edit(small, after, photo.shape[-2], options, TransferSettings(), verdict=None)
            values.append(psnr(edit(photo.clone(), 0), true))
    return values


def rows(speed: dict[str, float], clean: list[float], noisy: list[float], tone: list[float]) -> list[BenchmarkRow]:
    """The promised figures."""
    ratio = speed["ours"] / speed["theirs"]
    result = [
        BenchmarkRow(
            name="transfer of a 24 MP JPEG, file to file, against decoding and encoding alone",
            value=speed["ours"],
            unit="s",
            peer=speed["theirs"],
            ratio=ratio,
            target="ratio <= 3",
            ok=ratio <= 3,
        ),
        _single("transfer of a 24 MP JPEG: peak memory", speed["peak"] / 1e6, "MB", "<= 700 MB", speed["peak"] <= 7e8),
    ]
    for name, values, least in (
        ("the true edit at 96 px given", clean, 42.0),
        ("the same with noise of 0.05", noisy, 39.0),
    ):
        mean = statistics.fmean(values)
        worst = f"{len(values)} cases, worst {min(values):.1f} dB"
        result.append(_single(f"transfer: {name} ({worst})", mean, "dB PSNR", f">= {least:g} dB", mean >= least))
    mean = statistics.fmean(tone)
    name = f"tone only: the true edit at 96 px given ({len(tone)} cases, worst {min(tone):.1f} dB)"
    result.append(_single(name, mean, "dB PSNR", ">= 42 dB", mean >= 42))
    return result


def large_photo(path: Path, photos: Sequence[Path]) -> None:
    """A 24 megapixel JPEG with the content of real photos, tiled at their own scale so that its detail is real."""
    canvas = torch.empty(3, _HEIGHT, _WIDTH)
    tile_height, tile_width = _HEIGHT // 4, _WIDTH // 4
    for index in range(16):
        tile = read_photo(photos[index % len(photos)]).pixels
        scale = max(tile_height / tile.shape[-2], tile_width / tile.shape[-1])
        if scale > 1:
            tile = resize(tile, (math.ceil(tile.shape[-2] * scale), math.ceil(tile.shape[-1] * scale)))
        top, left = index // 4 * tile_height, index % 4 * tile_width
        canvas[:, top : top + tile_height, left : left + tile_width] = tile[:, :tile_height, :tile_width]
    write_photo(Photo(canvas, format="JPEG"), path, QUALITY)


_PARAMETERS: list[click.Parameter] = [
    Option(["--photos", "folder"], type=PATH, default=ROOT / "data" / "photos", help="Folder of .jpg files."),
    Option(["--count"], type=Number(int, 1), default=20, help="Number of photos that faithfulness is measured on."),
    Option(["--short-side"], type=Number(int, 1), default=768, help="Short side that they are reduced to, in pixels."),
    Option(["--repeats"], type=Number(int, 1), default=5, help="How often the timed work is done."),
    Option(["--out"], type=PATH, default=RESULT, help="File to write the rows to."),
]


@click.command(cls=Command, params=_PARAMETERS)
def main(folder: Path, count: int, short_side: int, repeats: int, out: Path) -> int:
    """Measure, print and write the figures."""
    torch.set_num_threads(THREADS)
    console = Console()
    photos = sorted(folder.glob("*.jpg"))
    if not photos:
        console.print(f"[red]{folder} holds no .jpg files: run `make data`, or name a folder with --photos[/]")
        return 1
    with tempfile.TemporaryDirectory(prefix="spc-benchmark-") as folder:
        console.print("Time and memory on a 24 MP photo ...")
        source = Path(folder) / "large.jpg"
        large_photo(source, photos)
        command = [sys.executable, "-m", "benchmarks.enhance_speed", str(source)]
        done = subprocess.run([*command, "--repeats", str(repeats)], cwd=ROOT, stdout=subprocess.PIPE, check=True)
        speed = json.loads(done.stdout.splitlines()[-1])
    console.print("Faithfulness on photos with true edits ...")
    pictures = [resize_short_side(read_photo(path).pixels, short_side) for path in photos[:count]]
    result = rows(
        speed, faithfulness(pictures, 0.0), faithfulness(pictures, 0.05), faithfulness(pictures, 0.0, tone_only=True)
    )
    publish(result, out, console)
    return 0


def _single(name: str, value: float, unit: str, target: str, ok: bool) -> BenchmarkRow:
    return BenchmarkRow(name=name, value=value, unit=unit, peer=None, ratio=None, target=target, ok=ok)


if __name__ == "__main__":
    sys.exit(run(main, program="python -m benchmarks.enhance"))
