"""What a round of stage III says about its policies: how many samples of a group pass, and how far adapters moved."""

from collections.abc import Iterable, Mapping

import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from torch import Tensor

from components.models.lora import CURRENT
from components.parallel.sharding import whole


def pass_rates(passed_NG: Tensor) -> dict[str, float]:
    """Shares over N groups of G samples of which each passed or did not.

    Returns:
        pass_rate, of all samples; groups_all_passed and groups_all_failed, of groups within which the samples do not
        differ in this, so that it teaches nothing.
    """
    passed = passed_NG.float()
    return {
        "pass_rate": float(passed.mean()),
        "groups_all_passed": float(passed_NG.all(dim=1).float().mean()),
        "groups_all_failed": float((~passed_NG).all(dim=1).float().mean()),
    }


class AdapterDrift:
    """How far the trained adapter of a model has moved from a frozen one, as changes of the weights themselves.

    Args:
        model: with the adapter that is trained, and the frozen one under the name `reference`.
    """

    def __init__(self, model: PeftModel, reference: str = "reference"):
        self.reference = reference
        self.layers = [module for module in model.modules() if isinstance(module, LoraLayer)]
        with torch.no_grad():
            self.weights = _root(whole(layer.get_base_layer().weight.float().square().sum()) for layer in self.layers)
            self.start = _root(_squared_norm(layer, {reference: 1}) for layer in self.layers)

    @torch.no_grad()
    def measure(self) -> dict[str, float]:
        """Frobenius norm of dW - dW_ref over all adapted weights together, dW = alpha / rank B A.

        Returns:
            drift_base: over the norm of the weights W themselves; drift_reference: over the norm of dW_ref, left out
            where that is 0.
        """
        moved = _root(_squared_norm(layer, {CURRENT: 1, self.reference: -1}) for layer in self.layers)
        drift = {"drift_base": moved / self.weights}
        return drift | ({"drift_reference": moved / self.start} if self.start else {})


def _squared_norm(layer: LoraLayer, factors: Mapping[str, int]) -> Tensor:
    """|sum_i f_i s_i B_i A_i|^2 of adapters by name, from products of the size of their ranks: tr(B'B AA')."""
    up = torch.cat(
        [f * layer.scaling[name] * whole(layer.lora_B[name].weight).double() for name, f in factors.items()], dim=1
    )
    down = torch.cat([whole(layer.lora_A[name].weight).double() for name in factors])
    return ((up.T @ up) * (down @ down.T)).sum().clamp(min=0)


def _root(squares: Iterable[Tensor]) -> float:
    return float(torch.stack(list(squares)).sum().sqrt())
