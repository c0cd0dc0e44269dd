"""Low-rank adapters on a model (Hu et al. 2021), several of them at a time, through PEFT."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from pydantic import Field
from torch import Tensor, nn

from components.parallel.ranks import is_main
from components.parallel.sharding import is_sharded, whole
from components.strict import Strict

CURRENT = "default"
"""The adapter that is trained; PEFT saves it at the top of the adapter directory."""


class LoraSettings(Strict):
    """Size of an adapter: the update of a weight is alpha / rank * B A."""

    rank: int = Field(default=32, gt=0)
    alpha: int = Field(default=64, gt=0)


def add_adapter(model: nn.Module, targets: str | list[str], settings: LoraSettings, seed: int) -> PeftModel:
    """Wrap a model with a fresh trainable adapter: gaussian A, zero B, so that nothing changes at first."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        config = LoraConfig(
            r=settings.rank, lora_alpha=settings.alpha, init_lora_weights="gaussian", target_modules=targets
        )
        return get_peft_model(model, config)


def copy_adapter(model: PeftModel, name: str, folder: Path) -> None:
    """Load a saved adapter beside the current one under another name, frozen and inactive."""
    model.load_adapter(str(folder), adapter_name=name, is_trainable=False)


def save_adapter(model: PeftModel, out: Path, name: str = CURRENT) -> None:
    """Write an adapter as `adapter_config.json` and `adapter_model.safetensors`, the same whether sharded or not.

    Every rank must call it; the main one writes.
    """
    tensors = None
    if is_sharded(model):
        tensors = {n: whole(t) for n, t in model.state_dict().items() if "lora_" in n and f".{name}." in n}
    if is_main():
        model.save_pretrained(out, selected_adapters=[name], state_dict=tensors)


def adapter_tensors(model: PeftModel, name: str = CURRENT) -> dict[str, nn.Parameter]:
    """Parameters of one adapter, by their names without the adapter's, so that adapters can be compared."""
    parameters = ((n, p) for n, p in model.named_parameters() if "lora_" in n and f".{name}." in n)
    return {n.replace(f".{name}.", "."): p for n, p in parameters}


@contextmanager
def active_adapter(model: PeftModel, name: str) -> Iterator[None]:
    """Compute with another adapter for a while; what is trained, and what was active before, stays as it was."""
    trained: list[Tensor] = [p for p in model.parameters() if p.requires_grad]
    before = model.active_adapter
    model.set_adapter(name)
    try:
        yield
    finally:
        model.set_adapter(before)
        model.requires_grad_(False)
        for parameter in trained:
            parameter.requires_grad_(True)
