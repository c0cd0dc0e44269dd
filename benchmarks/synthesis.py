"""`make benchmark-data`, section "synthesis": against the same operations written with kornia and with albumentations.

Every operation goes from an 8-bit photo of a megapixel to an 8-bit photo, on two cores, in each library's best way:
kornia with two threads inside an operation, ours (as `synthesize` does) and albumentations with two photos at a time.
Parameters, kernels and depth are the same for all; accuracy is the root mean square error, in 8-bit code values,
against the same operation in float64, without the border that kornia continues in another way. Needs the packages of
the extra "benchmark".
"""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from benchmarks.main import BenchmarkRow
from benchmarks.synthesis_peers import OPERATIONS, AlbumentationsPeer, KorniaPeer, Recipe
from components.imaging.photo import read_photo, resize
from components.photometry.samples import apply_to_samples
from tests.photometry.reference import applied

SIZE = (1000, 1000)
CORES = 2
_PHOTOS = 4
_ROUNDS = 5
_TARGET = 2.0
_BORDER = 64


class Timing(NamedTuple):
    """Seconds a photo of one library, by operation, and its error where there is a reference without chance."""

    seconds: dict[str, float]
    errors: dict[str, float]


def reference(photo: np.ndarray, recipe: Recipe) -> Tensor | None:
    """The operation in float64, (3, H, W) not rounded; None for noise and JPEG, which have no closed form."""
    if recipe.name in ("noise", "jpeg"):
        return None
    return applied(torch.from_numpy(photo).permute(2, 0, 1).double() / 255, recipe.operations)


def measure(photos: Sequence[np.ndarray], recipes: Mapping[str, Recipe], rounds: int) -> dict[str, Timing]:
    """Time all libraries on all photos, turn and turn about, and compare their results with the references."""
    kornia, albumentations = KorniaPeer(), AlbumentationsPeer()
    run: dict[str, Callable[[np.ndarray, Recipe], np.ndarray]] = {
        "ours": lambda photo, recipe: apply_to_samples(photo, recipe.operations),
        "kornia": kornia.apply,
        "albumentations": albumentations.apply,
    }
    errors: dict[str, dict[str, float]] = {library: {} for library in run}
    for name, recipe in recipes.items():
        for library, function in run.items():  # this also compiles and fills caches before the clock runs
            found = [_squared_error(function(photo, recipe), photo, recipe) for photo in photos]
            if None not in found:
                errors[library][name] = float(np.sqrt(np.mean(found)))
    seconds = {library: {name: [] for name in recipes} for library in run}
    for _ in range(rounds):
        for name, recipe in recipes.items():
            for library, function in run.items():
                seconds[library][name].append(_seconds(library, function, recipe, photos))
    return {
        library: Timing({name: statistics.median(times) for name, times in of.items()}, errors[library])
        for library, of in seconds.items()
    }


def _squared_error(found: np.ndarray, photo: np.ndarray, recipe: Recipe) -> float | None:
    """Mean square, in 8-bit codes, of what a result is off the rounded reference; None where there is none."""
    expected = reference(photo, recipe)
    if expected is None:
        return None
    rounded = (expected * 255).round().permute(1, 2, 0).numpy()
    return float(np.mean((found.astype(np.float64) - rounded)[_BORDER:-_BORDER, _BORDER:-_BORDER] ** 2))


def _seconds(
    library: str,
    function: Callable[[np.ndarray, Recipe], np.ndarray],
    recipe: Recipe,
    photos: Sequence[np.ndarray],
) -> float:
    """Seconds a photo, on `CORES` cores."""
    inside = library == "kornia"
    torch.set_num_threads(CORES if inside else 1)
    began = time.perf_counter()
    if inside:
        for photo in photos:
            function(photo, recipe)
    else:
        with ThreadPoolExecutor(CORES) as pool:
            list(pool.map(lambda photo: function(photo, recipe), photos))
    return (time.perf_counter() - began) / len(photos)


def rows(timings: Mapping[str, Timing]) -> list[BenchmarkRow]:
    """Throughput of the whole mixture (each operation equally often) and of each operation, and accuracy."""
    made = [_throughput("all operations, equally often", {k: sum(t.seconds.values()) for k, t in timings.items()})]
    for name in timings["ours"].seconds:
        made.append(_throughput(name.replace("_", " "), {k: t.seconds[name] for k, t in timings.items()}))
    for name in timings["ours"].errors:
        found = {k: t.errors[name] for k, t in timings.items()}
        best = min((k for k in found if k != "ours"), key=found.__getitem__)
        made.append(
            BenchmarkRow(
                name=f"synthesis: error against float64, {name.replace('_', ' ')} (peer: {best})",
                value=found["ours"],
                unit="8-bit code RMS",
                peer=found[best],
                ratio=found["ours"] / found[best] if found[best] else None,
                target="at most the peer's",
                ok=found["ours"] <= found[best] + 1e-9,
            )
        )
    return made


def synthesis_rows(folder: Path) -> list[BenchmarkRow]:
    """Compare on photos of a megapixel made of those in ``folder``."""
    paths = sorted(folder.glob("*.jpg"))[:_PHOTOS]
    photos = [
        (resize(read_photo(path).pixels, SIZE) * 255).round().to(torch.uint8).permute(1, 2, 0).contiguous().numpy()
        for path in paths
    ]
    recipes = {name: Recipe.of(name, operations, SIZE) for name, operations in OPERATIONS.items()}
    threads = torch.get_num_threads()
    try:
        return rows(measure(photos, recipes, _ROUNDS))
    finally:
        torch.set_num_threads(threads)


def _throughput(what: str, seconds: Mapping[str, float]) -> BenchmarkRow:
    peer = min((library for library in seconds if library != "ours"), key=seconds.__getitem__)
    value, other = 1 / seconds["ours"], 1 / seconds[peer]
    return BenchmarkRow(
        name=f"synthesis: {what} (faster peer: {peer})",
        value=value,
        unit="MP/s",
        peer=other,
        ratio=value / other,
        target=f"ratio >= {_TARGET:g}",
        ok=value >= _TARGET * other,
    )
