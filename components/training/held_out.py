"""A part of the held-out samples that validations look at: the same in every validation and in every version."""

import hashlib
from collections.abc import Hashable, Sequence

from pydantic import Field

from components.strict import Strict


class HeldOutSettings(Strict):
    """How much is validated on, so that a validation ends however large the split is."""

    samples: int = Field(default=300, gt=0, description="Held-out samples of a validation; all where there are fewer.")
    seed: int = Field(default=0, ge=0, description="Decides which.")


def subset(keys: Sequence[str], strata: Sequence[Hashable], settings: HeldOutSettings) -> list[int]:
    """Indices, ascending, of a part in which every stratum has its share (largest remainders).

    Within a stratum the samples are taken by a hash of seed and key, so that another version of the data, in which most
    keys are the same, is judged on mostly the same samples.

    Args:
        keys: name each sample.
        strata: which belong together, such as the kind of a pair.
    """
    if len(keys) <= settings.samples:
        return list(range(len(keys)))
    members: dict[Hashable, list[int]] = {}
    for index, stratum in enumerate(strata):
        members.setdefault(stratum, []).append(index)
    exact = {stratum: settings.samples * len(rows) / len(keys) for stratum, rows in members.items()}
    counts = {stratum: int(share) for stratum, share in exact.items()}
    left = settings.samples - sum(counts.values())
    for stratum in sorted(exact, key=lambda stratum: counts[stratum] - exact[stratum])[:left]:
        counts[stratum] += 1

    def draw(index: int) -> bytes:
        return hashlib.sha256(f"{settings.seed}/{keys[index]}".encode()).digest()

    return sorted(index for stratum, rows in members.items() for index in sorted(rows, key=draw)[: counts[stratum]])
