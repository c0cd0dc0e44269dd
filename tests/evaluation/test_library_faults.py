"""Faults of other people's code: repeatable, of every size, and what the libraries themselves make of the photo."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance
from torch import Tensor

from components.evaluation.library_faults import (
    LIBRARY_FAULTS,
    LibraryFault,
    apply_library_faults,
    sample_library_faults,
)
from components.imaging.photo import quantize
from components.metrics.full_reference import ciede2000, to_bytes
from components.photometry.colour import srgb_to_linear


@pytest.fixture
def photo(photo_factory) -> Tensor:
    return quantize(photo_factory(40, 60))


def draws(count: int) -> list[tuple[LibraryFault, ...]]:
    return [sample_library_faults(torch.Generator().manual_seed(seed)) for seed in range(count)]


def test_one_or_two_faults_of_different_kinds_by_seed_alone() -> None:
    drawn = draws(200)
    assert drawn == draws(200)
    assert {len(faults) for faults in drawn} == {1, 2}
    assert all(len({fault.name for fault in faults}) == len(faults) for faults in drawn)
    assert {fault.name for faults in drawn for fault in faults} == set(LIBRARY_FAULTS)


def test_sizes_run_from_hardly_visible_to_severe(photo: Tensor) -> None:
    sizes = [ciede2000(apply_library_faults(photo, faults), photo) for faults in draws(100)]
    assert min(sizes) < 2 and max(sizes) > 12
    assert 4 < float(np.median(sizes)) < 12


def test_pillows_sliders_are_pillows(photo: Tensor) -> None:
    image = Image.fromarray(to_bytes(photo))
    for name, slider in (("brightness", ImageEnhance.Brightness), ("contrast", ImageEnhance.Contrast)):
        made = apply_library_faults(photo, (LibraryFault(name, (1.3,)),))
        np.testing.assert_array_equal(to_bytes(made), np.asarray(slider(image).enhance(1.3)))


def test_a_white_balance_keeps_the_luminance_of_grey(photo: Tensor) -> None:
    grey = quantize(torch.full((3, 4, 4), 0.5))
    made = srgb_to_linear(apply_library_faults(grey, (LibraryFault("white_balance", (1.3, 0.8)),)))
    red, green, blue = made.mean((1, 2)).tolist()
    assert red / green == pytest.approx(1.3, rel=0.02) and blue / green == pytest.approx(0.8, rel=0.02)
    assert 0.2126 * red + 0.7152 * green + 0.0722 * blue == pytest.approx(float(srgb_to_linear(grey).mean()), rel=0.02)


def test_an_under_exposure_lifts_black_and_loses_light() -> None:
    ramp = quantize(torch.linspace(0, 1, 64).expand(3, 4, 64).contiguous())
    made = apply_library_faults(ramp, (LibraryFault("underexposed", (1.0, 0.05)),))
    assert made.min() == pytest.approx(0.05, abs=0.01)
    assert made.max() < 0.8


def test_curves_are_monotone_and_keep_black_and_white() -> None:
    ramp = quantize(torch.linspace(0, 1, 64).expand(3, 4, 64).contiguous())
    made = apply_library_faults(ramp, (LibraryFault("curves", (0.1, -0.1, -0.1, 0.1, 0.0, 0.0)),))
    assert (made.diff(dim=-1) >= 0).all()
    torch.testing.assert_close(made[..., [0, -1]], ramp[..., [0, -1]])
    torch.testing.assert_close(made[2], ramp[2], rtol=0, atol=1.5 / 255)


def test_every_fault_has_words() -> None:
    for faults in draws(50):
        for fault in faults:
            assert fault.label.startswith(LIBRARY_FAULTS[fault.name].title)
