"""The optimiser of either module's adapter in stage III."""

from collections.abc import Mapping

from torch import nn

from components.training.loop import Optimiser, OptimiserSettings


def adapter_optimiser(
    parameters: Mapping[str, nn.Parameter], learning_rate: float, updates: int, iterations: int
) -> Optimiser:
    """AdamW with a short warm-up and without decay, for `updates` steps in each of `iterations`."""
    schedule = OptimiserSettings(
        learning_rate=learning_rate,
        steps=max(1, iterations * updates),
        warmup_steps=min(5, iterations),
        final_fraction=1.0,
        weight_decay=0.0,
    )
    return Optimiser(parameters.items(), schedule)
