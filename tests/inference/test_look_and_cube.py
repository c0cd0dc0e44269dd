"""The global look, and its table read and applied by colour-science."""

from pathlib import Path

import colour
import numpy as np
import pytest
import torch
from torch import Tensor

from components.imaging.photo import resize
from components.inference.look import LUT_SIZE, cube_text, fit_look, with_strength
from components.metrics.full_reference import psnr
from components.photometry.looks import Look, apply_look
from components.photometry.operations import Operation, apply_operations

pytestmark = pytest.mark.slow

EDIT = [Operation(name="exposure", amount=0.4), Operation(name="temperature", amount=30)]


@pytest.fixture(scope="module")
def fitted() -> tuple[Tensor, Look]:
    """A photo and the look of an edit of it, fitted at 64 x 96 pixels."""
    from tests.conftest import make_photo

    photo = make_photo(240, 360, seed=4)
    return photo, fit_look(resize(photo, (64, 96)), resize(apply_operations(photo, EDIT), (64, 96)))


def test_a_global_edit_is_carried_by_its_look(fitted) -> None:
    photo, look = fitted
    assert psnr(apply_look(photo, with_strength(look)), apply_operations(photo, EDIT)) > 42


def test_the_same_colour_becomes_the_same_colour_everywhere(fitted) -> None:
    _, look = fitted
    patch = torch.full((3, 20, 30), 0.4)
    result = apply_look(patch, with_strength(look))
    assert torch.equal(result, result[:, :1, :1].expand_as(result))


def test_no_change_is_the_identity_and_strength_is_a_factor(fitted) -> None:
    photo, look = fitted
    small = resize(photo, (32, 48))
    torch.testing.assert_close(apply_look(photo, with_strength(fit_look(small, small))), photo, rtol=0, atol=1e-5)
    torch.testing.assert_close(apply_look(photo, with_strength(look, 0.0)), photo, rtol=0, atol=1e-5)
    half, full = (apply_look(photo, with_strength(look, strength)) for strength in (0.5, 1.0))
    torch.testing.assert_close(half, (photo + full) / 2, rtol=0, atol=1e-5)


def test_an_affine_change_goes_on_where_the_photo_has_no_colours() -> None:
    before = 0.3 + 0.4 * torch.rand(3, 40, 60, generator=torch.Generator().manual_seed(0))
    table = with_strength(fit_look(before, 0.8 * before + 0.05))
    corners = torch.tensor([[0.0, 1.0, 1.0], [0.0, 1.0, 0.0], [0.0, 1.0, 0.2]])[..., None]
    torch.testing.assert_close(apply_look(corners, table), 0.8 * corners + 0.05, rtol=0, atol=0.02)


def test_colour_science_reads_and_applies_the_table(fitted, tmp_path: Path) -> None:
    photo, look = fitted
    table = with_strength(look)
    (tmp_path / "look.cube").write_text(cube_text(table, 'a "quoted"\nname'))
    read = colour.read_LUT(str(tmp_path / "look.cube"))
    assert read.size == LUT_SIZE
    np.testing.assert_allclose(read.table, table.table.permute(2, 1, 0, 3).numpy(), atol=1e-6)
    np.testing.assert_array_equal(read.domain, [[0, 0, 0], [1, 1, 1]])
    expected = read.apply(photo.permute(1, 2, 0).double().numpy())  # trilinear
    np.testing.assert_allclose(apply_look(photo, table).permute(1, 2, 0).numpy(), expected, atol=2e-5)


def test_mistakes_are_named() -> None:
    with pytest.raises(ValueError, match="NaN"):
        fit_look(torch.zeros(3, 4, 4), torch.full((3, 4, 4), torch.nan))
    with pytest.raises(ValueError, match="same shape"):
        fit_look(torch.zeros(3, 4, 4), torch.zeros(3, 4, 5))
