"""How much memory a piece of training holds, found by running it on tensors without data.

Under PyTorch's fake tensors every operation runs its shape and type rules and builds its autograd graph, but allocates
and computes nothing. A dispatch mode follows which storages are alive, so the figures hold for whatever the models'
code and PEFT really do, checkpointing and mixed precision included. Kernels' inner scratch space is not seen.
"""

import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter


@dataclass(frozen=True)
class Footprint:
    """Bytes that a forward and backward pass hold beside the parameters.

    Attributes:
        kept: alive between the forward and the backward pass: what autograd keeps, with the loss and the inputs.
        peak: the most that is alive at any time, gradients of the parameters left out.
    """

    kept: int
    peak: int

    @property
    def workspace(self) -> int:
        """What the busiest moment needs beyond `kept`."""
        return self.peak - self.kept


class LiveStorages(TorchDispatchMode):
    """Follows the bytes of all storages that operations create while it is active.

    Attributes:
        live: bytes that are alive now.
        peak: the most that was ever alive.
    """

    def __init__(self) -> None:
        super().__init__()
        self.live, self.peak = 0, 0
        self._followed: dict[int, _Storage] = {}

    def exclude(self, tensor: Tensor) -> None:
        """Count the storage of this tensor no longer, or never."""
        self._follow(tensor, 0).forget()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        for value in tree_iter(result):
            if isinstance(value, Tensor):
                self._follow(value, value.untyped_storage().nbytes())
        return result

    def _follow(self, tensor: Tensor, size: int) -> "_Storage":
        storage = tensor.untyped_storage()
        if storage._cdata not in self._followed:
            self._followed[storage._cdata] = _Storage(self, storage, size)
            self.peak = max(self.peak, self.live)
        return self._followed[storage._cdata]


class _Storage:
    """A live storage that counts; it gives its bytes back when it dies."""

    def __init__(self, owner: LiveStorages, storage: torch.UntypedStorage, size: int):
        self.owner, self.size, address = owner, size, storage._cdata
        owner.live += size

        def died(_: weakref.ref[torch.UntypedStorage]) -> None:
            del owner._followed[address]
            self.forget()

        self._reference = weakref.ref(storage, died)

    def forget(self) -> None:
        self.owner.live -= self.size
        self.size = 0


def footprint(
    build: Callable[[], nn.Module],
    run: Callable[[nn.Module], Tensor],
    dtype: torch.dtype = torch.float32,
    backward: bool = True,
) -> Footprint:
    """Trace one training step, or with `backward` off one inference pass, of a model.

    Args:
        build: makes the model on the default device, which is the meta device while it is called.
        run: makes inputs, runs the model on them and returns a scalar loss (any result without a backward pass).
        dtype: of the frozen weights; what is trained stays float32.
    """
    with torch.device("meta"):
        model = build()
    with FakeTensorMode():
        storages = LiveStorages()
        for tensor in _place(model, dtype):
            storages.exclude(tensor)
            if tensor.requires_grad:
                tensor.register_post_accumulate_grad_hook(lambda parameter: storages.exclude(parameter.grad))
        with storages, torch.set_grad_enabled(backward):
            result = run(model)
            kept = storages.live
            if backward:
                result.backward()
        return Footprint(kept, storages.peak)


def _place(model: nn.Module, dtype: torch.dtype) -> list[Tensor]:
    """Move a model from the meta device to the CPU, without data, and its frozen weights to `dtype`.

    Returns:
        its parameters, buffers and other tensors.
    """
    moved: dict[int, Tensor] = {}

    def on_cpu(tensor: Tensor, kind: torch.dtype) -> Tensor:
        if id(tensor) not in moved:
            empty = torch.empty(tensor.shape, dtype=kind, device="cpu")
            parameter = isinstance(tensor, nn.Parameter)
            moved[id(tensor)] = nn.Parameter(empty, requires_grad=tensor.requires_grad) if parameter else empty
        return moved[id(tensor)]

    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                kind = parameter.dtype if parameter.requires_grad else dtype
                module._parameters[name] = cast(nn.Parameter, on_cpu(parameter, kind))
        for tensors in (module._buffers, module.__dict__):
            for name, tensor in list(tensors.items()):
                if isinstance(tensor, Tensor) and tensor.is_meta:
                    tensors[name] = on_cpu(tensor, tensor.dtype)
    return list(moved.values())
