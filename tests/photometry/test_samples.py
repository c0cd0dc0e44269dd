"""Large photos of 8 bits: against the operations one by one in float64, scipy's Poisson, any number of threads."""

import io
from collections.abc import Iterator

import numpy as np
import pytest
import scipy.ndimage
import scipy.stats
import torch
from PIL import Image

from components.photometry import fused, samples
from components.photometry.blur import disc_kernel, trajectory_kernel
from components.photometry.colour import linear_to_srgb, srgb_to_linear
from components.photometry.degradations import jpeg_samples
from components.photometry.operations import Operation, apply_operations
from components.photometry.photons import count_photons, photon_tables
from components.photometry.samples import apply_to_samples, read_light, write_light
from tests.photometry.reference import applied

TONE = (
    Operation(name="exposure", amount=-0.7),
    Operation(name="contrast", amount=0.4),
    Operation(name="temperature", amount=30.0),
)
HAZE = Operation(name="haze", amount=1.3, seed=4)
DISC = Operation(name="defocus_blur", amount=0.03)
JPEG = Operation(name="jpeg", amount=60.0)


@pytest.fixture
def any_size_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(samples, "LARGE", 0)


@pytest.fixture
def photo(photo_factory) -> np.ndarray:
    return fused.to_samples(photo_factory(150, 211, seed=2))


@pytest.fixture
def three_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


def exactly(photo: np.ndarray, operations: tuple[Operation, ...]) -> np.ndarray:
    """The operations in float64, rounded at the end."""
    pixels = torch.from_numpy(photo).permute(2, 0, 1).double() / 255
    return (applied(pixels, operations) * 255).permute(1, 2, 0).numpy()


@pytest.mark.parametrize(
    "operations",
    [
        (),
        TONE,
        (HAZE,),
        (DISC,),
        (Operation(name="motion_blur", amount=0.1, seed=3),),
        (DISC, *TONE),
        (*TONE, DISC, HAZE),
        (HAZE, Operation(name="defocus_blur", amount=0.25), DISC),
    ],
)
def test_codes_are_the_nearest_to_the_operations_in_float64(any_size_is_large, photo, operations):
    found = apply_to_samples(photo, operations)
    expected = exactly(photo, operations)
    assert found.dtype == np.uint8 and found.shape == photo.shape
    assert np.abs(found - expected).max() < 0.51
    assert (found != expected.round()).mean() < 1e-4


@pytest.mark.parametrize("operations", [(JPEG,), (*TONE, JPEG, HAZE), (DISC, JPEG)])
def test_jpeg_between_operations_sees_8_bits(any_size_is_large, photo, operations):
    at = operations.index(JPEG)
    before = apply_to_samples(photo, operations[:at])
    assert np.array_equal(
        apply_to_samples(photo, operations), apply_to_samples(jpeg_samples(before, 60.0), operations[at + 1 :])
    )


@pytest.mark.parametrize("size", [(1, 1), (7, 3), (16, 16), (33, 50)])
@pytest.mark.parametrize("loss", [1.0, 30.4, 70.0, 99.0])
def test_jpeg_is_what_pillow_writes(size, loss):
    picture = np.random.default_rng(1).integers(0, 256, (*size, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=round(100 - loss), subsampling="4:2:0")
    assert np.array_equal(jpeg_samples(picture, loss), np.asarray(Image.open(buffer)))


@pytest.mark.slow
@pytest.mark.parametrize("gain", [1.0, 0.25])
def test_noise_has_the_variance_of_the_poisson_gaussian_model(any_size_is_large, gain):
    code, sigma, read_share = 150, 0.01, 0.25
    flat = np.full((400, 500, 3), code, np.uint8)
    parameters = {"read_share": read_share}
    noise = Operation(name="noise", amount=sigma, seed=5, parameters=parameters)
    low_light = Operation(name="low_light", amount=2.0, seed=5, parameters={**parameters, "sigma": sigma})
    found = apply_to_samples(flat, (noise if gain == 1 else low_light,))
    light = srgb_to_linear(torch.tensor(found / 255)).numpy()
    level = gain * srgb_to_linear(torch.tensor(code / 255)).item()
    step = 1 / 255 * 2.4 / 1.055 * ((linear_to_srgb(torch.tensor(level)).item() + 0.055) / 1.055) ** 1.4
    expected = sigma**2 * ((1 - read_share) * level / 0.18 + read_share) + step**2 / 12
    assert light.mean() == pytest.approx(level, rel=2e-3)
    assert light.var() == pytest.approx(expected, rel=0.03)


def test_noise_after_another_operation_is_that_of_the_float_path(any_size_is_large, photo):
    operations = (HAZE, Operation(name="noise", amount=0.02, seed=9))
    expected = fused.to_samples(apply_operations(fused.from_samples(photo), operations))
    found = apply_to_samples(photo, operations)
    assert (found != expected).mean() < 0.01  # a last bit of light seldom makes another count


@pytest.mark.parametrize("mean", [0.0, 0.02, 0.7, 5.0, 42.0, 3000.0])
def test_photons_by_table_are_poisson_by_chi_square(mean):
    codes = np.full((100, 1000, 3), 2, np.uint8)
    light = np.empty((3, 100, 1000), np.float32)
    count_photons(codes, light, photon_tables(np.array([7.0, 0.0, mean])), 1.0, 11, 0, 100)
    counts = light.astype(np.int64)
    if mean == 0:
        assert not counts.any()
        return
    assert counts.mean() == pytest.approx(mean, abs=5 * (mean / counts.size) ** 0.5)
    k = np.arange(counts.max() + 2)
    expected = scipy.stats.poisson.pmf(k, mean) * counts.size
    found = np.bincount(counts.ravel(), minlength=len(k))
    usual = expected > 10
    statistic = ((found - expected)[usual] ** 2 / expected[usual]).sum()
    assert scipy.stats.chi2.sf(statistic, usual.sum() - 1) > 1e-3
    for a, b in ((counts[0], counts[1]), (counts[:, 1:], counts[:, :-1]), (counts[..., 1:], counts[..., :-1])):
        assert abs(np.corrcoef(a.ravel(), b.ravel())[0, 1]) < 0.02


def test_results_do_not_depend_on_threads_or_strips(any_size_is_large, photo_factory, three_threads, monkeypatch):
    photo = fused.to_samples(photo_factory(300, 400, seed=1))
    for operations in ((*TONE, HAZE), (Operation(name="noise", amount=0.03, seed=2),)):
        found = apply_to_samples(photo, operations)
        torch.set_num_threads(1)
        monkeypatch.setattr(samples, "_LINES", 7)
        assert np.array_equal(apply_to_samples(photo, operations), found)
        torch.set_num_threads(3)


def test_tiles_join_without_a_seam(any_size_is_large, monkeypatch):
    photo = np.random.default_rng(0).integers(0, 256, (130, 171, 3), dtype=np.uint8)
    light = np.empty((3, 130, 171), np.float32)
    read_light(photo, light)
    for operation, kernel in (
        (DISC, disc_kernel(0.03 * 130)),
        (
            Operation(name="motion_blur", amount=0.05, seed=8),
            trajectory_kernel(0.05 * 130, torch.Generator().manual_seed(8)),
        ),
    ):
        expected = scipy.ndimage.convolve(light.astype(np.float64), kernel.numpy()[None], mode="reflect")
        expected = linear_to_srgb(torch.tensor(expected).clamp(0, 1)).permute(1, 2, 0).numpy() * 255
        for tile in (40, 256):
            monkeypatch.setattr(samples, "_TILE", tile)
            assert np.abs(apply_to_samples(photo, (operation,)) - expected).max() < 0.51


def test_every_light_gets_the_nearest_code():
    light = torch.cat((torch.linspace(-0.1, 1.1, 100_003), torch.arange(256) / 255)).repeat(3, 1, 1)
    found = np.empty((1, light.shape[-1], 3), np.uint8)
    write_light(light.numpy(), found)
    exact = linear_to_srgb(light.double().clamp(0, 1)).permute(1, 2, 0).numpy() * 255
    assert np.abs(found - exact).max() <= 0.5 + 1e-4
    codes = np.arange(256, dtype=np.uint8).repeat(3).reshape(1, 256, 3)
    decoded = np.empty((3, 1, 256), np.float32)
    read_light(codes, decoded)
    again = np.empty_like(codes)
    write_light(decoded, again)
    assert np.array_equal(again, codes)


def test_small_photos_and_other_operations_keep_their_bytes(photo):
    operations = (DISC, *TONE, Operation(name="bokeh", amount=0.05, seed=1))
    expected = fused.to_samples(apply_operations(fused.from_samples(photo), operations))
    assert np.array_equal(apply_to_samples(photo, operations), expected)
    kept = photo.copy()
    assert np.array_equal(apply_to_samples(photo, ()), photo) and np.array_equal(photo, kept)
