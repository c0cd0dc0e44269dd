"""The optimiser of either module's adapter in stage III."""

from collections.abc import Mapping

from torch import nn

from components.training.loop import Optimiser, OptimiserSettings


def adapter_optimiser(
    parameters: Mapping[str, nn.Parameter], learning_rate: float, updates: int, iterations: int, average_decay: float
) -> Optimiser:
    """AdamW with a short warm-up and without decay, for `updates` steps in each of `iterations`.

    Args:
        average_decay: of the moving average of the weights; 0 keeps none.
    """
    schedule = OptimiserSettings(
        learning_rate=learning_rate,
        steps=max(1, iterations * updates),
        warmup_steps=min(5, iterations),
        final_fraction=1.0,
        weight_decay=0.0,
        ema_decay=average_decay,
    )
    return Optimiser(parameters.items(), schedule)
