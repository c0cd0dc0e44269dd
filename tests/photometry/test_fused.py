"""Compiled loops against their definitions in float64, scipy's Poisson distribution, and any number of threads."""

import numpy as np
import pytest
import scipy.stats
import torch

from components.photometry import fused
from components.photometry.adjustments import adjust
from components.photometry.colour import linear_to_srgb, srgb_to_linear
from components.photometry.photons import photon_noise

VALUES = torch.cat((torch.linspace(-0.5, 4.0, 40_001), torch.tensor([0.0, 1.0, 0.04045, 0.0031308, -0.04045, 1e-30])))


def test_decoding_is_that_of_the_standard():
    expected = srgb_to_linear(VALUES.double())
    torch.testing.assert_close(fused.decode(VALUES).double(), expected, rtol=3e-6, atol=1e-7)


def test_encoding_is_that_of_the_standard_within_gamut():
    expected = linear_to_srgb(VALUES.double().clamp(0, 1))
    torch.testing.assert_close(fused.encode(VALUES).double(), expected, rtol=0, atol=5e-7)


def test_every_8_bit_code_survives_the_round_trip():
    codes = torch.arange(256) / 255
    assert torch.equal((fused.encode(fused.decode(codes)) * 255).round(), torch.arange(256.0))


@pytest.mark.parametrize("mean", [0.02, 0.7, 5.0, 9.9, 10.1, 42.0, 3000.0])
def test_photon_counts_are_poisson_by_chi_square(mean):
    counts = photon_noise(torch.full((300, 1000), mean), 1.0, seed=11).numpy().astype(np.int64)
    assert counts.mean() == pytest.approx(mean, abs=5 * (mean / counts.size) ** 0.5)
    k = np.arange(counts.max() + 2)
    expected = scipy.stats.poisson.pmf(k, mean) * counts.size
    found = np.bincount(counts.ravel(), minlength=len(k))
    usual = expected > 10
    statistic = ((found - expected)[usual] ** 2 / expected[usual]).sum()
    assert scipy.stats.chi2.sf(statistic, usual.sum() - 1) > 1e-3


def test_neighbouring_pixels_lines_and_seeds_are_independent():
    counts = photon_noise(torch.full((400, 400), 30.0), 1.0, seed=3).double().numpy() - 30
    other = photon_noise(torch.full((400, 400), 30.0), 1.0, seed=4).double().numpy() - 30
    for a, b in ((counts[1:], counts[:-1]), (counts[:, 1:], counts[:, :-1]), (counts, other)):
        assert abs(np.corrcoef(a.ravel(), b.ravel())[0, 1]) < 0.012


def test_no_light_gives_no_photons():
    assert photon_noise(torch.zeros(3, 4, 5), 0.01, seed=0).abs().max() == 0


def test_results_do_not_depend_on_threads(photo_factory):
    photo = photo_factory(360, 500)
    matrices, before = [torch.eye(3), torch.eye(3)], torch.get_num_threads()
    results = []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            light = fused.decode(photo)
            retouched = fused.retouch(photo, matrices, [1.2], [0.8])
            results.append((light, fused.encode(light), photon_noise(light, 0.001, 5), retouched))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


@pytest.mark.parametrize("function", [fused.decode, fused.encode, fused.to_samples, lambda x: adjust(x, [])])
@pytest.mark.parametrize(
    ("spoil", "found"),
    [
        (lambda x: x.double(), "torch.float64 on cpu"),
        (lambda x: x.to("meta"), "torch.float32 on meta"),
        (lambda x: x.clone().requires_grad_(), "on cpu that asks for a gradient"),
    ],
)
def test_other_pictures_are_refused(photo, function, spoil, found):
    with pytest.raises(ValueError, match=rf"float32 picture in main memory and no gradient, found .*{found}"):
        function(spoil(photo))


def test_pictures_that_are_not_contiguous_are_read_right(photo):
    turned = photo.transpose(-1, -2)
    assert torch.equal(fused.decode(turned), fused.decode(photo).transpose(-1, -2))


def test_samples_become_pictures_and_come_back(photo_factory):
    samples = np.random.default_rng(0).integers(0, 256, (37, 53, 3), dtype=np.uint8)
    picture = fused.from_samples(samples)
    assert np.array_equal(picture.numpy(), np.moveaxis(samples.astype(np.float32) / np.float32(255), -1, 0))
    assert np.array_equal(fused.to_samples(picture), samples)
    values = 3 * torch.rand(3, 40, 50, generator=torch.Generator().manual_seed(1)) - 1
    values[0, 0, :3] = torch.tensor([0.5 / 255, 1.5 / 255, 254.5 / 255])
    expected = (values.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    assert np.array_equal(fused.to_samples(values), expected)


def test_huge_counts_stay_poisson():
    light = torch.full((100, 1000), 0.5)
    counts = photon_noise(light, 1e-10, seed=2).double() / 1e-10
    assert counts.mean().item() == pytest.approx(5e9, rel=1e-5)
