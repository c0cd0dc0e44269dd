"""Fully sharded data parallelism (FSDP2, `torch.distributed.fsdp.fully_shard`) of the Critic and of the Artist.

Each transformer block is a group: its weights, adapters, gradients and optimiser state lie in equal shares on the ranks
and are gathered while the block computes. What is small (patch and time embeddings, norms, the projections at the ends)
stays whole on every rank. Adapters stay float32 beside bfloat16 weights, as without sharding; weights that are trained
themselves are kept in float32 and gathered in bfloat16.

A batch may be computed in parts, for memory: what comes out does not depend on their size, except for rounding. Where a
model is sharded, every rank has as many parts, and the last one sums the gradients.
"""

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from components.parallel import ranks

Part = Callable[[], Tensor]
"""Computes a part of a batch when it is called: in training what it adds to the loss () of the whole batch."""


def shard(root: nn.Module, device: torch.device, compute_dtype: torch.dtype, apart: Sequence[nn.Module] = ()) -> None:
    """Share out `root`, the module whose `forward` is called, among all ranks, and move it to `device`.

    Blocks are of the classes that the model's library names as not to be split (`_no_split_modules`), or of those that
    accelerate's configuration names. Call it when adapters are on and before an optimiser is made.

    Args:
        compute_dtype: of trained block weights while they compute; they are kept in float32.
        apart: modules to shard as groups of their own, inside or outside of `root`: embeddings that are large.
    """
    from accelerate.utils import FullyShardedDataParallelPlugin

    plugin = FullyShardedDataParallelPlugin(fsdp_version=2)  # takes from the environment what `accelerate launch` put
    named = plugin.transformer_cls_names_to_wrap or _block_classes(root)
    blocks = [module for module in root.modules() if type(module).__name__ in named]
    if not blocks:
        raise ValueError(f"{type(root).__name__}: none of its modules is a {' or '.join(sorted(named))}: cannot shard")
    mesh = init_device_mesh(device.type, (ranks.world_size(),))
    for block in (*blocks, *apart):
        trained = {name: p for name, p in block.named_parameters() if p.requires_grad}
        for parameter in trained.values():
            parameter.data = parameter.data.float()
        policy = MixedPrecisionPolicy()
        if trained and not any("lora_" in name for name in trained) and compute_dtype != torch.float32:
            policy = MixedPrecisionPolicy(param_dtype=compute_dtype, reduce_dtype=torch.float32)
        fully_shard(
            block,
            mesh=mesh,
            reshard_after_forward=plugin.reshard_after_forward,
            mp_policy=policy,
            offload_policy=plugin.cpu_offload,
        )
    move_rest(root, device)
    # a group without parameters of its own, which lets the blocks fetch ahead of each other
    fully_shard(root, mesh=mesh, ignored_params={p for p in root.parameters() if not isinstance(p, DTensor)})
    for module in _groups((root, *apart)):
        module.set_gradient_divide_factor(1.0)  # ranks hold parts of one sum, not samples of a mean
        module.set_force_sum_reduction_for_comms(True)  # without which a factor needs NCCL


def move_rest(model: nn.Module, device: torch.device) -> None:
    """Move what is not sharded; shards are where they are to be, which may be the memory of the machine."""
    for tensor in (*model.parameters(), *model.buffers()):
        if not isinstance(tensor, DTensor):
            tensor.data = tensor.data.to(device)


def is_sharded(model: nn.Module) -> bool:
    """Whether passes through a model need every rank."""
    return any(isinstance(module, FSDPModule) for module in model.modules())


def sum_now(model: nn.Module, last: bool) -> None:
    """Whether the backward pass that follows sums sharded gradients over the ranks, or keeps them for a later one."""
    for module in _groups((model,)):
        module.set_requires_gradient_sync(last, recurse=False)


def whole(tensor: Tensor) -> Tensor:
    """A tensor that may be sharded, in full and then on the CPU; every rank must call it."""
    return tensor.full_tensor().cpu() if isinstance(tensor, DTensor) else tensor


def on_main(tensor: Tensor) -> Tensor:
    """`whole` for what the main rank alone will write: nothing of a sharded tensor is kept on the others."""
    everything = whole(tensor)
    return everything if ranks.is_main() or not isinstance(tensor, DTensor) else everything.new_empty(0)


def like(parameter: Tensor, content: Tensor) -> Tensor:
    """A new tensor with the full `content`, on the device and in the shares of `parameter`."""
    if not isinstance(parameter, DTensor):
        return content.to(parameter.device, copy=True)
    return distribute_tensor(
        content.to(parameter.device), parameter.device_mesh, parameter.placements, src_data_rank=None
    )


def clip_gradients(parameters: Iterable[nn.Parameter], largest: float) -> Tensor:
    """Scale gradients so that their total norm is `largest` at most; returns the norm () before, finite or not."""
    trained = [p for p in parameters if p.grad is not None]
    kinds = [kind for sharded in (False, True) if (kind := [p for p in trained if isinstance(p, DTensor) is sharded])]
    norms = [torch.nn.utils.get_total_norm([p.grad for p in kind if p.grad is not None]) for kind in kinds]
    norms = [norm.full_tensor() if isinstance(norm, DTensor) else norm for norm in norms]
    norm = norms[0] if len(norms) == 1 else torch.nn.utils.get_total_norm(norms)
    if torch.isfinite(norm):
        for kind in kinds:
            torch.nn.utils.clip_grads_with_norm_(kind, largest, norm)
    return norm


def slices(count: int, at_once: int | None) -> list[slice]:
    """Consecutive rows of `count`, at most `at_once` in a slice; all in one when it is None."""
    step = at_once or max(1, count)
    return [slice(start, min(start + step, count)) for start in range(0, count, step)]


def in_step(model: nn.Module, parts: Sequence[Part]) -> list[Part]:
    """The parts, and where the model is sharded so many more, whose results are 0, that every rank has as many."""
    missing = ranks.all_reduce_max(len(parts)) - len(parts) if is_sharded(model) else 0
    return [*parts, *[lambda: 0.0 * parts[-1]()] * missing]


def accumulate(model: nn.Module, parts: Sequence[Part]) -> Tensor:
    """The loss () of a batch in parts, so that the activations of one part at a time are kept.

    The gradients of all parts but the last are in the model's parameters when this returns; the result is the sum of
    all losses, and its `backward` adds the gradients of the last part. With one part it is that part's loss.

    Args:
        model: that is trained.
        parts: at least one.
    """
    *before, last = in_step(model, parts)
    earlier = None
    for part in before:
        sum_now(model, last=False)
        loss = part()
        loss.backward()
        earlier = loss.detach() if earlier is None else earlier + loss.detach()
    sum_now(model, last=True)
    return last() if earlier is None else last() + earlier


def _block_classes(root: nn.Module) -> set[str]:
    return {name for module in root.modules() for name in getattr(type(module), "_no_split_modules", None) or ()}


def _groups(models: Sequence[nn.Module]) -> list[FSDPModule]:
    return [module for model in models for module in model.modules() if isinstance(module, FSDPModule)]
