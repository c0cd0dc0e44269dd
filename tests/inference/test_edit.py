"""Which part of the Artist's edit reaches the photo."""

import pytest
import torch
from torch import Tensor

from components.inference.edit import EditOptions, asks_for_restoration, fit_edit
from components.inference.transfer import TransferSettings
from components.verdict.grammar import Verdict, suggest
from tests.inference.test_transfer import transfer

NOISY = Verdict(reasoning=("",) * 5, suggestions=(suggest("exposure", 0.3), suggest("noise")), score=50)
DARK = Verdict(reasoning=("",) * 5, suggestions=(suggest("exposure", 0.3),), score=50)


def edited(photo: Tensor, before: Tensor, after: Tensor, verdict: Verdict | None = None, **options) -> Tensor:
    edit = fit_edit(before, after, photo.shape[-2], EditOptions(**options), TransferSettings(), verdict)
    strips = [edit(photo[:, top : top + 11].clone(), top) for top in range(0, photo.shape[-2], 11)]
    return torch.cat(strips, dim=1)


@pytest.fixture
def detailed(photo_factory) -> tuple[Tensor, Tensor]:
    """A picture, and the same with detail of its own."""
    before = photo_factory(40, 60)
    return before, (before + 0.1 * torch.randn(before.shape, generator=torch.Generator().manual_seed(0))).clamp(0, 1)


def test_the_whole_edit_is_the_transfer(photo_factory) -> None:
    photo, before = photo_factory(80, 120), photo_factory(40, 60)
    after = (before * 0.8 + 0.05).flip(-1) * 0.2 + before * 0.6
    torch.testing.assert_close(edited(photo, before, after), transfer(photo, before, after), rtol=0, atol=1e-6)
    half = transfer(photo, before, after, strength=0.5)
    torch.testing.assert_close(edited(photo, before, after, strength=0.5), half, rtol=0, atol=1e-6)


def test_restoration_brings_the_artists_detail(detailed) -> None:
    before, after = detailed
    restored = edited(before, before, after, restore="always")
    torch.testing.assert_close(restored, after, rtol=0, atol=1e-3)
    assert (edited(before, before, after) - after).abs().mean() > 0.05


def test_restoration_where_the_critic_asks_for_it(detailed) -> None:
    before, after = detailed
    always, never = edited(before, before, after, restore="always"), edited(before, before, after)
    assert torch.equal(edited(before, before, after, NOISY, restore="asked"), always)
    assert torch.equal(edited(before, before, after, DARK, restore="asked"), never)
    assert torch.equal(edited(before, before, after, None, restore="asked"), never)
    assert asks_for_restoration(NOISY) and not asks_for_restoration(DARK)


@pytest.mark.slow
def test_tone_only_treats_equal_colours_equally(photo_factory) -> None:
    before = photo_factory(40, 60)
    after = before.clone()
    after[..., 30:] *= 0.5  # a local edit
    flat = torch.full((3, 22, 60), 0.4)
    result = edited(flat, before, after, tone_only=True)
    assert torch.equal(result, result[:, :1, :1].expand_as(result))
    assert edited(flat, before, after).std() > 0.01


def test_tone_only_does_not_go_with_restoration() -> None:
    with pytest.raises(ValueError, match="restore must be 'never'"):
        EditOptions(tone_only=True, restore="always")
