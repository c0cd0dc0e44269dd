"""Traced memory against what real passes of small and mid-size models save, and what the allocator holds."""

import pytest
import torch

from components.models.artist import Grid
from components.models.published import size_of
from components.planning.memory import Tracer
from tests.planning.measured import (
    LORA,
    MIDDLE,
    MIDDLE_GRID,
    MIDDLE_TEXT,
    critic_pass,
    peak_bytes,
    saved_bytes,
    transformer_pass,
)
from tests.planning.small import small

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(("configurations", "grid", "text"), [(small(4), Grid(4, 6), 20), (MIDDLE, Grid(8, 8), 50)])
def test_what_the_transformer_keeps(configurations, grid: Grid, text: int) -> None:
    predicted = Tracer(configurations, torch.float32).transformer(grid, text, LORA)
    measured = saved_bytes(*transformer_pass(configurations, grid, text))
    assert predicted.kept == pytest.approx(measured, rel=0.05)


@pytest.mark.parametrize("configurations", [small(text_depth=3), small(text_depth=4, text_width=256)])
def test_what_the_critic_keeps(configurations) -> None:
    predicted = Tracer(configurations, torch.float32).language_model(120, 60, LORA)
    measured = saved_bytes(*critic_pass(configurations, 120, 60))
    assert predicted.kept == pytest.approx(measured, rel=0.1)


def test_checkpointing_keeps_less_and_works_more() -> None:
    tracer = Tracer(MIDDLE, torch.float32)
    plain, checkpointed = (tracer.transformer(MIDDLE_GRID, MIDDLE_TEXT, LORA, on) for on in (False, True))
    assert checkpointed.kept < plain.kept / 5
    assert checkpointed.workspace > plain.workspace
    assert checkpointed.peak < plain.peak / 2


def test_half_the_precision_keeps_less_but_not_half_since_adapters_are_float32() -> None:
    whole, half = (Tracer(MIDDLE, dtype).transformer(Grid(8, 8), 50, LORA) for dtype in (torch.float32, torch.bfloat16))
    assert 0.5 * whole.kept < half.kept < whole.kept


def test_the_policy_loss_holds_more_logits_than_cross_entropy() -> None:
    tracer = Tracer(small(), torch.float32)
    cross_entropy, policy = (tracer.language_model(40, 30, LORA, loss) for loss in ("cross_entropy", "policy"))
    logits = 30 * 512 * 4
    assert policy.peak > cross_entropy.peak + 0.9 * logits


def test_the_peak_is_what_the_allocator_held() -> None:
    predicted = Tracer(MIDDLE, torch.float32).transformer(MIDDLE_GRID, MIDDLE_TEXT, LORA)
    gradients = 4 * size_of(transformer_pass(MIDDLE, Grid(2, 2), 2)[0]).adapter
    _model, run = transformer_pass(MIDDLE, MIDDLE_GRID, MIDDLE_TEXT)
    assert predicted.peak + gradients == pytest.approx(peak_bytes(run), rel=0.02)
