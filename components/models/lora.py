"""Low-rank adapters on a model (Hu et al. 2021), several of them at a time, through PEFT.

A model that is only used and has one plain adapter gets it without PEFT (`put_adapter`), which takes long to import;
the values are the same to the bit.
"""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from pydantic import Field
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.functional import linear

from components.parallel.ranks import is_main
from components.parallel.sharding import is_sharded, whole
from components.strict import Strict

if TYPE_CHECKING:
    from peft import PeftModel
    from peft.tuners.lora import Linear

CURRENT = "default"
"""The adapter that is trained; PEFT saves it at the top of the adapter directory."""
CONFIG_FILE, TENSORS_FILE = "adapter_config.json", "adapter_model.safetensors"
_PREFIX = "base_model.model."  # of PEFT's names
_PLAIN = {"peft_type": ("LORA",), "bias": ("none",), "init_lora_weights": (True, "gaussian")}
_HALF = (torch.float16, torch.bfloat16)  # adapters are computed in float32 beside such weights
_DESCRIPTIVE = frozenset(
    {
        "auto_mapping",
        "base_model_name_or_path",
        "inference_mode",
        "lora_alpha",
        "lora_dropout",  # while training
        "megatron_core",
        "peft_version",
        "qalora_group_size",
        "r",
        "revision",
        "target_modules",
        "task_type",
    }
)
"""What a configuration may hold without the adapter being more than alpha / rank * B A."""


class LoraSettings(Strict):
    """Size of an adapter: the update of a weight is alpha / rank * B A."""

    rank: int = Field(default=32, gt=0, description="Rank of the update.")
    alpha: int = Field(default=64, gt=0, description="The update is scaled by alpha / rank.")


def add_adapter(model: nn.Module, targets: str | list[str], settings: LoraSettings, seed: int) -> "PeftModel":
    """Wrap a model with a fresh trainable adapter: gaussian A, zero B, so that nothing changes at first."""
    from peft import LoraConfig, get_peft_model

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        config = LoraConfig(
            r=settings.rank, lora_alpha=settings.alpha, init_lora_weights="gaussian", target_modules=targets
        )
        return get_peft_model(model, config)


class AdaptedLinear(nn.Module):
    """A linear layer with a plain adapter, neither of which is trained: W x + b + scaling * B A x."""

    def __init__(self, base_layer: nn.Linear, a: Tensor, b: Tensor, scaling: float):
        super().__init__()
        self.base_layer, self.scaling = base_layer, scaling
        self.lora_A, self.lora_B = nn.Parameter(a, requires_grad=False), nn.Parameter(b, requires_grad=False)

    @property
    def weight(self) -> Tensor:
        """Of the layer beneath."""
        return self.base_layer.weight

    @property
    def bias(self) -> Tensor | None:
        """Of the layer beneath."""
        return self.base_layer.bias

    def forward(self, x: Tensor) -> Tensor:
        return _adapted(x, self.base_layer, self.lora_A, self.lora_B, self.scaling)


def put_adapter(model: nn.Module, folder: Path) -> nn.Module:
    """Put a saved adapter on a model that is used and not trained; returns the model, wrapped or not.

    Linear layers get a plain adapter without PEFT, which looks after several adapters of many kinds; the values are
    those that PEFT computes, to the bit. PEFT does the others.
    """
    config = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
    tensors = load_file(folder / TENSORS_FILE) if (folder / TENSORS_FILE).is_file() else {}
    paths = {name.removeprefix(_PREFIX).rpartition(".lora_")[0] for name in tensors}
    modules = dict(model.named_modules())
    expected = {f"{_PREFIX}{path}.lora_{which}.weight" for path in paths for which in "AB"}
    if not (
        tensors
        and _is_plain_config(config)
        and set(tensors) == expected
        and all(type(modules.get(path)) is nn.Linear for path in paths)
    ):
        return load_adapter(model, folder)
    for path in paths:
        parent, _, name = path.rpartition(".")
        base = modules[path]
        a, b = (tensors[f"{_PREFIX}{path}.lora_{which}.weight"] for which in "AB")
        a, b = (t.to(base.weight.device, torch.float32 if t.dtype in _HALF else t.dtype) for t in (a, b))
        setattr(modules[parent], name, AdaptedLinear(base, a, b, config["lora_alpha"] / config["r"]))
    return model


def load_adapter(model: nn.Module, folder: Path, trainable: bool = False) -> "PeftModel":
    """Wrap a model with a saved adapter, which others can be put beside, and trained."""
    from peft import PeftModel

    return PeftModel.from_pretrained(model, folder, is_trainable=trainable)


def without_adapter(model: nn.Module) -> Any:
    """The model beneath PEFT's wrapper, or the model itself where there is none."""
    beneath = getattr(model, "get_base_model", None)
    return model if beneath is None else beneath()


def _is_plain_config(config: dict[str, Any]) -> bool:
    """Whether an adapter is alpha / rank * B A and no more, also by what a later PEFT may add to its configuration."""
    return all(
        value in _PLAIN[name] if name in _PLAIN else name in _DESCRIPTIVE or not value for name, value in config.items()
    )


def copy_adapter(model: "PeftModel", name: str, folder: Path) -> None:
    """Load a saved adapter beside the current one under another name, frozen and inactive."""
    model.load_adapter(str(folder), adapter_name=name, is_trainable=False)


def save_adapter(model: "PeftModel", out: Path, name: str = CURRENT) -> None:
    """Write an adapter as `adapter_config.json` and `adapter_model.safetensors`, the same whether sharded or not.

    Every rank must call it; the main one writes.
    """
    tensors = None
    if is_sharded(model):
        tensors = {n: whole(t) for n, t in model.state_dict().items() if "lora_" in n and f".{name}." in n}
    if is_main():
        model.save_pretrained(out, selected_adapters=[name], state_dict=tensors)


def adapter_tensors(model: "PeftModel", name: str = CURRENT) -> dict[str, nn.Parameter]:
    """Parameters of one adapter, by their names without the adapter's, so that adapters can be compared."""
    parameters = ((n, p) for n, p in model.named_parameters() if "lora_" in n and f".{name}." in n)
    return {n.replace(f".{name}.", "."): p for n, p in parameters}


@contextmanager
def active_adapter(model: "PeftModel", name: str) -> Iterator[None]:
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
    peft = sys.modules.get("peft.tuners.lora.layer")  # not imported: no layer of a model is one of PEFT's
    layers = [m for m in model.modules() if peft and type(m) is peft.Linear and _is_plain(m)]
    for layer in layers:
        layer.forward = _plain_forward(layer)
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward


def _is_plain(layer: "Linear") -> bool:
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


def _plain_forward(layer: "Linear") -> Callable[[Tensor], Tensor]:
    (name,) = layer.active_adapters
    base, a, b, scaling = layer.base_layer, layer.lora_A[name], layer.lora_B[name], layer.scaling[name]

    def forward(x: Tensor) -> Tensor:  # the weights are looked up at each call: sharded ones come and go
        return _adapted(x, base, a.weight, b.weight, scaling)

    return forward


def _adapted(x: Tensor, base: nn.Linear, a: Tensor, b: Tensor, scaling: float) -> Tensor:
    """What PEFT computes of a plain adapter, in its order."""
    result = linear(x, base.weight, base.bias)
    update = linear(linear(x.to(a.dtype), a), b) * scaling
    return (result + update).to(result.dtype)
