"""What an entry in a table of rewards holds, and the weights that follow from a table.

The key of an entry names everything that belongs to the reward: its column in the experience, its metric
`<module>/reward_<key>`, and the field of the settings with its weight.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import Any

from pydantic import Field, create_model
from torch import Tensor

from components.strict import Strict


@dataclass(frozen=True)
class Reward:
    """One reward.

    Attributes:
        value: the function: what is judged and the settings in, rewards in [0, 1] out; NaN where a measure broke.
        title: of its curve in the reports, after the name of the module.
        weight: default of its weight; None for a gate, which multiplies the weighted sum of the others.
        highest: the weight may not be above it; None: any will do.
        description: of the weight, in the settings.
    """

    value: Callable[[Any, Any], Tensor]
    title: str
    weight: float | None
    highest: float | None = None
    description: str | None = None


def weighted(rewards: Mapping[str, Reward]) -> type[Strict]:
    """The base of a module's settings: a field with the weight of each of its rewards, in the order of the table."""
    fields: dict[str, Any] = {
        name: (float, Field(default=reward.weight, ge=0, le=reward.highest, description=reward.description))
        for name, reward in rewards.items()
        if reward.weight is not None
    }
    return create_model("Weights", __base__=Strict, **fields)


def total(rewards: Mapping[str, Reward], values: Mapping[str, Tensor], settings: Strict) -> Tensor:
    """The whole reward of the values of all rewards of a table: their weighted sum, times every gate."""
    whole = reduce(add, (values[name] * weight for name, weight in weights(rewards, settings).items()))
    for name, reward in rewards.items():
        if reward.weight is None:
            whole = values[name] * whole
    return whole


def weights(rewards: Mapping[str, Reward], settings: Strict) -> dict[str, float]:
    """The weights that the settings give to the rewards of a table, gates left out."""
    return {name: getattr(settings, name) for name, reward in rewards.items() if reward.weight is not None}
