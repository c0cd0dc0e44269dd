"""Small makers of attribution files and manifest rows for the tests of the data stages."""

import csv
import hashlib
from pathlib import Path

from components.data.records import PhotoRecord


def attribute(path: Path, rows: list[dict[str, str]]) -> Path:
    """Write an attribution CSV."""
    columns = sorted({key for row in rows for key in row})
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)
    return path


def attribution_row(file: str, **more: str) -> dict[str, str]:
    """A complete row of an attribution CSV."""
    return {"file": file, "author": "A. Photographer", "licence": "CC0-1.0", "source": "synthetic", **more}


def record(name: str, **more: object) -> PhotoRecord:
    """A valid manifest row; any field can be given."""
    fields = {
        "id": f"sample/{name}",
        "path": name,
        "sha256": hashlib.sha256(name.encode()).hexdigest(),
        "perceptual_hash": "0123456789abcdef",
        "width": 640,
        "height": 480,
        "bit_depth": 8,
        "mode": "RGB",
        "dataset": "sample",
        "split": "train",
        "licence": "CC0-1.0",
    }
    return PhotoRecord(**(fields | more))
