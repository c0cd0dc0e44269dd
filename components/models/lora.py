"""Low-rank adapters on a model (Hu et al. 2021), several of them at a time, through PEFT."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import Linear
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import linear

from components.parallel.ranks import is_main
from components.parallel.sharding import is_sharded, whole
from components.strict import Strict

CURRENT = "default"
"""The adapter that is trained; PEFT saves it at the top of the adapter directory."""


class LoraSettings(Strict):
    """Size of an adapter: the update of a weight is alpha / rank * B A."""

    rank: int = Field(default=32, gt=0, description="Rank of the update.")
    alpha: int = Field(default=64, gt=0, description="The update is scaled by alpha / rank.")


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


@contextmanager
def quick_adapters(model: nn.Module) -> Iterator[None]:
    """Compute the active adapter's layers without PEFT's bookkeeping for a while; the values are the same to the bit.

    When one token after another is written, a layer is a few small products, and what PEFT asks itself at each (which
    adapters are active, merged, of which kind) takes as long as they do. Layers that are more than a plain adapter
    stay as they are. Adapters must not be switched meanwhile; nothing may be trained.
    """
    layers = [module for module in model.modules() if type(module) is Linear and _is_plain(module)]
    for layer in layers:
        layer.forward = _plain_forward(layer)
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward


def _is_plain(layer: Linear) -> bool:
    (name, *more) = layer.active_adapters
    return (
        not more
        and name in layer.lora_A
        and not layer.disable_adapters
        and not layer.merged
        and name not in layer.lora_variant
        and not layer.lora_bias[name]
        and isinstance(layer.lora_dropout[name], nn.Identity)
        and type(layer.base_layer) is nn.Linear
    )


def _plain_forward(layer: Linear) -> Callable[[Tensor], Tensor]:
    (name,) = layer.active_adapters
    base, a, b, scaling = layer.base_layer, layer.lora_A[name], layer.lora_B[name], layer.scaling[name]

    def forward(x: Tensor) -> Tensor:  # the weights are looked up at each call: sharded ones come and go
        result = linear(x, base.weight, base.bias)
        update = linear(linear(x.to(a.weight.dtype), a.weight), b.weight) * scaling
        return (result + update).to(result.dtype)

    return forward
