"""Assets: files that operations need beside their numbers, named by the SHA-256 of their content.

A record that names an asset stays exact: a file that has changed since no longer has its name. Masks (depth of field)
and cut-outs (compositing) are PNGs; looks are tables (`components.photometry.looks`).
"""

import hashlib
import io
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from torch.nn import functional

from components import files

ASSET_PATTERN = r"^[0-9a-f]{64}\.(cube|png)$"


def keep_asset(assets: Path, content: bytes, suffix: str) -> str:
    """Write a file into the folder ``assets`` under its own hash, unless it is there; returns its name."""
    name = f"{hashlib.sha256(content).hexdigest()}{suffix}"
    path = Path(assets) / name
    if not path.is_file():
        files.write_bytes(path, content)
    return name


def read_asset(assets: Path | None, name: str) -> bytes:
    """The content of an asset.

    Raises:
        FileNotFoundError: the folder is not given or does not hold it.
        ValueError: the file's content is not what its name says.
    """
    if assets is None:
        raise FileNotFoundError(f"{name}: expected the folder that holds this asset of an operation, found none given")
    path = Path(assets) / name
    if not path.is_file():
        raise FileNotFoundError(f"{path}: expected the asset of an operation; copy the assets along with their records")
    content = path.read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != path.stem:
        raise ValueError(f"{path}: expected the content of its name, found SHA-256 {found}; restore the file")
    return content


def decode_mask(content: bytes, size: tuple[int, int]) -> Tensor:
    """The mask stretched to ``size`` = (height, width), float32 (H, W) in [0, 1].

    Raises:
        ValueError: not a PNG.
    """
    mask = torch.from_numpy(_decode(content, "L").copy()).float() / 255
    if mask.shape == tuple(size):
        return mask
    return functional.interpolate(
        mask[None, None], size=tuple(size), mode="bilinear", antialias=True, align_corners=False
    )[0, 0].clamp(0, 1)


def encode_cutout(cutout: Tensor) -> bytes:
    """A cut-out (4, H, W) in [0, 1], sRGB and straight alpha, as an 8-bit RGBA PNG."""
    samples = (cutout.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).contiguous().numpy()
    buffer = io.BytesIO()
    Image.fromarray(samples).save(buffer, "PNG")
    return buffer.getvalue()


def decode_cutout(content: bytes) -> Tensor:
    """Float32 (4, H, W) in [0, 1]: sRGB and straight alpha.

    Raises:
        ValueError: not a PNG.
    """
    return torch.from_numpy(_decode(content, "RGBA").copy()).permute(2, 0, 1).float() / 255


def _decode(content: bytes, mode: str) -> np.ndarray:
    try:
        with Image.open(io.BytesIO(content), formats=["PNG"]) as opened:
            return np.asarray(opened.convert(mode))
    except (UnidentifiedImageError, OSError) as error:
        raise ValueError(f"expected a PNG of mode {mode}, found {len(content)} bytes that do not decode") from error
