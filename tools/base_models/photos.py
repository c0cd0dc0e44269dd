"""Photos for training the base models: decoded once, kept small in memory, cropped and spoilt at random.

Of the project's own photos only the `train` split enters; of the folders of further photos one in ten is left out.
"""

import hashlib
import logging
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional
from tqdm import tqdm

from components.data.faults import sample_amounts
from components.data.splits import split_of
from components.imaging.photo import UnreadablePhoto, read_photo, resize_short_side
from tools.base_models.faults import with_amounts
from tools.base_models.tiles import held_out, photos_in

log = logging.getLogger(__name__)
WORKING_AREA = 64 * 64
WORKING_SIZES = ((64, 64), (56, 72), (56, 80), (48, 88), (72, 56), (80, 56), (88, 48))
"""(height, width) of about 64x64 pixels in the aspects of photos, in whole tokens of 8 pixels."""


class PhotoBank:
    """Photos as uint8 tensors with a short side of at most `short_side` pixels.

    Args:
        own: the project's photos, of which only the `train` split is taken.
        further: folders of other photos, of which one in ten is left out (`tools.base_models.tiles.held_out`).
    """

    def __init__(self, own: Path | None, further: list[Path], short_side: int = 160):
        self.photos: list[Tensor] = []
        kept, unreadable = 0, 0
        paths = [(p, True) for p in photos_in(own)] if own else []
        paths += [(p, False) for folder in further for p in photos_in(folder) if not held_out(p)]
        for path, is_own in tqdm(paths, desc="reading photos", unit="photo"):
            if is_own and split_of(hashlib.sha256(path.read_bytes()).hexdigest()) != "train":
                kept += 1
                continue
            try:
                pixels = read_photo(path).pixels
            except UnreadablePhoto as error:
                log.warning("%s", error)
                unreadable += 1
                continue
            small = resize_short_side(pixels, short_side)
            self.photos.append((small * 255).round().to(torch.uint8))
        log.info("%d photos; left out: %d of other splits, %d unreadable", len(self.photos), kept, unreadable)
        if not self.photos:
            raise ValueError(f"no photos under {[str(p) for p in [own, *further]]}: expected .jpg or .png files")

    def crops(self, count: int, size: tuple[int, int], generator: torch.Generator) -> Tensor:
        """`count` random crops (60-100% of the largest one of that aspect), mirrored half of the time.

        Args:
            size: (height, width) of the crops in pixels.

        Returns:
            (count, 3, height, width) in [0, 1].
        """
        height, width = size
        crops = []
        for index in torch.randint(len(self.photos), (count,), generator=generator).tolist():
            photo = self.photos[index]
            _, full_height, full_width = photo.shape
            share, y, x, mirror = torch.rand(4, generator=generator).tolist()
            scale = min(full_height / height, full_width / width) * (0.6 + 0.4 * share) ** 0.5
            crop_height, crop_width = max(1, int(height * scale)), max(1, int(width * scale))
            top, left = int(y * (full_height - crop_height)), int(x * (full_width - crop_width))
            crop = photo[:, top : top + crop_height, left : left + crop_width].float()[None] / 255
            crop = functional.interpolate(crop, size=size, mode="bilinear", antialias=True, align_corners=False)[0]
            crops.append(crop.flip(-1) if mirror < 0.5 else crop)
        return torch.stack(crops)

    @staticmethod
    def working_size(generator: torch.Generator) -> tuple[int, int]:
        """(height, width) of one of `WORKING_SIZES`, drawn evenly."""
        return WORKING_SIZES[int(torch.randint(len(WORKING_SIZES), (), generator=generator))]

    def faulty(self, count: int, size: tuple[int, int], generator: torch.Generator, intact: float) -> Tensor:
        """Random crops (count, 3, height, width) with random tone faults; a share of `intact` of them has none."""
        return with_amounts(self.crops(count, size, generator), sample_amounts(count, generator, intact))
