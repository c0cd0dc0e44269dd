"""Masks and cut-outs as PNG: what depth of field and compositing keep beside a record."""

import io

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from torch.nn import functional


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
