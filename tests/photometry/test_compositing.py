"""Compositing, masks and assets, against Pillow's own compositing and the arithmetic of light."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from components.photometry.assets import keep_asset, read_asset
from components.photometry.colour import linear_to_srgb, srgb_to_linear
from components.photometry.compositing import place_subject
from components.photometry.masks import decode_cutout, decode_mask, encode_cutout
from components.photometry.operations import Operation, apply_operations
from tests.photometry.reference import encode_mask, subject_mask


def cutout(alpha: float = 1.0, colour: tuple[float, float, float] = (0.9, 0.2, 0.1)) -> torch.Tensor:
    return torch.cat((torch.tensor(colour)[:, None, None].expand(3, 20, 10), torch.full((1, 20, 10), alpha)))


def test_an_opaque_subject_covers_what_is_behind_it_and_nothing_else(photo):
    result = place_subject(photo, cutout(), height=0.5, x=1.0, y=0.0)
    expected = photo.clone()
    expected[:, :32, 80:] = cutout()[:3, :1, :1]
    torch.testing.assert_close(result, expected, rtol=0, atol=1e-5)
    assert subject_mask(photo, cutout(), 0.5, 1.0, 0.0).sum() == 32 * 16


def test_a_transparent_subject_mixes_light(photo):
    result = place_subject(photo, cutout(0.25), height=1.0)
    mixed = 0.25 * srgb_to_linear(cutout()[:3, :1, :1]) + 0.75 * srgb_to_linear(photo)
    torch.testing.assert_close(result[:, :, 40:56], linear_to_srgb(mixed)[:, :, 40:56], rtol=0, atol=1e-5)
    assert torch.equal(place_subject(photo, cutout(0.0), 1.0), place_subject(photo, cutout(0.0), 0.3))


def test_colour_under_transparent_pixels_does_not_bleed(photo):
    subject = cutout()
    subject[3, :, 5:] = 0
    subject[:3, :, 5:] = 1  # white, but not there
    dark = place_subject(photo * 0, subject, height=0.4)
    assert dark[1].max() < 0.21, "no white halo at the cut-out's edge"


def test_too_wide_a_subject_is_made_to_fit():
    wide = torch.ones(4, 10, 100)
    assert subject_mask(torch.zeros(3, 50, 60), wide, height=1.0).sum() == 60 * 6


def test_rendered_depth_of_field_blurs_behind_the_subject_only(photo, tmp_path):
    name = keep_asset(tmp_path, encode_cutout(cutout()), ".png")
    subject = Operation(name="subject", amount=0.5, asset=name, parameters={"x": 0.5, "y": 0.5})
    blur = Operation(name="defocus_blur", amount=0.05)
    sharp = apply_operations(photo, [subject], tmp_path)
    shallow = apply_operations(photo, [blur, subject], tmp_path)
    inside = subject_mask(photo, cutout(), 0.5, 0.5, 0.5) == 1
    torch.testing.assert_close(shallow[:, inside], sharp[:, inside])
    torch.testing.assert_close(shallow[:, ~inside], apply_operations(photo, [blur])[:, ~inside], rtol=0, atol=1e-5)


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


def test_a_cutout_needs_alpha(photo):
    with pytest.raises(ValueError, match="sRGB and alpha"):
        place_subject(photo, photo, 0.5)
