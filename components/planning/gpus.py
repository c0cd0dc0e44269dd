"""GPUs to plan for: memory, arithmetic, bandwidth and interconnect, as their makers state them."""

import difflib
from typing import NamedTuple


class Gpu(NamedTuple):
    """One kind of GPU.

    Attributes:
        memory: bytes that its driver reports.
        flops: dense bfloat16 tensor operations per second, accumulated in float32; half of the figure with sparsity.
        flops_float32: float32 operations per second, without TF32, as PyTorch multiplies matrices by default.
        bandwidth: bytes per second of its memory.
        interconnect: bytes per second to the other GPUs of a node, in one direction.
    """

    memory: int
    flops: float
    flops_float32: float
    bandwidth: float
    interconnect: float


_MIB = 2**20
GPUS = {  # makers' data sheets; memory as nvidia-smi reports it
    "A100-40G": Gpu(40960 * _MIB, 312e12, 19.5e12, 1555e9, 300e9),
    "A100-80G": Gpu(81920 * _MIB, 312e12, 19.5e12, 2039e9, 300e9),
    "H100-80G": Gpu(81559 * _MIB, 989e12, 67e12, 3350e9, 450e9),
    "H200-141G": Gpu(143771 * _MIB, 989e12, 67e12, 4800e9, 450e9),
    "B200-180G": Gpu(183359 * _MIB, 2250e12, 80e12, 8000e9, 900e9),
    "L40S-48G": Gpu(46068 * _MIB, 362e12, 91.6e12, 864e9, 32e9),
    "RTX4090-24G": Gpu(24564 * _MIB, 165e12, 82.6e12, 1008e9, 32e9),
}


BOARDS = {
    "NVIDIA A100-SXM4-40GB": "A100-40G",
    "NVIDIA A100-PCIE-40GB": "A100-40G",
    "NVIDIA A100-SXM4-80GB": "A100-80G",
    "NVIDIA A100 80GB PCIe": "A100-80G",
    "NVIDIA H100 80GB HBM3": "H100-80G",
    "NVIDIA H200": "H200-141G",
    "NVIDIA B200": "B200-180G",
    "NVIDIA L40S": "L40S-48G",
    "NVIDIA GeForce RTX 4090": "RTX4090-24G",
}
"""The planner's name of a GPU by its driver's: slower boards of the same chip (H100 PCIe) are not among them."""


def peak_flops(device: str, dtype: str) -> float | None:
    """Peak operations per second of a GPU by its driver's name; None of other devices.

    Args:
        dtype: "bfloat16", or another, of which float32's figure counts.
    """
    board = BOARDS.get(device)
    if board is None:
        return None
    return GPUS[board].flops if dtype == "bfloat16" else GPUS[board].flops_float32


def gpu_named(name: str) -> Gpu:
    """Look a GPU up, whatever its case.

    Raises:
        ValueError: there is none of that name; the message lists those that are.
    """
    known = {key.lower(): gpu for key, gpu in GPUS.items()}
    if name.lower() in known:
        return known[name.lower()]
    close = difflib.get_close_matches(name.upper(), GPUS, n=1)
    hint = f"did you mean {close[0]}?" if close else f"known are {', '.join(GPUS)}"
    raise ValueError(f"there is no GPU {name!r}; {hint}")
