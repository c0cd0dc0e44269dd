"""The full-resolution transfer, against a least-squares fit window by window in numpy and against true edits."""

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.enhance_speed import working_size
from components.imaging.photo import resize
from components.inference.transfer import FieldEdit, TransferSettings, apply_field, fit_field
from components.metrics.full_reference import psnr
from components.photometry.operations import Operation, apply_operations


def transfer(
    photo: Tensor, before: Tensor, after: Tensor, settings: TransferSettings | None = None, strength: float = 1.0
) -> Tensor:
    """Apply to a photo what was done to a small picture of it."""
    return apply_field(photo, fit_field(before, after, settings) * strength)


def window_fits(before: np.ndarray, after: np.ndarray, radius: int, ridge: float) -> np.ndarray:
    """(12, h, w): numpy.linalg.lstsq of the augmented system of each window, then plain window averages."""
    _, height, width = before.shape
    maps = np.zeros((12, height, width))
    for y in range(height):
        for x in range(width):
            rows, columns = slice(max(0, y - radius), y + radius + 1), slice(max(0, x - radius), x + radius + 1)
            x_n3 = before[:, rows, columns].reshape(3, -1).T
            y_n3 = after[:, rows, columns].reshape(3, -1).T
            count = len(x_n3)
            penalty = np.sqrt(count * ridge) * np.eye(3, 4)
            design = np.concatenate([np.concatenate([x_n3, np.ones((count, 1))], 1), penalty])
            solution = np.linalg.lstsq(design, np.concatenate([y_n3 - x_n3, np.zeros((3, 3))]), rcond=None)[0]
            maps[:9, y, x], maps[9:, y, x] = solution[:3].T.ravel(), solution[3]
    averaged = np.zeros_like(maps)
    for y in range(height):
        for x in range(width):
            rows, columns = slice(max(0, y - radius), y + radius + 1), slice(max(0, x - radius), x + radius + 1)
            averaged[:, y, x] = maps[:, rows, columns].mean((1, 2))
    return averaged


@pytest.mark.parametrize(("radius", "ridge"), [(1, 1e-4), (3, 1e-2), (20, 1e-3)])
def test_the_field_is_the_ridge_regression_of_every_window(photo_factory, radius: int, ridge: float) -> None:
    before, after = photo_factory(12, 17, seed=1), photo_factory(12, 17, seed=2)
    field = fit_field(before, after, TransferSettings(radius=radius, ridge=ridge))
    reference = window_fits(before.double().numpy(), after.double().numpy(), radius, ridge)
    np.testing.assert_allclose(field.numpy(), reference, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [(64, 96), (37, 501), (200, 8), (3, 5), (1, 1)])
def test_the_field_is_enlarged_bilinearly_at_any_size(size: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(0)
    photo, field = torch.rand(3, *size, generator=generator), torch.randn(12, 8, 12, generator=generator) / 10
    maps = functional.interpolate(field[None], size=size, mode="bilinear", align_corners=False)[0]
    change = torch.einsum("ijhw,jhw->ihw", maps[:9].view(3, 3, *size), photo) + maps[9:]
    torch.testing.assert_close(apply_field(photo, field), (photo + change).clamp(0, 1), rtol=0, atol=2e-6)


def test_it_can_write_over_the_photo(photo: Tensor) -> None:
    field = torch.randn(12, 4, 6, generator=torch.Generator().manual_seed(0)) / 10
    expected = apply_field(photo, field)
    result = apply_field(photo, field, out=photo)
    assert result is photo
    assert torch.equal(photo, expected)


def test_strips_of_any_height_give_what_the_whole_gives(photo_factory) -> None:
    photo, field = photo_factory(90, 130), torch.randn(12, 7, 9, generator=torch.Generator().manual_seed(0)) / 10
    whole, edit = apply_field(photo, field), FieldEdit(field, 90)
    for rows in (1, 13, 64):  # the same edit again: what it keeps of one strip must not reach into another
        strips = [edit(photo[:, top : top + rows].clone(), top) for top in range(0, 90, rows)]
        assert torch.equal(torch.cat(strips, dim=1), whole)
    narrow = photo[..., :40].contiguous()
    assert torch.equal(edit(narrow.clone(), 0), apply_field(narrow, field))
    with pytest.raises(ValueError, match="rows within a photo of 90 rows, found 60 to 100"):
        edit(photo[:, :40], 60)


def test_no_edit_leaves_the_photo_untouched(photo_factory) -> None:
    photo = photo_factory(90, 130)
    small = resize(photo, (40, 64))
    assert torch.equal(transfer(photo, small, small), photo)
    assert torch.equal(transfer(photo, small, 1 - small, strength=0.0), photo)


def test_an_affine_colour_change_is_reproduced_exactly(photo_factory) -> None:
    photo = photo_factory(180, 260)
    small = resize(photo, (48, 72))
    matrix = torch.tensor([[0.8, 0.1, 0.0], [0.05, 0.9, -0.05], [0.0, 0.1, 0.7]])

    def edit(picture: Tensor) -> Tensor:
        return torch.einsum("ij,jhw->ihw", matrix, picture) + torch.tensor([0.02, 0.05, 0.08])[:, None, None]

    result = transfer(photo, small, edit(small), TransferSettings(ridge=1e-9))
    torch.testing.assert_close(result, edit(photo), rtol=0, atol=2e-3)


def test_half_the_strength_is_half_the_change(photo_factory) -> None:
    photo = photo_factory(90, 130)
    small = resize(photo, (40, 64))
    after = apply_operations(small, [Operation(name="exposure", amount=-0.5)])
    half, full = transfer(photo, small, after, strength=0.5), transfer(photo, small, after)
    torch.testing.assert_close(half, (photo + full) / 2, rtol=0, atol=1e-6)


EDITS = {
    "exposure": [Operation(name="exposure", amount=0.6)],
    "contrast": [Operation(name="contrast", amount=-0.5)],
    "saturation": [Operation(name="saturation", amount=0.8)],
    "temperature": [Operation(name="temperature", amount=-60)],
    "three": [
        Operation(name="exposure", amount=-0.6),
        Operation(name="contrast", amount=0.3),
        Operation(name="temperature", amount=40),
    ],
}


@pytest.mark.parametrize(("noise", "least"), [(0.0, 42.0), (0.05, 38.9)])
@pytest.mark.parametrize("edit", EDITS)
def test_true_edits_at_64_px_arrive_at_full_resolution(photo_factory, edit: str, noise: float, least: float) -> None:
    photo = photo_factory(480, 640, seed=3)
    true = apply_operations(photo, EDITS[edit])
    size = working_size(*photo.shape[-2:], side=64)
    after = resize(true, size)
    after = after + noise * torch.randn(after.shape, generator=torch.Generator().manual_seed(1))
    assert psnr(transfer(photo, resize(photo, size), after), true) > least


@pytest.mark.slow
def test_what_is_white_in_the_edit_says_only_that_it_is_at_least_white(photo_factory) -> None:
    photo = photo_factory(240, 360, seed=3)
    small = resize(photo, (48, 72))
    brighter = torch.tensor([1.6, 1.5, 1.4])[:, None, None]
    true, after = (photo * brighter).clamp(0, 1), (small * brighter).clamp(0, 1)
    assert 0.05 < float((after >= 1).float().mean()) < 0.6
    plain, unclipped = (
        psnr(transfer(photo, small, after, TransferSettings(unclipping=rounds)), true) for rounds in (0, 8)
    )
    assert unclipped > plain + 3
    inside = small * 0.8 + 0.1
    fields = [fit_field(small, inside, TransferSettings(unclipping=rounds)) for rounds in (0, 8)]
    assert torch.equal(*fields)


def test_an_edit_of_one_half_stays_in_that_half(photo_factory) -> None:
    photo = photo_factory(240, 480)
    small = resize(photo, (48, 96))
    after = small.clone()
    after[..., 48:] = apply_operations(small, [Operation(name="exposure", amount=-1.0)])[..., 48:]
    result = transfer(photo, small, after, TransferSettings(radius=4))
    assert torch.equal(result[..., :180], photo[..., :180])  # 12 small pixels away: two windows
    dark = apply_operations(photo, [Operation(name="exposure", amount=-1.0)])
    assert psnr(result[..., 300:], dark[..., 300:]) > 40


def test_flat_and_extreme_pictures_stay_finite() -> None:
    for level in (0.0, 0.5, 1.0):
        photo = torch.full((3, 50, 60), level)
        result = transfer(photo, resize(photo, (16, 16)), torch.full((3, 16, 16), 0.4))
        torch.testing.assert_close(result, torch.full_like(photo, 0.4), rtol=0, atol=1e-5)


def test_mistakes_are_named() -> None:
    photo, small = torch.zeros(3, 9, 9), torch.zeros(3, 8, 8)
    with pytest.raises(ValueError, match=r"same shape .* found \(3, 8, 8\) and \(3, 8, 7\)"):
        transfer(photo, small, small[..., 1:])
    with pytest.raises(ValueError, match="NaN"):
        transfer(photo, small, small / 0)
    with pytest.raises(ValueError, match=r"found \(1, 9, 9\)"):
        transfer(photo[:1], small, small)
    with pytest.raises(ValueError, match=r"\(12, h, w\), found \(3, 8, 8\)"):
        apply_field(photo, small)
