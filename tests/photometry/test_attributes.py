"""Measured attributes, against numpy and colour-science computing the same definitions."""

import colour
import numpy as np
import pytest
import torch

from components.photometry.attributes import LUMINANCE_FLOOR, difference, measure
from components.photometry.colour import D65_MIRED, MIRED_RANGE, linear_to_srgb, mired_to_xy, xyz_to_linear


def test_against_colour_science(photo):
    attributes = measure(photo)
    xyz = colour.sRGB_to_XYZ(photo.movedim(0, -1).double().numpy())
    lab = colour.XYZ_to_Lab(xyz)
    kelvin = colour.temperature.uv_to_CCT_Ohno2013(colour.xy_to_UCS_uv(colour.XYZ_to_xy(xyz.mean((0, 1)))))[0]
    assert attributes.exposure.item() == pytest.approx(np.log2(xyz[..., 1]).mean() - np.log2(0.18), abs=1e-3)
    assert attributes.contrast.item() == pytest.approx(lab[..., 0].std(), rel=1e-3)
    assert attributes.chroma.item() == pytest.approx(np.hypot(lab[..., 1], lab[..., 2]).mean(), rel=5e-3)
    assert attributes.temperature.item() == pytest.approx(1e6 / kelvin, abs=0.5)


def test_mid_grey_measures_zero():
    grey = linear_to_srgb(torch.full((3, 5, 5), 0.18))
    attributes = measure(grey)
    assert attributes.exposure.item() == pytest.approx(0.0, abs=1e-5)
    assert attributes.contrast.item() < 1e-3 and attributes.chroma.item() < 1e-2
    assert attributes.temperature.item() == pytest.approx(D65_MIRED, abs=0.1)


@pytest.mark.parametrize("mired", [80.0, 200.0, 350.0])
def test_temperature_of_a_lit_wall_is_that_of_the_light(mired):
    x, y = mired_to_xy(mired).tolist()
    wall = xyz_to_linear(torch.tensor([x / y, 1.0, (1 - x - y) / y]).view(3, 1, 1) * 0.2)
    assert measure(linear_to_srgb(wall)).temperature.item() == pytest.approx(mired, abs=0.1)


def test_batches_measure_like_single_photos(photo_factory):
    photos = torch.stack([photo_factory(seed=s) for s in range(4)])
    together = measure(photos.view(2, 2, *photos.shape[1:]))
    for field, values in together._asdict().items():
        assert values.shape == (2, 2)
        alone = torch.stack([getattr(measure(p), field) for p in photos])
        torch.testing.assert_close(values.flatten(), alone, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("value", [0.0, 1.0, -1.0, 6.0])
@pytest.mark.parametrize("size", [(1, 1), (3, 5)])
def test_extreme_pictures_measure_finite_with_finite_gradients(value, size):
    image = torch.full((3, *size), value, requires_grad=True)
    attributes = measure(image)
    sum(attributes).backward()
    assert all(v.isfinite() for v in attributes) and image.grad.isfinite().all()
    assert MIRED_RANGE[0] <= attributes.temperature.item() <= MIRED_RANGE[1]


def test_black_measures_its_floor_and_neutral():
    attributes = measure(torch.zeros(3, 4, 4))
    assert attributes.exposure.item() == pytest.approx(np.log2(LUMINANCE_FLOOR / 0.18), abs=1e-4)
    assert attributes.temperature.item() == pytest.approx(D65_MIRED, abs=0.1)


def test_difference_of_grey_pictures_is_finite_and_zero():
    moved = difference(torch.full((3, 4, 4), 0.4), torch.full((3, 4, 4), 0.4))
    assert set(moved) == {"exposure", "contrast", "saturation", "temperature"}
    assert all(v.item() == 0 for v in moved.values())


def test_difference_takes_images_or_attributes(photo_factory):
    a, b = photo_factory(seed=1), photo_factory(seed=2)
    assert difference(a, b) == difference(measure(a), measure(b))


@pytest.mark.parametrize("image", [torch.zeros(4, 8, 8), torch.zeros(3, 0, 8), torch.zeros(3, 8, 8, dtype=torch.uint8)])
def test_what_is_no_image_is_refused(image):
    with pytest.raises(ValueError, match=r"expected a floating-point sRGB image"):
        measure(image)
