"""The Artist's part of stage III: DiffusionNFT on the edits of a round, and the `old` policy that makes them."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from components.models.artist import Artist, Grid
from components.models.flow import inference_sigmas, interpolate, training_sigmas
from components.models.lora import active_adapter, adapter_tensors
from components.parallel.ranks import all_reduce, largest_share, rank, world_size
from components.parallel.sharding import is_sharded, sum_now
from components.reinforcement.dealing import Dealt, deal, fetch
from components.reinforcement.grpo import LossType, group_advantages
from components.reinforcement.nft import follow, nft_loss, old_decay, reference_divergence
from components.reinforcement.optimisers import adapter_optimiser
from components.reinforcement.policy_statistics import pass_rates
from components.reinforcement.rollouts import ArtistExperience
from components.reinforcement.settings import ReinforceSettings
from components.training.divergence import require_finite

_EPSILON = 1e-4  # as in `group_advantages`


class ArtistUpdate:
    """The Artist's optimiser and its `old` policy, and what they do with a round of experience.

    Args:
        artist: with the adapter that is trained, and the adapters `old` and `reference`.
        generator: of the noise; the stage's own, so that its state is one.

    Attributes:
        old: tensors of the adapter `old`, by name.
        old_is_current: whether they are those of the trained adapter.
    """

    def __init__(self, artist: Artist, settings: ReinforceSettings, generator: torch.Generator):
        self.artist, self.settings, self.generator = artist, settings, generator
        self.old = {name: tensor.detach() for name, tensor in adapter_tensors(artist.transformer, "old").items()}
        self.old_is_current = True
        self.optimiser = adapter_optimiser(
            adapter_tensors(artist.transformer),
            settings.artist_learning_rate,
            settings.artist_updates,
            settings.iterations,
            settings.average_decay,
        )

    @property
    def group_size(self) -> int:
        """Edits of one photo."""
        return self.settings.rollouts.verdicts * self.settings.rollouts.edits

    def advantages(self, edits: ArtistExperience) -> tuple[Tensor, Tensor]:
        """Advantages (B,) of this rank's edits, and 1 or 0 (B,): judged, and in a group whose rewards differ enough.

        A group is what `artist_baseline` says; every rank must call it.
        """
        settings = self.settings
        size = settings.rollouts.edits if settings.artist_baseline == "verdict" else self.group_size
        loss_type: LossType = "grpo" if settings.advantage_scale == "group" else "dr_grpo"
        advantages, informative = torch.zeros(len(edits.judged)), torch.zeros(len(edits.judged))
        groups = 0
        for group in torch.arange(len(edits.judged)).split(size):
            group = group[edits.judged[group]]
            if len(group) < 2 or float(edits.rewards_B[group].std()) < settings.smallest_deviation:
                continue
            advantages[group] = group_advantages(edits.rewards_B[group][None], loss_type)[0]
            informative[group] = 1
            groups += 1
        if settings.advantage_scale == "round":
            here = {"squares": float(advantages.square().sum()), "freedom": float(informative.sum()) - groups}
            whole = all_reduce({name: value / edits.share.copies for name, value in here.items()})
            advantages /= (whole["squares"] / max(1.0, whole["freedom"])) ** 0.5 + _EPSILON
        return advantages, informative

    def report(self, edits: ArtistExperience, advantages: Tensor, informative: Tensor) -> dict[str, float]:
        """What a round says about the Artist, of all ranks together."""
        judged, weight = edits.judged, edits.share.weight
        judged_here = int(judged.sum()) / max(1.0, all_reduce({"judged": float(judged.sum())})["judged"])
        report = {
            f"reward_{name}": float(values[judged].mean()) * judged_here if judged.any() else 0.0
            for name, values in edits.terms.items()
        }
        report["judged"] = float(judged.float().mean()) * weight
        groups_kept = int(informative.view(-1, self.group_size).any(dim=1).sum())
        report["groups_kept"] = groups_kept * self.group_size / len(judged) * weight
        report["clip_fraction"] = float((advantages.abs() > self.settings.nft.clip).float().mean()) * weight
        passed = (judged & (edits.rewards_B >= self.settings.pass_mark)).view(-1, self.group_size)
        report |= {name: value * weight for name, value in pass_rates(passed).items()}
        return all_reduce(report)

    def learn(
        self, edits: ArtistExperience, advantages: Tensor, informative: Tensor, iteration: int
    ) -> dict[str, float]:
        """Take the optimiser steps of an iteration; reports those of the last one, nothing where nothing is learnt."""
        settings, share = self.settings, edits.share
        report: dict[str, float] = {}
        kept = share.gather(informative).nonzero()[:, 0]  # of the edits of all ranks
        if not len(kept) or not settings.artist_updates:
            return report
        kept = kept[torch.randperm(len(kept), generator=self.generator)]
        dealt = deal(len(kept), settings.artist_updates, settings.nft.timesteps, settings.micro_batch, world_size())
        mine = fetch(edits, advantages, kept, dealt, self.group_size)
        for update, rows in enumerate(dealt.updates):
            chosen, share_of_passes = kept[rows], dealt.mine(update, rank())
            drawn = self._drawn(chosen, dealt.passes[update], edits.grid.tokens, edits.clean_BSC.shape[2])
            own = [one for number, one in enumerate(drawn) if number in share_of_passes.rows]
            weights = [len(one.rows) / (len(chosen) * settings.nft.timesteps) / share_of_passes.copies for one in own]
            if is_sharded(self.artist.transformer):  # whose passes need every rank: who is done goes along, weight 0
                idle = largest_share(world_size(), len(dealt.passes[update])) - len(own)
                own, weights = own + own[-1:] * idle, weights + [0.0] * idle
            means = {"loss": 0.0, "kl": 0.0}
            for number, (one, weight) in enumerate(zip(own, weights, strict=True), start=1):
                sum_now(self.artist.transformer, last=number == len(own))
                loss, divergence = self._loss(mine, one, edits.grid)
                terms = {"the Artist's loss": loss, "its divergence": divergence}
                require_finite({name: float(term.detach()) for name, term in terms.items()})
                (weight * (loss + settings.nft.kl * divergence)).backward()
                means["loss"] += weight * float(loss.detach())
                means["kl"] += weight * float(divergence.detach())
            norms = self.optimiser.update(iteration * settings.artist_updates + update)
            self.old_is_current = False
            report = all_reduce(means) | norms
        return report

    def let_old_follow(self, iteration: int) -> dict[str, float]:
        """Move the `old` policy towards the current one at the end of an iteration."""
        decay = old_decay(iteration + 1, self.settings.nft)
        follow(self.old, adapter_tensors(self.artist.transformer), decay)
        self.old_is_current = decay == 0
        return {"old_decay": decay}

    def _levels(self, count: int, tokens: int) -> list[Tensor | None]:
        """For each of `nft.timesteps` passes the noise levels (count,) of the edits, or None to draw them then."""
        nft, steps = self.settings.nft, self.settings.rollouts.sampling_steps
        if nft.levels == "distribution":
            return [None] * nft.timesteps
        sampler = inference_sigmas(self.artist.scheduler, steps, tokens)[:-1]
        order = torch.rand(count, steps, generator=self.generator).argsort(dim=1)
        return list(sampler[order[:, : nft.timesteps]].unbind(dim=1))

    def _drawn(self, chosen: Tensor, passes: list[slice], tokens: int, channels: int) -> Iterator["_Pass"]:
        """The passes of an optimiser step, one after another, with all that is drawn for them.

        Every rank draws for every pass, so that the draws do not depend on who does it.
        """
        nft = self.settings.nft
        levels = self._levels(len(chosen), tokens)
        of_level = len(passes) // nft.timesteps
        for number, part in enumerate(passes):
            rows, level = chosen[part], levels[number // of_level]
            noise = torch.randn(len(rows), tokens, channels, generator=self.generator)
            if level is None:
                sigmas = training_sigmas(self.artist.scheduler, len(rows), tokens, self.generator)
            else:
                sigmas = level[part]
            share = self.settings.reference_share
            measured = nft.kl > 0 and float(torch.rand((), generator=self.generator)) < share
            yield _Pass(rows, noise, sigmas, measured)

    def _loss(self, edits: Dealt, one: "_Pass", grid: Grid) -> tuple[Tensor, Tensor]:
        """DiffusionNFT loss and divergence from the reference, at one noise level for each edit."""
        artist, rows = self.artist, edits.at[one.rows]
        clean, source, latent = edits.clean_BSC[rows], edits.source_BRC[rows], edits.latent[rows]
        noise, sigmas, advantages = one.noise.to(clean), one.sigmas.to(clean), edits.advantages_B[rows].to(clean)
        noisy = interpolate(clean, noise, sigmas)

        def predict(adapter: str) -> Tensor:
            with torch.no_grad(), active_adapter(artist.transformer, adapter):
                return artist.velocity(noisy, source, sigmas, latent, grid)

        velocity = artist.velocity(noisy, source, sigmas, latent, grid)
        old_velocity = velocity.detach() if self.old_is_current else predict("old")
        loss = nft_loss(velocity, old_velocity, noisy, clean, sigmas, advantages, self.settings.nft).mean()
        divergence = velocity.new_zeros(())
        if one.measured:
            distance = reference_divergence(velocity, predict("reference")).mean()
            divergence = distance / self.settings.reference_share  # unbiased
        return loss, divergence


class _Pass(NamedTuple):
    """A pass: edits of the whole round, what they are spoilt with, and whether it measures the divergence."""

    rows: Tensor
    noise: Tensor
    sigmas: Tensor
    measured: bool
