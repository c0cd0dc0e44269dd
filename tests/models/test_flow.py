"""The schedule against diffusers' pipeline and scheduler, and training levels against the levels of inference."""

import numpy as np
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from diffusers.pipelines.qwenimage.pipeline_qwenimage_edit_plus import calculate_shift, retrieve_timesteps
from scipy.stats import kstest

from components.models.flow import flow_matching_loss, inference_sigmas, interpolate, shift_exponent, training_sigmas
from tools.base_models.artist import build_scheduler

TOKENS = (48, 64, 256, 4096, 8192)


@pytest.fixture
def scheduler() -> FlowMatchEulerDiscreteScheduler:
    return build_scheduler()


def test_the_scheduler_is_the_one_of_the_release(scheduler: FlowMatchEulerDiscreteScheduler) -> None:
    expected = {
        "base_image_seq_len": 256,
        "max_image_seq_len": 8192,
        "base_shift": 0.5,
        "max_shift": 0.9,
        "shift_terminal": 0.02,
        "use_dynamic_shifting": True,
        "time_shift_type": "exponential",
        "num_train_timesteps": 1000,
    }
    assert {name: scheduler.config[name] for name in expected} == expected


@pytest.mark.parametrize("tokens", TOKENS)
@pytest.mark.parametrize("steps", [2, 6, 20])
def test_inference_levels_are_those_of_the_pipeline(
    scheduler: FlowMatchEulerDiscreteScheduler, tokens: int, steps: int
) -> None:
    mu = calculate_shift(tokens, 256, 8192, 0.5, 0.9)
    assert shift_exponent(scheduler, tokens) == pytest.approx(mu)
    reference = build_scheduler()
    retrieve_timesteps(reference, steps, sigmas=np.linspace(1.0, 0.0, steps + 1)[:-1], mu=mu)
    found = inference_sigmas(scheduler, steps, tokens)
    torch.testing.assert_close(found, reference.sigmas)
    assert found[[0, -2, -1]].tolist() == pytest.approx([1, 0.02, 0], abs=1e-6)
    assert (found.diff() < 0).all()


def test_a_single_step_goes_all_the_way(scheduler: FlowMatchEulerDiscreteScheduler) -> None:
    assert inference_sigmas(scheduler, 1, 64).tolist() == [1, 0]


@pytest.mark.parametrize("tokens", TOKENS)
def test_training_levels_follow_the_inference_distribution(
    scheduler: FlowMatchEulerDiscreteScheduler, tokens: int
) -> None:
    """An Euler run of many steps visits its levels at equal rates: its sorted levels are the quantile function."""
    visited = inference_sigmas(scheduler, 1000, tokens)[:-1].flip(0).double().numpy()
    rates = np.linspace(0.001, 1.0, 1000)
    drawn = training_sigmas(scheduler, 20000, tokens, torch.Generator().manual_seed(0)).double().numpy()
    assert drawn.min() > 0.02 - 1e-6 and drawn.max() <= 1
    assert kstest(drawn, lambda level: np.interp(level, visited, rates)).pvalue > 1e-3
    unshifted = kstest(drawn, "uniform").pvalue
    assert unshifted < 1e-9, "the test could tell the shift"
    quantiles = np.array([0.05, 0.25, 0.5, 0.75, 0.95])
    np.testing.assert_allclose(np.quantile(drawn, quantiles), np.interp(quantiles, rates, visited), atol=0.01)


@pytest.mark.parametrize("tokens", TOKENS)
def test_a_training_level_is_where_a_long_run_is_after_that_share_of_its_steps(
    scheduler: FlowMatchEulerDiscreteScheduler, tokens: int
) -> None:
    visited = inference_sigmas(scheduler, 1000, tokens)[:-1].flip(0).double().numpy()
    drawn = training_sigmas(scheduler, 2000, tokens, torch.Generator().manual_seed(0)).double().numpy()
    share = torch.rand(2000, generator=torch.Generator().manual_seed(0)).double().numpy()
    np.testing.assert_allclose(drawn, np.interp(share, np.linspace(0.001, 1.0, 1000), visited), atol=1e-4)


def test_every_level_of_a_short_run_was_trained_on(scheduler: FlowMatchEulerDiscreteScheduler) -> None:
    drawn = training_sigmas(scheduler, 20000, 64, torch.Generator().manual_seed(0))
    for level in inference_sigmas(scheduler, 20, 64)[:-1].tolist():
        assert ((drawn - level).abs() < 0.02).any(), level


def test_without_a_terminal_level_the_shift_alone_remains() -> None:
    scheduler = FlowMatchEulerDiscreteScheduler.from_config(build_scheduler().config, shift_terminal=None)
    drawn = training_sigmas(scheduler, 1000, 64, torch.Generator().manual_seed(0))
    uniform = torch.rand(1000, generator=torch.Generator().manual_seed(0)).clamp(min=1e-4)
    e = np.exp(calculate_shift(64, 256, 8192, 0.5, 0.9))
    torch.testing.assert_close(drawn, e / (e + 1 / uniform - 1))


def test_training_levels_come_from_the_generator(scheduler: FlowMatchEulerDiscreteScheduler) -> None:
    a, b, c = (training_sigmas(scheduler, 8, 64, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1))
    assert torch.equal(a, b) and not torch.equal(a, c)


def test_the_path_runs_straight_from_picture_to_noise() -> None:
    generator = torch.Generator().manual_seed(0)
    clean, noise = (torch.randn(4, 6, 8, generator=generator, dtype=torch.float64) for _ in range(2))
    sigmas = torch.tensor([0.0, 0.3, 0.7, 1.0], dtype=torch.float64)
    path = interpolate(clean, noise, sigmas)
    assert torch.equal(path[0], clean[0]) and torch.equal(path[3], noise[3])
    step = 1e-6
    slope = (interpolate(clean, noise, sigmas + step) - path) / step
    torch.testing.assert_close(slope, noise - clean, atol=1e-8, rtol=1e-6)
    assert (flow_matching_loss(slope, clean, noise) < 1e-12).all()
    loss = flow_matching_loss(slope + torch.tensor([1.0, 2.0, 3.0, 4.0])[:, None, None], clean, noise)
    torch.testing.assert_close(loss, torch.tensor([1.0, 4.0, 9.0, 16.0], dtype=torch.float64))
