"""Views: crops that can be taken again exactly, from the photo or from its reduction."""

from collections.abc import Callable

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from components.data.crops import Crop, reduce, sample_crop, take_crop
from components.imaging.photo import quantize, resize
from components.seeding import generator_for


def test_the_whole_view_is_the_photo_resized(photo_factory: Callable[..., Tensor]) -> None:
    photo = photo_factory(90, 135)
    assert torch.equal(take_crop(photo, Crop(short_side=30)), quantize(resize(photo, (30, 45))))


def test_a_crop_shows_the_part_it_names_and_is_mirrored(photo_factory: Callable[..., Tensor]) -> None:
    photo = quantize(photo_factory(40, 60))
    view = Crop(left=0.5, top=0.25, width=0.5, height=0.5, short_side=20)
    assert torch.equal(take_crop(photo, view), photo[:, 10:30, 30:60])
    mirrored = view.model_copy(update={"mirrored": True})
    assert torch.equal(take_crop(photo, mirrored), photo[:, 10:30, 30:60].flip(-1))


def test_views_of_the_reduced_photo_have_the_same_bytes(photo_factory: Callable[..., Tensor]) -> None:
    photo = photo_factory(300, 450, seed=2)
    reduced = reduce(photo, 32)
    assert reduced.shape == (3, 96, 144)
    for index in range(20):
        view = sample_crop(generator_for(0, index), 32, smallest=0.5)
        assert 0.5 <= view.width == view.height <= 1
        assert torch.equal(take_crop(photo, view), take_crop(reduced, view))
        assert min(take_crop(photo, view).shape[-2:]) == 32


def test_a_crop_never_vanishes() -> None:
    view = Crop(left=0.99, top=0.99, width=0.01, height=0.01, short_side=8)
    assert take_crop(torch.rand(3, 1, 1), view).shape == (3, 1, 1)
    with pytest.raises(ValidationError, match="outside the photo"):
        Crop(left=0.6, width=0.5, short_side=8)


def test_generators_depend_on_seed_and_purpose_only() -> None:
    def draw(*key: int | str) -> int:
        return int(torch.randint(2**62, (1,), generator=generator_for(*key)))

    assert draw(0, "a", 1) == draw(0, "a", 1)
    assert len({draw(0, "a", 1), draw(1, "a", 1), draw(0, "b", 1), draw(0, "a", 2), draw(0, "a")}) == 5
