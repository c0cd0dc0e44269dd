"""Tiles for training the tower: every photo cut a few times, at the few sizes that it is trained at, once at the start.

At hundreds of samples per second there is no time to cut and resize each time. Sources are mixed by the root of their
size, so that neither the largest rules nor the smallest is learnt by heart.
"""

import hashlib
import random
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from tqdm import tqdm

from components.data.splits import split_of

Size = tuple[int, int]
"""(height, width) in pixels."""
EXTENSIONS = {".jpg", ".jpeg", ".png"}
HELD_OUT = 10
"""One of so many photos of a folder of further photos is not trained on."""


def held_out(path: Path) -> bool:
    """Whether a further photo is kept for judging: one of ten, by the hash of its name."""
    return int(hashlib.sha256(path.name.encode()).hexdigest(), 16) % HELD_OUT == 0


def own_photos(folder: Path, split: str) -> list[Path]:
    """The project's photos of a split."""
    return [path for path in photos_in(folder) if split_of(hashlib.sha256(path.read_bytes()).hexdigest()) == split]


def photos_in(folder: Path) -> list[Path]:
    """Every picture below a folder, in the order of their names."""
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in EXTENSIONS)


def source_of(path: Path, root: Path) -> str:
    """Which collection a photo is of: its folder, and in a mixed folder the first word of its name."""
    return f"{path.parent.relative_to(root.parent)}/{path.stem.split('_')[0] if '_' in path.stem else ''}"


class Tiles:
    """Crops of photos, held as uint8.

    Args:
        photos: path and source of every photo.
        sizes: of the tiles; a photo gives `cuts` tiles of every size, the first as large as fits.
        cuts: random crops of 60 to 100% of the largest one of that aspect.
    """

    def __init__(self, photos: Iterable[tuple[Path, str]], sizes: Sequence[Size], cuts: int, desc: str = "cutting"):
        photos = list(photos)
        if not photos:
            raise ValueError("no photos to cut tiles from")
        self.cuts = cuts
        self._of_size = {
            (height, width): torch.empty(len(photos) * cuts, 3, height, width, dtype=torch.uint8)
            for height, width in sizes
        }
        for number, (path, _) in enumerate(tqdm(photos, desc=desc, unit="photo")):
            with Image.open(path) as file:
                image = ImageOps.exif_transpose(file).convert("RGB")
            for size, tiles in self._of_size.items():
                for cut in range(cuts):
                    tiles[number * cuts + cut] = _cut(image, size, random.Random(f"{path.name} {size} {cut}"), cut == 0)
        count: dict[str, int] = {}
        for _, source in photos:
            count[source] = count.get(source, 0) + 1
        weight = torch.tensor([count[source] ** -0.5 for _, source in photos], dtype=torch.float64)
        self._cumulative = (weight / weight.sum()).cumsum(0)

    def __len__(self) -> int:
        return len(self._cumulative)

    def draw(self, count: int, size: Size, generator: torch.Generator) -> Tensor:
        """Random tiles (count, 3, height, width) in [0, 1], mirrored half of the time."""
        chance = torch.rand(count, generator=generator, dtype=torch.float64)
        photo = torch.searchsorted(self._cumulative, chance).clamp(max=len(self) - 1)
        rows = photo * self.cuts + torch.randint(self.cuts, (count,), generator=generator)
        tiles = self._of_size[size][rows].float() / 255
        mirror = torch.rand(count, 1, 1, 1, generator=generator) < 0.5
        return torch.where(mirror, tiles.flip(-1), tiles)

    def whole(self, size: Size) -> Tensor:
        """The largest crop of every photo (photos, 3, height, width) in [0, 1]."""
        return self._of_size[size][:: self.cuts].float() / 255


def _cut(image: Image.Image, size: Size, chance: random.Random, largest: bool) -> Tensor:
    height, width = size
    scale = min(image.height / height, image.width / width) * (1 if largest else chance.uniform(0.6, 1) ** 0.5)
    high, wide = min(height * scale, image.height), min(width * scale, image.width)
    left, top = chance.uniform(0, image.width - wide), chance.uniform(0, image.height - high)
    box = (left, top, left + wide, top + high)
    small = image.resize((width, height), Image.Resampling.BOX if scale > 1 else Image.Resampling.BILINEAR, box=box)
    return torch.from_numpy(np.array(small)).permute(2, 0, 1)
