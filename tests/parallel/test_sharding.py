"""Batches in parts: the same loss, gradient and noise as all at once."""

from functools import partial

import pytest
import torch
from torch import nn

from components.models.artist import Artist
from components.models.critic import ReasoningLatent
from components.models.lora import LoraSettings, adapter_tensors
from components.parallel import ranks, sharding
from components.parallel.sharding import accumulate, in_step, slices
from components.training.artist_sft import draw_noise, pair_loss, part_losses
from components.training.batches import PairBatches
from tests.stage_three import Inputs


def test_slices_cover_every_row_once() -> None:
    assert slices(5, None) == [slice(0, 5)] and slices(5, 9) == [slice(0, 5)] and slices(0, 3) == []
    assert slices(5, 2) == [slice(0, 2), slice(2, 4), slice(4, 5)]


@pytest.mark.parametrize("sizes", [(7,), (3, 4), (1, 5, 1)])
def test_parts_add_up_to_the_gradient_of_the_batch(sizes: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(0)
    data = torch.randn(7, 5, generator=generator, dtype=torch.float64)
    model = nn.Linear(5, 1).double()

    def loss(rows: torch.Tensor) -> torch.Tensor:
        return model(rows).square().sum() / 7

    whole = loss(data)
    expected = torch.autograd.grad(whole, list(model.parameters()))
    most: list[int] = []

    def counted(rows: torch.Tensor) -> torch.Tensor:
        most.append(len(rows))
        return loss(rows)

    parts = [partial(counted, rows) for rows in data.split(sizes)]
    assert [part() for part in in_step(model, parts)] == [loss(rows) for rows in data.split(sizes)]
    most.clear()
    total = accumulate(model, parts)
    torch.testing.assert_close(total, whole)
    total.backward()
    torch.testing.assert_close([p.grad for p in model.parameters()], list(expected))
    assert most == list(sizes), "each part is computed once"


def test_where_ranks_wait_for_each_other_they_have_as_many_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sharding, "is_sharded", lambda model: True)
    monkeypatch.setattr(ranks, "all_reduce_max", lambda count: count + 2)
    model, passes = nn.Linear(3, 1), []

    def loss(value: float) -> torch.Tensor:
        passes.append(value)
        return model(torch.full((3,), value)).sum()

    parts = [partial(loss, 1.0), partial(loss, 2.0)]
    total = accumulate(model, parts)
    total.backward()
    assert passes == [1.0, 2.0, 2.0, 2.0]
    torch.testing.assert_close(total, sum(part() for part in parts))
    torch.testing.assert_close(model.weight.grad, torch.full((1, 3), 3.0))


@pytest.fixture
def artist(inputs: Inputs) -> Artist:
    loaded = Artist.load(inputs.base / "artist")
    loaded.add_adapter(LoraSettings(rank=2, alpha=4), seed=0)
    with torch.no_grad():
        for index, parameter in enumerate(adapter_tensors(loaded.transformer).values()):
            parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(index)) / 10)
    return loaded


@pytest.mark.parametrize("at_once", [2, 3])
def test_a_batch_of_pairs_in_parts_meets_the_noise_of_the_whole(inputs: Inputs, artist: Artist, at_once: int) -> None:
    batch = PairBatches(inputs.pairs, "train", ["enhancement"], artist).draw(3, torch.Generator().manual_seed(0))
    width = artist.transformer.config.joint_attention_dim
    states = torch.randn(3, 4, width, generator=torch.Generator().manual_seed(1))
    latent = ReasoningLatent(states, torch.ones(3, 4, dtype=torch.bool))
    parameters = list(adapter_tensors(artist.transformer).values())
    generator = torch.Generator().manual_seed(5)
    whole = pair_loss(artist, batch, latent, draw_noise(artist, batch, generator))
    after = generator.get_state()
    expected = torch.autograd.grad(whole, parameters, allow_unused=True)  # the last block's text leads nowhere
    generator.manual_seed(5)
    parts = part_losses(artist, batch, latent, generator, at_once)
    assert len(parts) == -(-3 // at_once)
    total = accumulate(artist.transformer, parts)
    total.backward()
    torch.testing.assert_close(total, whole)
    for parameter, gradient in zip(parameters, expected, strict=True):
        if gradient is None:
            assert parameter.grad is None
        else:
            torch.testing.assert_close(parameter.grad, gradient, atol=1e-6, rtol=1e-4)
    assert torch.equal(generator.get_state(), after), "what is drawn next does not depend on the parts"
    if at_once == 3:
        assert torch.equal(total, whole)
