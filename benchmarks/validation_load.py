"""Validate a manifest of many synthetic records and say what it took: run as a process of its own, to measure it alone.

    python -m benchmarks.validation_load FOLDER 200000

Prints one line of JSON: {"seconds": ..., "peak_bytes": ..., "success": ...}.
"""

import hashlib
import json
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import click
import numpy as np

from components.command_line import PATH, Command, Number, run
from components.data.expectations import ValidationSettings, validate
from components.data.records import MANIFEST_FILE, PhotoRecord, read_manifest, record_batches, write_rows
from components.data.splits import split_of, split_of_pair

_SCALES = ((1.0, 5.0, True), (0.0, 100.0, True), (0.0, 10.0, False))


def synthetic_records(count: int, seed: int = 0) -> Iterator[PhotoRecord]:
    """Valid records such as large datasets give: a third in pairs, a third rated, hashes that are all far apart."""
    rng = np.random.default_rng(seed)
    for number in range(count):
        pair = f"restored/{number // 6:07d}" if number % 6 < 2 else None
        sha256 = hashlib.sha256(f"{seed}/{number}".encode()).hexdigest()
        low, high, ascending = _SCALES[number % 3]
        share = round(float(rng.random()), 4)
        rated = number % 6 > 3
        yield PhotoRecord(
            id=f"synthetic/photos/{number:07d}.jpg",
            path=f"/data/synthetic/photos/{number:07d}.jpg",
            sha256=sha256,
            perceptual_hash=f"{int(rng.integers(2**64, dtype=np.uint64)):016x}",
            width=int(rng.integers(480, 6000)),
            height=int(rng.integers(480, 6000)),
            bit_depth=8,
            mode="RGB",
            dataset="synthetic",
            split=split_of_pair(pair) if pair else split_of(sha256),
            mos=100 * (share if ascending else 1 - share) if rated else None,
            mos_original=low + share * (high - low) if rated else None,
            mos_low=low if rated else None,
            mos_high=high if rated else None,
            mos_ascending=ascending if rated else None,
            labels=("noise", "jpeg") if pair else ("quality",),
            pair=pair,
            role=("input", "target")[number % 6] if pair else None,
            kind="restoration" if pair else None,
            licence="CC-BY-4.0",
            author=f"Photographer {number % 5000}",
            source=f"https://example.org/photos/{number}",
        )


def peak_bytes(status: Path = Path("/proc/self/status")) -> int:
    """The most memory that this process has held since its program began.

    From ``status`` (proc(5), VmHWM): what getrusage says counts what the parent held when it forked.

    Raises:
        RuntimeError: the system does not say.
    """
    found = re.search(r"^VmHWM:\s+(\d+) kB$", status.read_text(), re.MULTILINE) if status.is_file() else None
    if found is None:
        raise RuntimeError(f"{status}: expected a line VmHWM, found none; measure on Linux")
    return 1024 * int(found[1])


_PARAMETERS: list[click.Parameter] = [
    click.Argument(["folder"], type=PATH, help="Where the manifest and its Data Docs go."),
    click.Argument(["count"], type=Number(int, 1), help="Number of records."),
]


@click.command(cls=Command, params=_PARAMETERS)
def main(folder: Path, count: int) -> int:
    """Write the manifest, validate it, print what that took."""
    write_rows(folder / MANIFEST_FILE, record_batches(synthetic_records(count)))
    began = time.perf_counter()
    report = validate(read_manifest(folder), folder / "docs", ValidationSettings())
    seconds = time.perf_counter() - began
    print(
        json.dumps(
            {"seconds": seconds, "peak_bytes": peak_bytes(), "success": report.success, "failures": report.failures}
        )
    )
    return 0


if __name__ == "__main__":
    sys.exit(run(main, program="python -m benchmarks.validation_load"))
