"""Adapters against the formula alpha / rank * B A, and several of them on one model without getting mixed up."""

import json
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from torch import Tensor, nn

from components.models.lora import (
    AdaptedLinear,
    LoraSettings,
    active_adapter,
    adapter_tensors,
    add_adapter,
    copy_adapter,
    load_adapter,
    put_adapter,
    quick_adapters,
    without_adapter,
)

INPUT = torch.linspace(-1, 1, 12).view(2, 6)


class Network(nn.Module):
    """Two layers, one of which is adapted."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(torch.tanh(self.first(x)))


def build(seed: int = 1, rank: int = 2, alpha: int = 6) -> PeftModel:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = Network()
    return add_adapter(network, ["first"], LoraSettings(rank=rank, alpha=alpha), seed)


def teach(model: PeftModel, name: str = "default", seed: int = 0) -> None:
    for index, parameter in enumerate(adapter_tensors(model, name).values()):
        nn.init.normal_(parameter, generator=torch.Generator().manual_seed(10 * seed + index))


@pytest.fixture
def three(tmp_path: Path) -> PeftModel:
    """A model with the adapters default, old and reference, all different."""
    model = build()
    teach(model, seed=1)
    model.save_pretrained(tmp_path)
    for seed, name in enumerate(("old", "reference"), start=2):
        copy_adapter(model, name, tmp_path)
        teach(model, name, seed)
    return model


def test_a_fresh_adapter_is_gaussian_times_zero() -> None:
    model = build(rank=2)
    tensors = adapter_tensors(model)
    assert {name.split("first.")[1] for name in tensors} == {"lora_A.weight", "lora_B.weight"}
    a, b = tensors.values()
    assert a.shape == (2, 6) and b.shape == (8, 2)
    assert (b == 0).all() and a.std() > 0.1
    plain = model.get_base_model()
    with model.disable_adapter():
        expected = plain(INPUT)
    assert torch.equal(model(INPUT), expected)
    assert {n for n, p in model.named_parameters() if p.requires_grad} == {
        n for n, _ in model.named_parameters() if "lora_" in n
    }


def test_the_update_is_alpha_over_rank_times_b_a() -> None:
    model = build(rank=2, alpha=6)
    teach(model)
    a, b = adapter_tensors(model).values()
    layer = model.get_base_model().first
    weight = layer.base_layer.weight + 6 / 2 * b @ a
    torch.testing.assert_close(layer(INPUT), nn.functional.linear(INPUT, weight, layer.base_layer.bias))


def test_the_seed_decides_and_global_randomness_is_left_alone() -> None:
    before = torch.get_rng_state()
    first, again, other = (next(iter(adapter_tensors(build(seed)).values())) for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_copy_is_frozen_inactive_and_its_own(tmp_path: Path) -> None:
    model = build()
    teach(model)
    before = model(INPUT)
    model.save_pretrained(tmp_path)
    copy_adapter(model, "reference", tmp_path)
    assert torch.equal(model(INPUT), before) and model.active_adapter == "default"
    current, copy = adapter_tensors(model), adapter_tensors(model, "reference")
    assert current.keys() == copy.keys()
    for name, parameter in current.items():
        assert torch.equal(copy[name], parameter) and copy[name].data_ptr() != parameter.data_ptr()
        assert parameter.requires_grad and not copy[name].requires_grad
    with torch.no_grad():
        current[name].add_(1)
    with active_adapter(model, "reference"):
        assert torch.equal(model(INPUT), before)


def test_another_adapter_is_active_only_inside(three: PeftModel) -> None:
    trained = {name for name, parameter in three.named_parameters() if parameter.requires_grad}
    outputs = {}
    for name in ("old", "reference", "default"):
        with active_adapter(three, name):
            outputs[name] = three(INPUT)
        assert three.active_adapter == "default"
        assert {n for n, p in three.named_parameters() if p.requires_grad} == trained
    assert torch.equal(three(INPUT), outputs["default"])
    assert len({tuple(output.flatten().tolist()) for output in outputs.values()}) == 3


def test_the_state_is_put_back_after_an_error_and_from_within(three: PeftModel) -> None:
    trained = {name for name, parameter in three.named_parameters() if parameter.requires_grad}
    with pytest.raises(KeyboardInterrupt), active_adapter(three, "old"), active_adapter(three, "reference"):
        raise KeyboardInterrupt
    assert three.active_adapter == "default"
    assert {n for n, p in three.named_parameters() if p.requires_grad} == trained
    with active_adapter(three, "old"):
        old = three(INPUT)
        with active_adapter(three, "reference"):
            three(INPUT)
        assert torch.equal(three(INPUT), old)


def test_only_the_current_adapter_learns(three: PeftModel) -> None:
    before = {name: parameter.detach().clone() for name, parameter in three.named_parameters()}
    with torch.no_grad(), active_adapter(three, "reference"):
        target = three(INPUT)
    (three(INPUT) - target).square().mean().backward()
    moved = {name for name, parameter in three.named_parameters() if parameter.grad is not None}
    assert moved == {name for name in before if "lora_" in name and ".default." in name}


def test_quick_adapters_compute_the_same_to_the_bit(three: PeftModel) -> None:
    expected = {}
    for name in ("default", "old"):
        with active_adapter(three, name):
            expected[name] = three(INPUT)
    assert not torch.equal(expected["default"], expected["old"])
    layer = three.get_base_model().first
    for name, values in expected.items():
        with active_adapter(three, name), quick_adapters(three):
            assert "forward" in vars(layer)
            assert torch.equal(three(INPUT), values)
        assert "forward" not in vars(layer)
    with three.disable_adapter():
        plain = three(INPUT)
        with quick_adapters(three):
            assert torch.equal(three(INPUT), plain)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_adapter_that_is_only_used_computes_what_pefts_does_to_the_bit(tmp_path: Path, dtype: torch.dtype) -> None:
    model = build()
    teach(model)
    model.save_pretrained(tmp_path)
    base, other = Network().to(dtype), Network().to(dtype)
    other.load_state_dict(base.state_dict())
    x = INPUT.to(dtype)
    before = base(x)
    peft, used = load_adapter(base, tmp_path), put_adapter(other, tmp_path)
    assert type(used.first) is AdaptedLinear and type(used.second) is nn.Linear and used is without_adapter(used)
    assert torch.equal(used(x), peft(x)) and used(x).dtype == dtype and not torch.equal(used(x), before)
    assert torch.equal(used.first.weight, other.first.base_layer.weight) and used.first.bias is not None
    assert not any(p.requires_grad for name, p in used.named_parameters() if "lora_" in name)


@pytest.mark.parametrize("more", [{"use_rslora": True}, {"use_dora": True}, {"a_later_kind": "of update"}])
def test_peft_puts_adapters_that_are_more_than_plain(tmp_path: Path, more: dict) -> None:
    model = build()
    teach(model)
    model.save_pretrained(tmp_path)
    config = tmp_path / "adapter_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | more))
    used = put_adapter(Network(), tmp_path)
    assert isinstance(used, PeftModel) and isinstance(without_adapter(used), Network)


def test_quick_adapters_follow_weights_that_are_replaced(three: PeftModel) -> None:
    layer = three.get_base_model().first
    with quick_adapters(three), torch.no_grad():
        layer.lora_B["default"].weight = nn.Parameter(torch.zeros(8, 2))
        quick = three(INPUT)
    assert torch.equal(quick, three(INPUT))
    with three.disable_adapter():
        assert torch.equal(quick, three(INPUT))
