"""Each adjustment does what its definition says and moves its own measured attribute by its amount."""

import colour
import numpy as np
import pytest
import torch

from components.photometry.adjustments import adjust
from components.photometry.attributes import difference
from components.photometry.colour import D65_MIRED, D65_XY, mired_to_xy, srgb_to_lab, srgb_to_linear

NAMES = ("exposure", "contrast", "saturation", "temperature")


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize(
    ("name", "amount", "tolerance"),
    [
        ("exposure", 0.5, 2e-4),
        ("exposure", -1.0, 2e-4),
        ("contrast", 0.25, 2e-4),
        ("contrast", -0.5, 2e-4),
        ("saturation", 0.4, 2e-4),
        ("saturation", -0.7, 2e-4),
        # Exact for a picture whose grey-world white is D65; near it, within a tenth.
        ("temperature", 30.0, 3.0),
        ("temperature", -30.0, 3.0),
    ],
)
def test_moves_its_own_attribute_by_the_amount(photo_factory, name, amount, tolerance, seed):
    photo = photo_factory(seed=seed)
    adjusted = adjust(photo, [(name, amount)])
    assert adjusted.min() >= 0 and adjusted.max() <= 1, "the amount is chosen so that nothing clips"
    assert difference(photo, adjusted)[name].item() == pytest.approx(amount, abs=tolerance)


@pytest.mark.parametrize(
    ("name", "amount"), [("exposure", 3.0), ("contrast", 1.5), ("saturation", 2.0), ("temperature", 150.0)]
)
@pytest.mark.parametrize("sign", [1, -1])
def test_opposite_amount_restores_even_through_out_of_gamut_values(photo, name, amount, sign):
    there = adjust(photo, [(name, sign * amount)])
    torch.testing.assert_close(adjust(there, [(name, -sign * amount)]), photo, rtol=0, atol=3e-5)


@pytest.mark.parametrize("name", NAMES)
def test_zero_changes_nothing(photo, name):
    torch.testing.assert_close(adjust(photo, [(name, 0.0)]), photo, rtol=0, atol=2e-6)


def test_exposure_is_a_gain_in_linear_light(photo):
    expected = colour.cctf_encoding(colour.cctf_decoding(photo.double().numpy(), "sRGB") * 2**0.7, "sRGB")
    np.testing.assert_allclose(adjust(photo, [("exposure", 0.7)]), expected, atol=1e-5)


def test_contrast_turns_lightness_about_50_and_leaves_a_and_b(photo):
    before, after = srgb_to_lab(photo), srgb_to_lab(adjust(photo, [("contrast", 0.3)]))
    torch.testing.assert_close(after[0], 50 + 2**0.3 * (before[0] - 50), rtol=0, atol=2e-3)
    torch.testing.assert_close(after[1:], before[1:], rtol=0, atol=5e-3)


def test_saturation_scales_chroma_and_leaves_lightness_and_hue(photo):
    before, after = srgb_to_lab(photo), srgb_to_lab(adjust(photo, [("saturation", -0.5)]))
    torch.testing.assert_close(after[0], before[0], rtol=0, atol=2e-3)
    torch.testing.assert_close(after[1:], before[1:] * 2**-0.5, rtol=0, atol=5e-3)


@pytest.mark.parametrize("mired", [-80.0, 60.0, 200.0])
def test_temperature_is_a_bradford_adaptation_along_the_locus(photo, mired):
    neutral, warm = mired_to_xy(D65_MIRED).numpy(), mired_to_xy(D65_MIRED + abs(mired)).numpy()
    white_1, white_2 = (colour.xy_to_XYZ(xy) for xy in ((neutral, warm) if mired > 0 else (warm, neutral)))
    xyz = colour.sRGB_to_XYZ(photo.movedim(0, -1).double().numpy())
    adapted = colour.chromatic_adaptation(xyz, white_1, white_2, method="Von Kries", transform="Bradford")
    expected = np.moveaxis(colour.XYZ_to_sRGB(adapted), -1, 0)
    np.testing.assert_allclose(adjust(photo, [("temperature", mired)]), expected, atol=2e-3)


def test_temperature_keeps_luminance_of_white_and_warms_with_positive_amounts():
    white = torch.ones(3, 1, 1)
    warm = srgb_to_linear(adjust(white, [("temperature", 60.0)])).flatten()
    xyz = colour.RGB_to_XYZ(warm.numpy(), "sRGB")
    assert xyz[1] == pytest.approx(1.0, abs=1e-3)
    assert warm[0] > 1 > warm[2]
    kelvin = colour.temperature.uv_to_CCT_Ohno2013(colour.xy_to_UCS_uv(colour.XYZ_to_xy(xyz)))[0]
    start = colour.temperature.uv_to_CCT_Ohno2013(colour.xy_to_UCS_uv(np.array(D65_XY)))[0]
    assert 1e6 / kelvin - 1e6 / start == pytest.approx(60.0, abs=0.5)


def test_batches_are_adjusted_like_single_photos(photo_factory):
    photos, run = torch.stack([photo_factory(seed=s) for s in range(3)]), [("contrast", 0.4), ("temperature", 30.0)]
    assert torch.equal(adjust(photos, run), torch.stack([adjust(photo, run) for photo in photos]))


def test_other_names_are_refused(photo):
    with pytest.raises(KeyError, match="sharpness"):
        adjust(photo, [("sharpness", 1.0)])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("image", [torch.zeros(3, 4, 4), torch.ones(3, 1, 1), torch.full((3, 2, 2), 8.0)])
def test_extreme_pictures_stay_finite(name, image):
    assert adjust(image, [(name, 0.5)]).isfinite().all()
