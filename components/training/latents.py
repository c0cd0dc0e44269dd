"""The autoencoder's latents of training pictures, computed once and kept on disk.

Every picture of stages I and II is encoded again whenever it is drawn, and the autoencoder is never trained. An entry
is named after the very pixels that are encoded, their size, and the autoencoder's weights: a changed photo, another
working size, an augmentation or another autoencoder finds nothing and is encoded.
"""

import hashlib
import json
import logging
import math
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from components import files
from components.models.artist import Artist
from components.parallel.ranks import world_size

log = logging.getLogger(__name__)
FOLDER = "latents"
_SUFFIX, _NAME = ".safetensors", "latents"


class LatentCache:
    """Encodes as `artist.encode` does, bit for bit on a CPU, but each picture only once.

    Memory is not used up: latents are read from disk whenever they are asked for. Several processes may share a folder.

    Args:
        folder: where latents are kept; it may be emptied at any time.
        artist: whose autoencoder encodes.
        largest: bytes the folder may take; what does not fit is encoded each time.
    """

    def __init__(self, folder: Path, artist: Artist, largest: float):
        self.artist, self.largest = artist, largest
        self.hits = self.misses = 0
        self._fingerprint = fingerprint(artist)
        self._folder = Path(folder) / self._fingerprint[:16]
        self._bytes: float = sum(path.stat().st_size for path in Path(folder).rglob(f"*{_SUFFIX}"))

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        """Normalised, packed latents (B, S, C), float32, of pictures (B, 3, H, W) in [0, 1]."""
        paths = [self._path(image) for image in images.cpu()]
        found = {index: latents for index, path in enumerate(paths) if (latents := _read(path)) is not None}
        missing = [index for index in range(len(paths)) if index not in found]
        self.hits, self.misses = self.hits + len(found), self.misses + len(missing)
        if missing:
            for index, latents in zip(missing, self._encode(images, missing).cpu(), strict=True):
                found[index] = latents
                self._keep(paths[index], latents)
        return torch.stack([found[index] for index in range(len(paths))]).to(self.artist.device)

    def _encode(self, images: Tensor, rows: list[int]) -> Tensor:
        """Some rows of a batch; one row of several goes in twice, because kernels round a lone picture otherwise."""
        if len(rows) == 1 < len(images):
            return self.artist.encode(images[rows * 2])[:1]
        return self.artist.encode(images[rows])

    def _path(self, image: Tensor) -> Path:
        digest = hashlib.sha256(f"{self._fingerprint} {image.dtype} {tuple(image.shape)} ".encode())
        digest.update(image.contiguous().view(torch.uint8).numpy().data)
        name = digest.hexdigest()
        return self._folder / name[:2] / f"{name}{_SUFFIX}"

    def _keep(self, path: Path, latents: Tensor) -> None:
        taken = latents.numel() * latents.element_size()
        if self._bytes + taken > self.largest:
            if self._bytes <= self.largest:
                log.warning("%s holds %.1f GB of latents, as many as allowed", self._folder.parent, self._bytes / 1e9)
            self._bytes = math.inf  # full from now on
            return
        with files.replacing(path) as temporary:
            save_file({_NAME: latents.contiguous()}, temporary)
        self._bytes += taken * world_size()  # the other ranks keep as many


def fingerprint(artist: Artist) -> str:
    """SHA-256 over the autoencoder's configuration, weights and their precision, and the kind of device it runs on."""
    config = {name: value for name, value in artist.vae.config.items() if not name.startswith("_")}
    digest = hashlib.sha256(json.dumps([artist.device.type, config], sort_keys=True).encode())
    for name, tensor in sorted(artist.vae.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def _read(path: Path) -> Tensor | None:
    """Latents (S, C) that were kept; None where there are none, or the file is damaged."""
    try:
        return load_file(path)[_NAME]
    except FileNotFoundError:
        return None
    except (OSError, SafetensorError, KeyError) as error:
        log.warning("%s is damaged (%s); its picture is encoded again", path, error)
        return None
