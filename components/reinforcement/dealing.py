"""Who does which pass of the Artist's update: whole passes are dealt out, so that no rank is idle while others work.

Edits are shuffled over all ranks, so those of a pass were made anywhere. Every rank draws the noise of every pass, does
its own share of the passes, and fetches the edits that they need from the ranks that made them, once a round. A pass
is the same whoever does it.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from components.models.critic import ReasoningLatent
from components.parallel.ranks import Share, all_reduce_max, exchange, largest_share, rank, share_of, world_size
from components.parallel.sharding import slices
from components.reinforcement.rollouts import ArtistExperience


@dataclass(frozen=True)
class Deal:
    """The passes of a round.

    Attributes:
        updates: for each optimiser step the edits of it, as positions in the shuffled ones.
        passes: for each optimiser step the edits of each pass, as positions in those of the step; one noise level after
            another.
        ranks: that share the passes of a step.
    """

    updates: list[slice]
    passes: list[list[slice]]
    ranks: int

    def mine(self, update: int, rank: int) -> Share:
        """The passes of an optimiser step that a rank does."""
        return share_of(rank, self.ranks, len(self.passes[update]))

    @property
    def busiest(self) -> int:
        """Passes, of all optimiser steps, of the rank that has most."""
        return sum(largest_share(self.ranks, len(passes)) for passes in self.passes)

    @property
    def busiest_rows(self) -> int:
        """Edits of all those passes; an edit counts once for each noise level."""
        sizes = [[rows.stop - rows.start for rows in passes] for passes in self.passes]
        return sum(
            max(sum(of_step[chosen] for chosen in self.mine(step, rank).rows) for rank in range(self.ranks))
            for step, of_step in enumerate(sizes)
        )

    def edits_of(self, rank: int) -> list[int]:
        """The edits, as positions in the shuffled ones, that the passes of a rank need; ascending."""
        found: set[int] = set()
        for number, (update, passes) in enumerate(zip(self.updates, self.passes, strict=True)):
            for chosen in self.mine(number, rank).rows:
                rows = passes[chosen]
                found.update(range(update.start + rows.start, update.start + rows.stop))
        return sorted(found)


def deal(edits: int, updates: int, levels: int, micro_batch: int, ranks: int) -> Deal:
    """Divide so many edits among optimiser steps, and each step into passes of at most `micro_batch` edits."""
    least, larger = divmod(edits, min(updates, edits) or 1)
    steps, start = [], 0
    for number in range(min(updates, edits)):
        stop = start + least + (number < larger)
        steps.append(slice(start, stop))
        start = stop
    return Deal(steps, [slices(step.stop - step.start, micro_batch) * levels for step in steps], ranks)


@dataclass(frozen=True)
class Dealt:
    """The edits that this rank's passes need.

    Attributes:
        at: (total,) where an edit of the whole round is among them; -1 where it is not.
        clean_BSC, source_BRC, latent, advantages_B: as in `ArtistExperience`.
    """

    at: Tensor
    clean_BSC: Tensor
    source_BRC: Tensor
    latent: ReasoningLatent
    advantages_B: Tensor


def fetch(edits: ArtistExperience, advantages: Tensor, kept: Tensor, dealt: Deal, group: int) -> Dealt:
    """Bring together what this rank's passes need; every rank must call it.

    Args:
        advantages: (B,) of this rank's edits.
        kept: the shuffled edits of the whole round.
        group: edits of a photo, which one rank made.
    """
    share = edits.share
    if world_size() == 1:
        return Dealt(torch.arange(share.total), edits.clean_BSC, edits.source_BRC, edits.latent, advantages)
    order = kept.tolist()
    wanted = [[order[position] for position in dealt.edits_of(each)] for each in range(dealt.ranks)]
    makers = [share_of(each, dealt.ranks, share.total // group).each(group) for each in range(dealt.ranks)]

    def moved(values: Tensor) -> Tensor:
        return exchange(values, makers, wanted)

    at = torch.full((share.total,), -1)
    at[wanted[rank()]] = torch.arange(len(wanted[rank()]))
    latent = _padded(edits.latent)
    mask = moved(latent.mask_BL.to(torch.uint8)).bool()
    return Dealt(
        at,
        moved(edits.clean_BSC),
        moved(edits.source_BRC),
        ReasoningLatent(moved(latent.states_BLD), mask),
        share.gather(advantages)[wanted[rank()]],
    )


def _padded(latent: ReasoningLatent) -> ReasoningLatent:
    """The same in the length of the longest of all ranks."""
    missing = all_reduce_max(latent.mask_BL.shape[1]) - latent.mask_BL.shape[1]
    states = functional.pad(latent.states_BLD, (0, 0, 0, missing))
    return ReasoningLatent(states, functional.pad(latent.mask_BL, (0, missing)))
