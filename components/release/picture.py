"""From imported models to a picture, as the authors' script makes it: at its working size, not the photo's own."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from components.imaging.photo import quantize, read_photo, write_photo
from components.models.artist import Artist
from components.models.compute import Placement
from components.models.critic import Critic
from components.release.layout import ReleaseError
from components.release.sampling import RELEASE, Edit, Sampler


def enhance_as_released(model: Path, source: Path, target: Path, placement: Placement, seed: int) -> Edit:
    """Enhance one photo with models that `import_release` wrote, and write the picture with the photo's metadata.

    Args:
        model: folder with base/critic, base/artist and, where the release has them, the adapters critic and artist.
        target: of a suffix that can be written; its picture has about the Artist's area.
        seed: of the noise.

    Raises:
        ReleaseError: a base model is missing.
        components.imaging.photo.UnreadablePhoto: ``source`` is no usable photo.
        ValueError: ``target`` has a suffix that cannot be written.
        OSError: ``source`` cannot be read, or ``target`` not be written.
    """
    for name in ("critic", "artist"):
        if not (model / "base" / name).is_dir():
            raise ReleaseError(f"{model}: expected base/{name}, as `smartphotocrafter release import` writes it")
    photo = read_photo(source)
    adapters = {name: model / name if (model / name).is_dir() else None for name in ("critic", "artist")}
    artist = Artist.load(model / "base" / "artist", adapters["artist"], placement)
    critic = Critic.load(model / "base" / "critic", adapters["critic"], placement)
    areas = dict.fromkeys(("target_area", "source_area", "seen_area"), artist.area)
    sampler = Sampler(artist, critic, RELEASE.model_copy(update=areas))
    levels = (quantize(photo.pixels) * 255).round().byte().permute(1, 2, 0).numpy()
    edit = sampler.edit(Image.fromarray(levels), torch.Generator().manual_seed(seed))
    pixels = torch.from_numpy(np.array(edit.picture)).permute(2, 0, 1).float() / 255
    write_photo(replace(photo, pixels=pixels, alpha=None, bit_depth=8), target)
    return edit
