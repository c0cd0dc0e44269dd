"""A small copy of the project: its code, the tiny base models, and a few photos under DVC, some of them broken."""

import csv
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image

from components.data.facts import sha256_of
from components.data.splits import split_of
from pipelines.environment import ROOT

CODE = ("components", "pipelines", "steps", "configs", "requirements.lock")
WANTED = {"train": 4, "validation": 2, "test": 2}
CONFIG = """
ingest: {min_short_side: 64}
validation: {max_quarantined: 0.5}
annotate: {faulty_views: 3}
synthesize: {retouching: 1, restoration: 1, multi_edit: 1, depth_of_field: 1, enhancement: 2}
train_critic: {batch_size: 4, optimiser: {learning_rate: 1e-4, steps: 2}}
train_artist: {batch_size: 4, sampling_steps: 2, optimiser: {learning_rate: 1e-4, steps: 2}}
adapt_artist: {batch_size: 4, sampling_steps: 2, kinds: [enhancement], optimiser: {learning_rate: 1e-4, steps: 2}}
reinforce:
  iterations: 3
  rollouts: {photos: 2, verdicts: 2, edits: 2, sampling_steps: 2}
  comparison: {draws: 1}
evaluate: {views: 1, max_side: 160, bootstrap: {resamples: 200}, enhancer: {steps: 2, draws: 1}}
gate: {resamples: 200, limits: {}}
"""
BROKEN = {"garbage.jpg", "empty.jpg", "cut.jpg", "pixel.png"}
UNUSUAL = {"sixteen.tif", "grey.jpg", "cmyk.jpg", "alpha.png", "rotated.jpg"}
REMOTE = ".dvc/embedded"
"""Where `dvc push` puts the data: in the repository, so that it travels with the code."""


class Project:
    """A copy of the project with data of its own; `run` is what `make pipeline` does.

    Args:
        folder: an empty one.
        more: further files and folders of the repository to copy.
    """

    def __init__(self, folder: Path, more: Sequence[str] = ()):
        self.folder = folder
        for name in (*CODE, *more):
            source = ROOT / name
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            if source.is_dir():
                shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy2(source, folder / name)
        (folder / "configs" / "small.yaml").write_text(CONFIG)
        self._photos(folder / "data" / "photos")
        shutil.copytree(ROOT / "data" / "base", folder / "data" / "base")
        self.dvc("init", "--no-scm", "--quiet")
        self.dvc("remote", "add", "--default", "embedded", REMOTE)
        self.dvc("add", "--quiet", "data")
        self.dvc("push", "--quiet")

    @property
    def environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("ZENML", "MLFLOW", "SPC"))}
        return kept | {"DVC_NO_ANALYTICS": "1", "SPC_STATE": str(self.state), "PYTHONPATH": str(self.folder)}

    @property
    def state(self) -> Path:
        return self.folder / ".spc"

    def dvc(self, *arguments: str) -> None:
        command = [sys.executable, "-m", "dvc", *arguments]
        subprocess.run(command, cwd=self.folder, check=True, env=self.environment, capture_output=True)

    def start(self, *arguments: str, before: Callable[[], None] | None = None) -> "subprocess.Popen[str]":
        command = [sys.executable, "-m", "pipelines", "run", "--config", "configs/small.yaml", *arguments]
        return subprocess.Popen(
            command,
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            preexec_fn=before,
        )

    def run(self, *arguments: str, before: Callable[[], None] | None = None) -> tuple[int, str]:
        process = self.start(*arguments, before=before)
        output, _ = process.communicate(timeout=600)
        return process.returncode, output

    def _photos(self, photos: Path) -> None:
        """Two to four photos of every split, unusual and broken files; every one of them has an attribution."""
        photos.mkdir(parents=True)
        with (ROOT / "data" / "photos" / "ATTRIBUTION.csv").open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        chosen, missing = [], dict(WANTED)
        for row in rows:
            source = ROOT / "data" / "photos" / row["file"]
            split = split_of(sha256_of(source))
            if missing[split]:
                missing[split] -= 1
                shutil.copy2(source, photos)
                chosen.append(row)
        make_odd_files(photos, ROOT / "data" / "photos" / chosen[0]["file"])
        with (photos / "ATTRIBUTION.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, rows[0].keys())
            writer.writeheader()
            writer.writerows([*chosen, *({**chosen[0], "file": name} for name in sorted(BROKEN | UNUSUAL))])


def make_odd_files(photos: Path, source: Path) -> None:
    """One file of each kind that a folder of photos holds sooner or later, from crops of other pictures than `source`.

    The unusual ones show different patterns, so that none is a near-duplicate of another.
    """
    content = source.read_bytes()
    (photos / "garbage.jpg").write_bytes(b"this is no picture" * 50)
    (photos / "empty.jpg").write_bytes(b"")
    (photos / "cut.jpg").write_bytes(content[: len(content) // 3])
    Image.new("RGB", (1, 1), "red").save(photos / "pixel.png")
    picture = {name: _pattern(seed) for seed, name in enumerate(sorted(UNUSUAL))}
    tifffile.imwrite(photos / "sixteen.tif", np.asarray(picture["sixteen.tif"], np.uint16) * 257, photometric="rgb")
    picture["grey.jpg"].convert("L").save(photos / "grey.jpg")
    picture["cmyk.jpg"].convert("CMYK").save(photos / "cmyk.jpg")
    picture["alpha.png"].putalpha(200)
    picture["alpha.png"].save(photos / "alpha.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    picture["rotated.jpg"].save(photos / "rotated.jpg", exif=exif)


def _pattern(seed: int) -> Image.Image:
    blocks = np.random.default_rng(seed).integers(0, 256, (8, 12, 3), dtype=np.uint8)
    return Image.fromarray(blocks).resize((240, 160), Image.Resampling.BICUBIC)
