"""Bokeh keeps the subject, blurs the background as a disc does, and does not bleed one into the other; a subject put
before a photo mixes with it as light does."""

import numpy as np
import pytest
import scipy.ndimage
import scipy.special
import torch

from components.photometry.assets import encode_cutout, keep_asset
from components.photometry.blur import disc_kernel
from components.photometry.bokeh import aperture_radius, bokeh, elliptic_foreground, place_subject
from components.photometry.colour import linear_to_srgb, srgb_to_linear
from components.photometry.operations import Operation, apply_operations
from tests.photometry.reference import subject_mask


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def block(height: int = 96, width: int = 120) -> torch.Tensor:
    mask = torch.zeros(height, width)
    mask[32:64, 45:75] = 1
    return mask


def test_subject_stays_and_far_background_is_a_disc_blur(photo_factory):
    photo, mask, radius = photo_factory(96, 120), block(), 0.04
    result = bokeh(photo, radius, mask)
    torch.testing.assert_close(result[:, 36:60, 49:71], photo[:, 36:60, 49:71], rtol=0, atol=2e-3)
    kernel = disc_kernel(radius * 96).numpy()
    blurred = scipy.ndimage.convolve(srgb_to_linear(photo.double()).numpy(), kernel[None], mode="reflect")
    expected = linear_to_srgb(torch.tensor(blurred)).float()
    torch.testing.assert_close(result[:, :14], expected[:, :14], rtol=0, atol=1e-4)
    torch.testing.assert_close(result[:, :, :20], expected[:, :, :20], rtol=0, atol=1e-4)


def test_a_bright_subject_does_not_bleed_into_a_dark_background():
    mask = block()
    photo = 0.1 + 0.9 * mask.expand(3, -1, -1)
    result = bokeh(photo, 0.1, mask)
    assert (result[:, :28].max() - 0.1).item() < 0.01, "3 px from the outline the background is background"
    plain = scipy.ndimage.convolve(srgb_to_linear(photo).numpy(), disc_kernel(9.6).numpy()[None], mode="reflect")
    assert plain[:, 28].max() > 0.1, "where a plain disc blur would have drawn a halo"


def test_blur_grows_smoothly_away_from_the_subject():
    """Across horizontal waves the contrast left falls with the distance from the outline, without jumps."""
    waves = (0.5 + 0.3 * torch.sin(torch.arange(240.0) * 2 * torch.pi / 24))[:, None].expand(3, 240, 240)
    mask = torch.zeros(240, 240)
    mask[:, :80] = 1
    left = bokeh(waves, 0.04, mask).std((0, 1)) / waves.std()
    argument = 2 * np.pi / 24 * 0.04 * 240
    airy = 2 * scipy.special.j1(argument) / argument  # the transfer function of a disc
    assert (left[:70] > 0.99).all() and ((left[110:] - airy).abs() < 0.03).all()
    assert 0.5 < left[90] < 0.95, "a few pixels behind the outline the blur has only begun"
    assert left.diff().abs().max() < 0.12 and left.diff().max() < 0.01


def test_no_radius_or_all_subject_changes_nothing(photo):
    mask = elliptic_foreground(64, 96, seeded(0))
    torch.testing.assert_close(bokeh(photo, 0.0, mask), photo, rtol=0, atol=1e-4)
    torch.testing.assert_close(bokeh(photo, 0.1, torch.ones(64, 96)), photo, rtol=0, atol=1e-4)


def test_one_mask_a_picture(photo_factory):
    photos = torch.stack([photo_factory(seed=s) for s in range(2)])
    masks = torch.stack([elliptic_foreground(64, 96, seeded(s)) for s in range(2)])
    together = bokeh(photos, 0.06, masks)
    for photo, mask, result in zip(photos, masks, together, strict=True):
        torch.testing.assert_close(bokeh(photo, 0.06, mask), result, rtol=0, atol=1e-5)


@pytest.mark.parametrize("seed", range(10))
def test_ellipse_is_near_the_centre_of_plausible_size_and_the_same_at_every_scale(seed):
    mask = elliptic_foreground(80, 120, seeded(seed))
    assert mask.min() == 0 and mask.max() == 1
    assert 0.04 < mask.mean() < 0.5
    rows, columns = np.indices(mask.shape)
    assert abs((rows * mask.numpy()).sum() / mask.sum().item() - 39.5) < 12
    assert abs((columns * mask.numpy()).sum() / mask.sum().item() - 59.5) < 24
    half = torch.nn.functional.avg_pool2d(mask[None], 2)[0]
    assert (half - elliptic_foreground(40, 60, seeded(seed))).abs().max() < 0.08


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (30, 2)])
@pytest.mark.parametrize("value", [0.0, 1.0])
def test_every_size_and_extreme_stays_a_picture(size, value):
    result = bokeh(torch.full((3, *size), value), 0.1, elliptic_foreground(*size, seeded(0)))
    assert result.isfinite().all() and result.min() >= 0 and result.max() <= 1
    torch.testing.assert_close(result, torch.full((3, *size), value), rtol=0, atol=1e-4)


def test_a_mask_of_another_size_is_refused(photo):
    with pytest.raises(ValueError, match="resize it"):
        bokeh(photo, 0.1, torch.ones(10, 10))


@pytest.mark.parametrize(
    ("f_number", "focal", "focus", "background"), [(1.8, 50, 1.5, 6.0), (4, 85, 2.0, float("inf"))]
)
def test_aperture_gives_the_blur_of_traced_rays(f_number, focal, focus, background):
    """Rays through the rim of a thin lens, by the lens equation, meet the sensor this far apart."""
    image_of = lambda metres: 1 / (1 / focal - 1 / (1000 * metres))  # noqa: E731  millimetres behind the lens
    sensor, behind = image_of(focus), image_of(background)
    spread = focal / f_number * abs(sensor - behind) / behind
    radius = aperture_radius(f_number, focal, focus, background)
    assert radius == pytest.approx(spread / 2 / 24, rel=1e-9)
    assert aperture_radius(2 * f_number, focal, focus, background) == pytest.approx(radius / 2)
    assert aperture_radius(f_number, focal, focus, focus) == 0


@pytest.mark.parametrize("wrong", [(0, 50, 2), (2, 50, 0.05), (2, -50, 2), (2, 50, 2, 0)])
def test_impossible_lenses_are_refused(wrong):
    with pytest.raises(ValueError, match="focus beyond"):
        aperture_radius(*wrong)


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


def test_a_cutout_needs_alpha(photo):
    with pytest.raises(ValueError, match="sRGB and alpha"):
        place_subject(photo, photo, 0.5)
