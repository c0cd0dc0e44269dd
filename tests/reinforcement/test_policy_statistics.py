"""Pass rates of groups, and the drift of adapters against the weights that they make."""

from pathlib import Path

import pytest
import torch
from peft import PeftModel
from torch import nn

from components.models.lora import LoraSettings, adapter_tensors, add_adapter, copy_adapter
from components.reinforcement.policy_statistics import AdapterDrift, pass_rates


def test_pass_rates_of_groups() -> None:
    passed = torch.tensor([[1, 1, 1], [0, 0, 0], [1, 0, 0], [0, 0, 0]], dtype=torch.bool)
    assert pass_rates(passed) == {
        "pass_rate": pytest.approx(4 / 12),
        "groups_all_passed": 0.25,
        "groups_all_failed": 0.5,
    }


def adapted(folder: Path, seed: int, zero: bool = False) -> PeftModel:
    """Two linear layers with a random adapter, and a copy of it, or of one that does nothing, as reference."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        base = nn.Sequential(nn.Linear(6, 5), nn.Linear(5, 7))
    model = add_adapter(base, ["0", "1"], LoraSettings(rank=2, alpha=6), seed)
    generator = torch.Generator().manual_seed(seed)
    if not zero:
        for parameter in adapter_tensors(model).values():
            nn.init.normal_(parameter, generator=generator)
    model.save_pretrained(folder)
    copy_adapter(model, "reference", folder)
    return model


def test_drift_is_of_the_weights_that_the_adapters_make(tmp_path: Path) -> None:
    model = adapted(tmp_path, 0)
    drift = AdapterDrift(model)
    assert drift.measure() == {"drift_base": pytest.approx(0, abs=1e-7), "drift_reference": pytest.approx(0, abs=1e-7)}
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in adapter_tensors(model).values():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    squares = torch.zeros(3, dtype=torch.float64)
    for layer in (model.base_model.model[0], model.base_model.model[1]):
        now, start = (
            3.0 * (layer.lora_B[name].weight @ layer.lora_A[name].weight).double() for name in ("default", "reference")
        )
        squares += torch.stack([x.detach().square().sum() for x in (now - start, layer.base_layer.weight, start)])
    moved, weights, start = squares.sqrt().tolist()
    measured = drift.measure()
    assert measured["drift_base"] == pytest.approx(moved / weights, rel=1e-6)
    assert measured["drift_reference"] == pytest.approx(moved / start, rel=1e-6)


def test_a_reference_that_does_nothing_is_no_measure(tmp_path: Path) -> None:
    model = adapted(tmp_path, 2, zero=True)
    drift = AdapterDrift(model)
    assert drift.measure() == {"drift_base": 0.0}
