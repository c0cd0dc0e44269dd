"""Colour spaces, CIEDE2000, white points and adaptation, against the colour-science package and published data."""

import colour
import numpy as np
import pytest
import torch
from colour.temperature import CCT_to_xy_CIE_D, uv_to_CCT_Ohno2013

from components.photometry.colour import (
    D65_MIRED,
    D65_XY,
    MIRED_RANGE,
    apply_matrix,
    bradford,
    delta_e_2000,
    lab_to_srgb,
    lab_to_xyz,
    linear_to_srgb,
    linear_to_xyz,
    luminance,
    mired_to_xy,
    srgb_to_lab,
    srgb_to_linear,
    xy_to_mired,
    xyz_to_lab,
    xyz_to_linear,
    xyz_to_xy,
)

SRGB = colour.RGB_COLOURSPACES["sRGB"].copy()
SRGB.use_derived_transformation_matrices(True)

# Sharma, Wu and Dalal (2005), table 1: L1 a1 b1 L2 a2 b2 dE00.
SHARMA = np.fromstring(
    """
    50 2.6772 -79.7751 50 0 -82.7485 2.0425          50 3.1571 -77.2803 50 0 -82.7485 2.8615
    50 2.8361 -74.0200 50 0 -82.7485 3.4412          50 -1.3802 -84.2814 50 0 -82.7485 1.0000
    50 -1.1848 -84.8006 50 0 -82.7485 1.0000         50 -0.9009 -85.5211 50 0 -82.7485 1.0000
    50 0 0 50 -1 2 2.3669                            50 -1 2 50 0 0 2.3669
    50 2.4900 -0.0010 50 -2.4900 0.0009 7.1792       50 2.4900 -0.0010 50 -2.4900 0.0010 7.1792
    50 2.4900 -0.0010 50 -2.4900 0.0011 7.2195       50 2.4900 -0.0010 50 -2.4900 0.0012 7.2195
    50 -0.0010 2.4900 50 0.0009 -2.4900 4.8045       50 -0.0010 2.4900 50 0.0010 -2.4900 4.8045
    50 -0.0010 2.4900 50 0.0011 -2.4900 4.7461       50 2.5 0 50 0 -2.5 4.3065
    50 2.5 0 73 25 -18 27.1492                       50 2.5 0 61 -5 29 22.8977
    50 2.5 0 56 -27 -3 31.9030                       50 2.5 0 58 24 15 19.4535
    50 2.5 0 50 3.1736 0.5854 1.0000                 50 2.5 0 50 3.2972 0 1.0000
    50 2.5 0 50 1.8634 0.5757 1.0000                 50 2.5 0 50 3.2592 0.3350 1.0000
    60.2574 -34.0099 36.2677 60.4626 -34.1751 39.4387 1.2644
    63.0109 -31.0961 -5.8663 62.8187 -29.7946 -4.0864 1.2630
    61.2901 3.7196 -5.3901 61.4292 2.2480 -4.9620 1.8731
    35.0831 -44.1164 3.7933 35.0232 -40.0716 1.5901 1.8645
    22.7233 20.0904 -46.6940 23.0331 14.9730 -42.5619 2.0373
    36.4612 47.8580 18.3852 36.2715 50.5065 21.2231 1.4146
    90.8027 -2.0831 1.4410 91.1528 -1.6435 0.0447 1.4441
    90.9257 -0.5406 -0.9208 88.6381 -0.8985 -0.7239 1.5381
    6.7747 -0.2908 -2.4247 5.8714 -0.0985 -2.2286 0.6377
    2.0776 0.0795 -1.1350 0.9033 -0.0636 -0.5514 0.9082
    """,
    sep=" ",
).reshape(34, 7)


def random_image(low: float = 0.0, high: float = 1.0) -> torch.Tensor:
    image = torch.rand(2, 3, 17, 13, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return low + (high - low) * image


def last(image: torch.Tensor) -> np.ndarray:
    """Channels last, as colour-science wants them."""
    return image.movedim(-3, -1).numpy()


def test_srgb_transfer_curve_is_the_standard():
    image = random_image()
    np.testing.assert_allclose(srgb_to_linear(image), colour.cctf_decoding(image.numpy(), "sRGB"), atol=1e-12)
    np.testing.assert_allclose(linear_to_srgb(image), colour.cctf_encoding(image.numpy(), "sRGB"), atol=1e-12)


def test_xyz_and_lab_agree_with_colour_science():
    image = random_image()
    xyz = colour.RGB_to_XYZ(last(image), SRGB, apply_cctf_decoding=True)
    np.testing.assert_allclose(last(linear_to_xyz(srgb_to_linear(image))), xyz, atol=1e-9)
    np.testing.assert_allclose(last(srgb_to_lab(image)), colour.XYZ_to_Lab(xyz, np.array(D65_XY)), atol=1e-7)
    np.testing.assert_allclose(luminance(srgb_to_linear(image)), xyz[..., 1], atol=1e-9)


def test_white_and_grey_have_no_chroma():
    lab = srgb_to_lab(torch.tensor([0.0, 0.25, 1.0], dtype=torch.float64).expand(3, 1, 3))
    assert lab[1:].abs().max() < 1e-10
    np.testing.assert_allclose(lab[0, 0, [0, 2]], [0.0, 100.0], atol=1e-10)


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (-0.5, 3.0)])
def test_conversions_invert_in_and_out_of_gamut(low, high):
    image = random_image(low, high)
    np.testing.assert_allclose(linear_to_srgb(srgb_to_linear(image)), image, atol=1e-6)
    np.testing.assert_allclose(xyz_to_linear(linear_to_xyz(image)), image, atol=1e-12)
    np.testing.assert_allclose(lab_to_xyz(xyz_to_lab(image)), image, atol=1e-6)
    np.testing.assert_allclose(lab_to_srgb(srgb_to_lab(image)), image, atol=1e-6)


@pytest.mark.parametrize("function", [srgb_to_linear, linear_to_srgb, srgb_to_lab, lab_to_srgb, xyz_to_lab])
@pytest.mark.parametrize("value", [0.0, 1.0, -2.0, 8.0, 0.0031308, 0.04045])
def test_values_and_gradients_are_finite_everywhere(function, value):
    image = torch.full((3, 2, 2), value, requires_grad=True)
    result = function(image)
    result.sum().backward()
    assert result.isfinite().all() and image.grad.isfinite().all()


def test_lab_far_out_of_gamut_is_finite():
    lab = torch.tensor([[0.0, 100.0, -20.0, 150.0], [200.0, -200.0, 0.0, 90.0], [-200.0, 200.0, 0.0, 9.0]])[:, None]
    assert lab_to_srgb(lab).isfinite().all()


def test_ciede2000_on_the_34_published_pairs():
    pairs = torch.tensor(SHARMA)
    lab_1, lab_2 = pairs[:, :3].T.reshape(3, 1, 34), pairs[:, 3:6].T.reshape(3, 1, 34)
    np.testing.assert_allclose(delta_e_2000(lab_1, lab_2)[0], SHARMA[:, 6], atol=5e-5)
    np.testing.assert_allclose(delta_e_2000(lab_2, lab_1)[0], SHARMA[:, 6], atol=5e-5)


def test_ciede2000_agrees_with_colour_science_and_has_gradients():
    lab_1 = srgb_to_lab(random_image())
    lab_2 = srgb_to_lab(random_image().flip(0))
    expected = colour.delta_E(last(lab_1), last(lab_2), method="CIE 2000")
    np.testing.assert_allclose(delta_e_2000(lab_1, lab_2), expected, atol=1e-8)
    lab_1 = torch.cat((lab_1, torch.zeros(2, 3, 17, 1), lab_2[..., :1]), dim=-1).requires_grad_()
    delta_e_2000(lab_1, torch.cat((lab_2, torch.zeros(2, 3, 17, 1), lab_2[..., :1]), dim=-1)).sum().backward()
    assert lab_1.grad.isfinite().all()


def test_white_locus_is_daylight_above_5000_k_and_black_body_below_4000_k():
    for kelvin in (5000.0, 5500.0, 6504.0, 8000.0, 12000.0, 20000.0):
        # The CIE D formula is indexed by a nominal temperature within 0.3% of the correlated one used here.
        xy = mired_to_xy(1e6 / kelvin).numpy()
        nearest = min(np.abs(CCT_to_xy_CIE_D(kelvin * s) - xy).max() for s in np.linspace(0.995, 1.005, 201))
        assert nearest < 2e-5
    for kelvin in (1800.0, 2500.0, 3200.0, 3900.0):
        spectrum = colour.sd_blackbody(kelvin, colour.SpectralShape(360, 780, 1))
        xy = colour.XYZ_to_xy(colour.sd_to_XYZ(spectrum, method="Integration"))
        np.testing.assert_allclose(mired_to_xy(1e6 / kelvin), xy, atol=5e-5)
    np.testing.assert_allclose(mired_to_xy(D65_MIRED), D65_XY, atol=2e-4)


def test_white_locus_joins_smoothly():
    mired = torch.arange(190.0, 260.0, 0.5, dtype=torch.float64)
    velocity = mired_to_xy(mired).diff(dim=0)
    assert (velocity.diff(dim=0).norm(dim=-1) / velocity.norm(dim=-1)[1:]).max() < 0.05
    assert (velocity[:, 0] > 0).all()


def test_correlated_colour_temperature_agrees_with_ohno():
    for kelvin in (1800.0, 2800.0, 4000.0, 5000.0, 6504.0, 9000.0, 15000.0):
        for distance in (-0.01, 0.0, 0.01):
            uv = colour.temperature.CCT_to_uv_Ohno2013(np.array([kelvin, distance]))
            xy = torch.tensor(colour.UCS_uv_to_xy(uv))
            assert xy_to_mired(xy).item() == pytest.approx(1e6 / uv_to_CCT_Ohno2013(uv)[0], abs=0.25)


def test_mired_inverts_and_holds_to_its_range():
    mired = torch.linspace(*MIRED_RANGE, 113, dtype=torch.float64)
    np.testing.assert_allclose(xy_to_mired(mired_to_xy(mired)), mired, atol=1e-9)
    assert xy_to_mired(torch.tensor([0.20, 0.20])) == MIRED_RANGE[0]
    assert xy_to_mired(torch.tensor([0.65, 0.34])) == MIRED_RANGE[1]
    assert torch.equal(mired_to_xy(torch.tensor(0.0)), mired_to_xy(torch.tensor(MIRED_RANGE[0])))


def test_bradford_agrees_with_colour_science():
    source, target = torch.tensor(D65_XY, dtype=torch.float64), mired_to_xy(300.0)
    white_1, white_2 = colour.xy_to_XYZ(source.numpy()), colour.xy_to_XYZ(target.numpy())
    expected = colour.adaptation.matrix_chromatic_adaptation_VonKries(white_1, white_2, "Bradford")
    np.testing.assert_allclose(bradford(source, target), expected, atol=1e-6)
    np.testing.assert_allclose(bradford(source, target) @ torch.tensor(white_1), white_2, atol=1e-12)
    np.testing.assert_allclose(bradford(source, target) @ bradford(target, source), np.eye(3), atol=1e-12)


def test_one_matrix_a_picture():
    image = random_image()
    matrices = torch.rand(2, 3, 3, dtype=torch.float64)
    expected = np.einsum("bij,bjhw->bihw", matrices, image)
    np.testing.assert_allclose(apply_matrix(matrices, image), expected, atol=1e-12)


def test_black_has_the_chromaticity_of_d65():
    np.testing.assert_allclose(xyz_to_xy(torch.zeros(3, dtype=torch.float64)), D65_XY, atol=1e-6)
