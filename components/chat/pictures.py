"""Pictures as they go into a message to a model: on the 8-bit grid, no larger than allowed, as a `data:` URL."""

import base64
import hashlib

import torch
from torch import Tensor

from components.imaging.photo import quantize, resize, to_jpeg_bytes


def reduced(picture: Tensor, longest_side: int) -> Tensor:
    """The picture (3, H, W) on the 8-bit grid, its longer side at most `longest_side` pixels; never enlarged."""
    height, width = picture.shape[-2:]
    scale = min(1.0, longest_side / max(height, width))
    return quantize(resize(picture, (max(1, round(height * scale)), max(1, round(width * scale)))))


def digest(picture: Tensor) -> bytes:
    """SHA-256 of the 8-bit levels of a picture (3, H, W) that is on their grid."""
    levels = (picture * 255).round().to(torch.uint8).contiguous().cpu().numpy()
    return hashlib.sha256(levels.data).digest()


def jpeg_url(picture: Tensor, quality: int) -> str:
    """The picture (3, H, W) in [0, 1] as a `data:` URL of a JPEG (libjpeg quality 1 to 100)."""
    return f"data:image/jpeg;base64,{base64.b64encode(to_jpeg_bytes(picture, quality)).decode()}"
