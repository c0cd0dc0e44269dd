"""Colour spaces and white points: sRGB, CIE XYZ, CIELAB, CIEDE2000, correlated colour temperature, Bradford adaptation.

Everything is a vectorised torch function on images (..., 3, H, W), runs in the dtype and on the device of its input,
and is defined, finite and differentiable outside [0, 1] too: a retouch may push values out of gamut and pull them
back. The reference white is D65 of the CIE 1931 2-degree observer, Y = 1.
"""

import math
from functools import cache

import torch
from torch import Tensor

D65_XY = (0.3127, 0.3290)
D65_MIRED = 1e6 / 6504.0
MIRED_RANGE = (40.0, 600.0)
"""Reciprocal megakelvin covered by the white locus: 25000 K to 1667 K."""

_SRGB_PRIMARIES_XY = ((0.64, 0.33), (0.30, 0.60), (0.15, 0.06))  # IEC 61966-2-1
_BRADFORD = ((0.8951, 0.2664, -0.1614), (-0.7502, 1.7135, 0.0367), (0.0389, -0.0685, 1.0296))  # Lam 1985
_PLANCK_C2 = 1.4388e-2  # second radiation constant in m K, ITS-90, as the CIE uses it
_LAB_DELTA = 6.0 / 29.0
_TABLE_STEP = 0.25  # mired between neighbouring points of the locus table


def srgb_to_linear(image: Tensor) -> Tensor:
    """Linear light from sRGB: the IEC 61966-2-1 decoding, mirrored for negative values so that it stays odd.

    Args:
        image: any shape, sRGB, nominally [0, 1].
    """
    magnitude = image.abs()
    curve = ((magnitude.clamp(min=0.04045) + 0.055) / 1.055) ** 2.4
    return torch.where(magnitude <= 0.04045, image / 12.92, curve.copysign(image))


def linear_to_srgb(linear_image: Tensor) -> Tensor:
    """sRGB from linear light: the IEC 61966-2-1 encoding, mirrored for negative values; not clamped.

    Args:
        linear_image: any shape, linear light, nominally [0, 1].
    """
    magnitude = linear_image.abs()
    curve = 1.055 * magnitude.clamp(min=0.0031308) ** (1 / 2.4) - 0.055
    return torch.where(magnitude <= 0.0031308, linear_image * 12.92, curve.copysign(linear_image))


def linear_to_xyz(linear_image: Tensor) -> Tensor:
    """CIE XYZ (white Y = 1) of a linear-light sRGB image (..., 3, H, W), from the IEC 61966-2-1 primaries and D65."""
    return apply_matrix(rgb_to_xyz_matrix().to(linear_image), linear_image)


def xyz_to_linear(xyz_image: Tensor) -> Tensor:
    """Linear-light sRGB of a CIE XYZ image (..., 3, H, W); not clamped."""
    return apply_matrix(torch.linalg.inv(rgb_to_xyz_matrix()).to(xyz_image), xyz_image)


def xyz_to_lab(xyz_image: Tensor) -> Tensor:
    """CIELAB under D65 of a CIE XYZ image (..., 3, H, W); ISO/CIE 11664-4.

    The linear segment below (6/29)^3 continues through zero to negative values, so the map is monotone, finite and
    invertible for every input.
    """
    ratio = xyz_image / _white_column(xyz_image)
    root = ratio.clamp(min=_LAB_DELTA**3) ** (1 / 3)
    f = torch.where(ratio > _LAB_DELTA**3, root, ratio / (3 * _LAB_DELTA**2) + 4 / 29)
    fx, fy, fz = f.unbind(-3)
    return torch.stack((116 * fy - 16, 500 * (fx - fy), 200 * (fy - fz)), dim=-3)


def lab_to_xyz(lab_image: Tensor) -> Tensor:
    """CIE XYZ of a CIELAB (D65) image (..., 3, H, W): the exact inverse of :func:`xyz_to_lab`."""
    lightness, a, b = lab_image.unbind(-3)
    fy = (lightness + 16) / 116
    f = torch.stack((fy + a / 500, fy, fy - b / 200), dim=-3)
    ratio = torch.where(f > _LAB_DELTA, f**3, 3 * _LAB_DELTA**2 * (f - 4 / 29))
    return ratio * _white_column(lab_image)


def srgb_to_lab(image: Tensor) -> Tensor:
    """CIELAB (L* 0 to 100, D65) of an sRGB image (..., 3, H, W)."""
    return xyz_to_lab(linear_to_xyz(srgb_to_linear(image)))


def lab_to_srgb(lab_image: Tensor) -> Tensor:
    """sRGB of a CIELAB (D65) image (..., 3, H, W); not clamped, finite for colours out of gamut."""
    return linear_to_srgb(xyz_to_linear(lab_to_xyz(lab_image)))


def luminance(linear_image: Tensor) -> Tensor:
    """Relative luminance Y, (..., H, W), of a linear-light sRGB image (..., 3, H, W)."""
    red, green, blue = rgb_to_xyz_matrix()[1].tolist()
    return red * linear_image[..., 0, :, :] + green * linear_image[..., 1, :, :] + blue * linear_image[..., 2, :, :]


def delta_e_2000(lab_1: Tensor, lab_2: Tensor) -> Tensor:
    """CIEDE2000 colour difference, pixel by pixel, with k_L = k_C = k_H = 1.

    Args:
        lab_1, lab_2: CIELAB images (..., 3, H, W) that broadcast against each other.

    Returns:
        Tensor (..., H, W), 0 for equal colours; about 1 is just noticeable.

    Source: Sharma, Wu and Dalal (2005), "The CIEDE2000 color-difference formula", equations 2 to 22.
    """
    lightness_1, a_1, b_1 = lab_1.unbind(-3)
    lightness_2, a_2, b_2 = lab_2.unbind(-3)
    mean_chroma_7 = ((_norm(a_1, b_1) + _norm(a_2, b_2)) / 2) ** 7
    g = 0.5 * (1 - _root(mean_chroma_7 / (mean_chroma_7 + 25.0**7)))
    a_1, a_2 = (1 + g) * a_1, (1 + g) * a_2
    chroma_1, chroma_2 = _norm(a_1, b_1), _norm(a_2, b_2)
    hue_1, hue_2 = _hue(a_1, b_1), _hue(a_2, b_2)

    turn = hue_2 - hue_1
    turn = torch.where(turn > math.pi, turn - 2 * math.pi, torch.where(turn < -math.pi, turn + 2 * math.pi, turn))
    grey = chroma_1 * chroma_2 == 0
    turn = torch.where(grey, torch.zeros_like(turn), turn)
    d_lightness = lightness_2 - lightness_1
    d_chroma = chroma_2 - chroma_1
    d_hue = 2 * _root(chroma_1 * chroma_2) * torch.sin(turn / 2)

    total = hue_1 + hue_2
    wrapped = torch.where(total < 2 * math.pi, total + 2 * math.pi, total - 2 * math.pi) / 2
    mean_hue = torch.where((hue_1 - hue_2).abs() <= math.pi, total / 2, wrapped)
    mean_hue = torch.where(grey, total, mean_hue)
    mean_lightness, mean_chroma = (lightness_1 + lightness_2) / 2, (chroma_1 + chroma_2) / 2
    t = (
        1
        - 0.17 * torch.cos(mean_hue - math.radians(30))
        + 0.24 * torch.cos(2 * mean_hue)
        + 0.32 * torch.cos(3 * mean_hue + math.radians(6))
        - 0.20 * torch.cos(4 * mean_hue - math.radians(63))
    )
    theta = math.radians(30) * torch.exp(-(((torch.rad2deg(mean_hue) - 275) / 25) ** 2))
    mean_chroma_7 = mean_chroma**7
    rotation = -torch.sin(2 * theta) * 2 * _root(mean_chroma_7 / (mean_chroma_7 + 25.0**7))
    offset = (mean_lightness - 50) ** 2
    lightness_term = d_lightness / (1 + 0.015 * offset / (20 + offset).sqrt())
    chroma_term = d_chroma / (1 + 0.045 * mean_chroma)
    hue_term = d_hue / (1 + 0.015 * mean_chroma * t)
    return _root(lightness_term**2 + chroma_term**2 + hue_term**2 + rotation * chroma_term * hue_term)


def mired_to_xy(mired: Tensor | float) -> Tensor:
    """Chromaticity of the white whose correlated colour temperature is 1e6 / ``mired`` kelvin.

    From 5000 K up the white is daylight (CIE D illuminants, as cameras are balanced for), below 4000 K it is a black
    body (tungsten, fire). Between them the distance of daylight from the black-body locus is faded out by a
    smoothstep in mired, so the locus has a continuous tangent. The index is the correlated colour temperature in the
    CIE's sense, so :func:`xy_to_mired` is the exact inverse.

    Args:
        mired: reciprocal megakelvin, any shape; held within :data:`MIRED_RANGE`.

    Returns:
        Tensor (..., 2) of CIE 1931 xy; float64 for a float, else in the dtype of ``mired``.

    Source: CIE 15:2018, 4.1.2 (daylight) and Planck's law integrated with the CIE 1931 observer (black body).
    """
    mired = torch.as_tensor(mired, dtype=torch.float64 if isinstance(mired, (float, int)) else None)
    table = _locus_table()
    position = ((mired.double() - MIRED_RANGE[0]) / _TABLE_STEP).clamp(0, table.shape[0] - 1)
    lower = position.detach().long().clamp(max=table.shape[0] - 2).cpu()
    fraction = (position - lower.to(position)).unsqueeze(-1)
    white_uv = table[:, 4:6].to(mired.device)
    uv = white_uv[lower] * (1 - fraction) + white_uv[lower + 1] * fraction
    return _uv_to_xy(uv).to(mired.dtype)


def xy_to_mired(xy: Tensor) -> Tensor:
    """Correlated colour temperature of a chromaticity, in mired: the nearest black body in the CIE 1960 uv plane.

    Projects on the isotherms (Robertson 1968), but with a table dense enough (0.25 mired) that interpolation between
    neighbours adds no visible error. Chromaticities beyond the ends of the locus get the end of the range.

    Args:
        xy: (..., 2) CIE 1931 chromaticities.

    Returns:
        Tensor (...) within :data:`MIRED_RANGE`.
    """
    table = _locus_table().to(xy.device)
    body, tangent = table[:, 0:2], table[:, 2:4]
    uv = _xy_to_uv(xy.double())
    with torch.no_grad():
        nearest = (uv.unsqueeze(-2) - body).square().sum(-1).argmin(-1)
        ahead = ((uv - body[nearest]) * tangent[nearest]).sum(-1) >= 0
        lower = torch.where(ahead, nearest, nearest - 1).clamp(0, table.shape[0] - 2)
    before = ((uv - body[lower]) * tangent[lower]).sum(-1)
    after = ((uv - body[lower + 1]) * tangent[lower + 1]).sum(-1)
    fraction = (before / (before - after).clamp(min=1e-12)).clamp(0, 1)
    return (MIRED_RANGE[0] + _TABLE_STEP * (lower + fraction)).to(xy.dtype)


def bradford(xy_source: Tensor, xy_target: Tensor) -> Tensor:
    """Linear Bradford adaptation: the XYZ matrix that carries the source white to the target white, both with Y = 1.

    Args:
        xy_source, xy_target: CIE 1931 chromaticities (..., 2) that broadcast against each other.

    Returns:
        Tensor (..., 3, 3): von Kries scaling in the Bradford cone space.

    Source: Lam (1985); ICC.1:2022, annex E.
    """
    cone = torch.tensor(_BRADFORD, dtype=torch.float64, device=xy_source.device)
    gain = (_xy_to_xyz(xy_target.double()) @ cone.T) / (_xy_to_xyz(xy_source.double()) @ cone.T)
    adaptation = torch.linalg.inv(cone) @ (gain.unsqueeze(-1) * cone)
    return adaptation.to(torch.promote_types(xy_source.dtype, xy_target.dtype))


def xyz_to_xy(xyz: Tensor) -> Tensor:
    """Chromaticity (..., 2) of tristimulus values (..., 3); black gives D65, the white it is adapted to."""
    white = torch.tensor((D65_XY[0] / D65_XY[1], 1.0, (1 - sum(D65_XY)) / D65_XY[1])).to(xyz)
    lit = xyz.clamp(min=0) + 1e-7 * white
    return lit[..., :2] / lit.sum(-1, keepdim=True)


def apply_matrix(matrix: Tensor, image: Tensor) -> Tensor:
    """Multiply the channels of an image (..., 3, H, W) by a matrix (3, 3), or by one matrix a picture (..., 3, 3)."""
    return (matrix @ image.flatten(-2)).unflatten(-1, image.shape[-2:])


@cache
def rgb_to_xyz_matrix() -> Tensor:
    """The float64 matrix (3, 3) from linear sRGB to XYZ, derived so that white is exactly D65 with Y = 1."""
    primaries = _xy_to_xyz(torch.tensor(_SRGB_PRIMARIES_XY, dtype=torch.float64)).T
    white = _xy_to_xyz(torch.tensor(D65_XY, dtype=torch.float64))
    return primaries * torch.linalg.solve(primaries, white)


@cache
def _locus_table() -> Tensor:
    """(N, 6) float64, a row every 0.25 mired: black body uv, unit tangent towards warmer, uv of the white there."""
    mired = torch.arange(MIRED_RANGE[0], MIRED_RANGE[1] + _TABLE_STEP / 2, _TABLE_STEP, dtype=torch.float64)
    body, tangent = _planckian_uv(mired), _planckian_uv(mired + 1e-3) - _planckian_uv(mired - 1e-3)
    tangent = tangent / tangent.norm(dim=-1, keepdim=True)
    normal = torch.stack((-tangent[:, 1], tangent[:, 0]), dim=-1)

    # Daylight meets the isotherm of each black body where its own parameter, the nominal temperature, says so only
    # nearly: find the point of the D locus on the isotherm by bisection. D(T) is defined from 4000 to 25000 K.
    low, high = mired - 8, mired + 8
    for _ in range(50):
        middle = (low + high) / 2
        beyond = ((_daylight_uv(middle) - body) * tangent).sum(-1) > 0
        low, high = torch.where(beyond, low, middle), torch.where(beyond, middle, high)
    distance = ((_daylight_uv((low + high) / 2) - body) * normal).sum(-1, keepdim=True)
    fade = ((250.0 - mired) / 50.0).clamp(0, 1).unsqueeze(-1)
    fade = fade * fade * (3 - 2 * fade)
    distance = torch.where(fade > 0, distance * fade, torch.zeros_like(distance))
    return torch.cat((body, tangent, body + distance * normal), dim=-1)


def _planckian_uv(mired: Tensor) -> Tensor:
    """CIE 1960 uv (..., 2) of black bodies, by Planck's law and the CIE 1931 observer every 5 nm."""
    observer = torch.tensor(_OBSERVER_1931, dtype=torch.float64)
    nanometres = _FIRST_NANOMETRE + _STEP_NANOMETRES * torch.arange(observer.shape[0], dtype=torch.float64)
    exponent = _PLANCK_C2 * mired.unsqueeze(-1) * 1e-6 / (nanometres * 1e-9)
    radiance = (nanometres / 560.0) ** -5 / torch.expm1(exponent)
    xyz = radiance @ observer
    return _xy_to_uv(xyz[..., :2] / xyz.sum(-1, keepdim=True))


def _daylight_uv(mired: Tensor) -> Tensor:
    """CIE 1960 uv (..., 2) of the CIE D illuminants of nominal temperature 1e6 / mired; CIE 15:2018, equation 4.7."""
    m = mired / 1e3  # reciprocal kilokelvin
    warm = -4.6070 * m**3 + 2.9678 * m**2 + 0.09911 * m + 0.244063
    cold = -2.0064 * m**3 + 1.9018 * m**2 + 0.24748 * m + 0.237040
    x = torch.where(mired >= 1e3 / 7.0, warm, cold)
    return _xy_to_uv(torch.stack((x, -3.0 * x**2 + 2.870 * x - 0.275), dim=-1))


def _xy_to_uv(xy: Tensor) -> Tensor:
    x, y = xy.unbind(-1)
    return torch.stack((4 * x, 6 * y), dim=-1) / (12 * y - 2 * x + 3).unsqueeze(-1)


def _uv_to_xy(uv: Tensor) -> Tensor:
    u, v = uv.unbind(-1)
    return torch.stack((3 * u, 2 * v), dim=-1) / (2 * u - 8 * v + 4).unsqueeze(-1)


def _xy_to_xyz(xy: Tensor) -> Tensor:
    x, y = xy.unbind(-1)
    return torch.stack((x / y, torch.ones_like(y), (1 - x - y) / y), dim=-1)


def _white_column(like: Tensor) -> Tensor:
    return _xy_to_xyz(torch.tensor(D65_XY, dtype=torch.float64)).to(like).view(3, 1, 1)


def _root(value: Tensor) -> Tensor:
    """Square root whose gradient is 0, not infinite, at 0."""
    positive = value > 0
    return torch.where(positive, torch.where(positive, value, torch.ones_like(value)).sqrt(), torch.zeros_like(value))


def _norm(a: Tensor, b: Tensor) -> Tensor:
    return _root(a * a + b * b)


def _hue(a: Tensor, b: Tensor) -> Tensor:
    """Hue angle in [0, 2 pi), 0 for grey; its gradient is 0 for grey too."""
    grey = (a == 0) & (b == 0)
    angle = torch.atan2(b, torch.where(grey, torch.ones_like(a), a))
    return torch.where(angle < 0, angle + 2 * math.pi, angle)


_FIRST_NANOMETRE = 380
_STEP_NANOMETRES = 5

# (x, y, z) colour matching functions of the CIE 1931 2-degree observer, by which spectra become tristimulus values,
# from 380 to 780 nm every 5 nm: ISO/CIE 11664-1, table 1.
# fmt: off
_OBSERVER_1931 = (
    (0.001368, 3.9e-05, 0.00645), (0.002236, 6.4e-05, 0.01055), (0.004243, 0.00012, 0.02005),
    (0.00765, 0.000217, 0.03621), (0.01431, 0.000396, 0.06785), (0.02319, 0.00064, 0.1102),
    (0.04351, 0.00121, 0.2074), (0.07763, 0.00218, 0.3713), (0.13438, 0.004, 0.6456), (0.21477, 0.0073, 1.03905),
    (0.2839, 0.0116, 1.3856), (0.3285, 0.01684, 1.62296), (0.34828, 0.023, 1.74706), (0.34806, 0.0298, 1.7826),
    (0.3362, 0.038, 1.77211), (0.3187, 0.048, 1.7441), (0.2908, 0.06, 1.6692), (0.2511, 0.0739, 1.5281),
    (0.19536, 0.09098, 1.28764), (0.1421, 0.1126, 1.0419), (0.09564, 0.13902, 0.81295), (0.05795, 0.1693, 0.6162),
    (0.03201, 0.20802, 0.46518), (0.0147, 0.2586, 0.3533), (0.0049, 0.323, 0.272), (0.0024, 0.4073, 0.2123),
    (0.0093, 0.503, 0.1582), (0.0291, 0.6082, 0.1117), (0.06327, 0.71, 0.07825), (0.1096, 0.7932, 0.05725),
    (0.1655, 0.862, 0.04216), (0.22575, 0.91485, 0.02984), (0.2904, 0.954, 0.0203), (0.3597, 0.9803, 0.0134),
    (0.43345, 0.99495, 0.00875), (0.51205, 1.0, 0.00575), (0.5945, 0.995, 0.0039), (0.6784, 0.9786, 0.00275),
    (0.7621, 0.952, 0.0021), (0.8425, 0.9154, 0.0018), (0.9163, 0.87, 0.00165), (0.9786, 0.8163, 0.0014),
    (1.0263, 0.757, 0.0011), (1.0567, 0.6949, 0.001), (1.0622, 0.631, 0.0008), (1.0456, 0.5668, 0.0006),
    (1.0026, 0.503, 0.00034), (0.9384, 0.4412, 0.00024), (0.85445, 0.381, 0.00019), (0.7514, 0.321, 0.0001),
    (0.6424, 0.265, 5e-05), (0.5419, 0.217, 3e-05), (0.4479, 0.175, 2e-05), (0.3608, 0.1382, 1e-05),
    (0.2835, 0.107, 0.0), (0.2187, 0.0816, 0.0), (0.1649, 0.061, 0.0), (0.1212, 0.04458, 0.0),
    (0.0874, 0.032, 0.0), (0.0636, 0.0232, 0.0), (0.04677, 0.017, 0.0), (0.0329, 0.01192, 0.0),
    (0.0227, 0.00821, 0.0), (0.01584, 0.005723, 0.0), (0.0113592, 0.004102, 0.0), (0.00811092, 0.002929, 0.0),
    (0.00579035, 0.002091, 0.0), (0.00410946, 0.001484, 0.0), (0.00289933, 0.001047, 0.0), (0.00204919, 0.00074, 0.0),
    (0.00143997, 0.00052, 0.0), (0.000999949, 0.0003611, 0.0), (0.000690079, 0.0002492, 0.0),
    (0.000476021, 0.0001719, 0.0), (0.000332301, 0.00012, 0.0), (0.000234826, 8.48e-05, 0.0),
    (0.000166151, 6e-05, 0.0), (0.000117413, 4.24e-05, 0.0), (8.30753e-05, 3e-05, 0.0), (5.87065e-05, 2.12e-05, 0.0),
    (4.15099e-05, 1.499e-05, 0.0),
)
# fmt: on
