"""Assets: masks and cut-outs that Pillow reads, and names that are the content's."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from components.photometry.assets import decode_cutout, decode_mask, encode_cutout, keep_asset, read_asset
from tests.photometry.reference import encode_mask


def test_masks_and_cutouts_are_plain_pngs():
    mask = torch.rand(12, 18, generator=torch.Generator().manual_seed(0))
    content = encode_mask(mask)
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(content))), (mask.numpy() * 255).round())
    assert (decode_mask(content, (12, 18)) - mask).abs().max() <= 0.5 / 255 + 1e-6
    assert decode_mask(content, (24, 36)).shape == (24, 36)
    rgba = torch.rand(4, 7, 9, generator=torch.Generator().manual_seed(0))
    assert (decode_cutout(encode_cutout(rgba)) - rgba).abs().max() <= 0.5 / 255 + 1e-6
    with pytest.raises(ValueError, match="expected a PNG"):
        decode_mask(b"GIF89a", (4, 4))


def test_assets_are_named_by_their_content(tmp_path):
    name = keep_asset(tmp_path, b"content", ".png")
    assert keep_asset(tmp_path, b"content", ".png") == name and len(list(tmp_path.iterdir())) == 1
    assert read_asset(tmp_path, name) == b"content"
