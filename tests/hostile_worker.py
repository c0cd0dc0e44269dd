"""A process that does with each file what enhancing it does, within limits on memory; see test_hostile_files.py.

Reads a line of JSON {"source", "out"} at a time and answers with {"result", "reason", "peak"}, result being "written",
"refused" or "error", peak the largest memory of the process so far in bytes.
"""

import json
import logging
import resource
import sys
from pathlib import Path

import torch

from benchmarks.enhance_speed import peak_memory
from components.imaging.originals import read_original, write_original
from components.imaging.photo import UnreadablePhoto
from components.inference.transfer import FieldEdit

MAX_PIXELS = 4_000_000
ROOM = 1_500_000_000
"""Address space that may be taken beyond what the process has after its imports, bytes."""


def enhance(source: Path, out: Path) -> tuple[str, str]:
    try:
        original = read_original(source, MAX_PIXELS)
        (small,) = original.reduced([(8, 12)])
        field = torch.full((12, *small.shape[1:]), 0.01)
        edited = original.edited(FieldEdit(field, original.height))
        for suffix in (".tif", ".png" if edited.alpha is not None else ".jpg"):
            write_original(edited, out / (source.stem + suffix))
    except UnreadablePhoto as error:
        return "refused", error.reason
    except Exception as error:  # what the test looks for
        return "error", f"{type(error).__name__}: {error}"
    return "written", ""


def main() -> None:
    torch.set_num_threads(1)
    logging.disable(logging.CRITICAL)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + ROOM, resource.RLIM_INFINITY))
    print(json.dumps({"result": "ready", "reason": "", "peak": peak_memory()}), flush=True)
    for line in sys.stdin:
        task = json.loads(line)
        result, reason = enhance(Path(task["source"]), Path(task["out"]))
        print(json.dumps({"result": result, "reason": reason, "peak": peak_memory()}), flush=True)


if __name__ == "__main__":
    main()
