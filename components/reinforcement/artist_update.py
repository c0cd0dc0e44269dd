"""The Artist's part of stage III: DiffusionNFT on the edits of a round, and the `old` policy that makes them."""

from collections.abc import Iterator

import torch
from torch import Tensor

from components.models.artist import Artist
from components.models.flow import inference_sigmas, interpolate, training_sigmas
from components.models.lora import active_adapter, adapter_tensors
from components.parallel.ranks import all_reduce
from components.parallel.sharding import is_sharded, sum_now
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
        here = torch.full((share.total,), -1)  # where an edit is among this rank's; -1 for one of another
        here[list(share.rows)] = torch.arange(len(edits.judged))
        kept = kept[torch.randperm(len(kept), generator=self.generator)]
        for update, chosen in enumerate(kept.tensor_split(min(settings.artist_updates, len(kept)))):
            means = {"loss": 0.0, "kl": 0.0}
            levels = self._levels(len(chosen), edits.grid.tokens)
            micro_batches = [
                (rows, at) for level in levels for rows, at in _in_parts(chosen, level, settings.micro_batch)
            ]
            for number, (rows, at) in enumerate(micro_batches, start=1):
                sum_now(self.artist.transformer, last=number == len(micro_batches))
                weight = int((here[rows] >= 0).sum()) / (len(chosen) * settings.nft.timesteps) / share.copies
                loss, divergence = self._loss(edits, here[rows], advantages, at)
                terms = {"the Artist's loss": loss, "its divergence": divergence}
                require_finite({name: float(term.detach()) for name, term in terms.items()})
                if loss.requires_grad:
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

    def _loss(
        self, edits: ArtistExperience, rows: Tensor, advantages: Tensor, sigmas: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """DiffusionNFT loss and divergence from the reference, at one noise level for each edit.

        Args:
            rows: of the edits of this rank; -1 for one of another rank, for which noise is drawn and nothing computed.
            sigmas: the levels; drawn where None.
        """
        artist, nft, measured_share = self.artist, self.settings.nft, self.settings.reference_share
        noise = torch.randn(len(rows), *edits.clean_BSC.shape[1:], generator=self.generator)
        if sigmas is None:
            sigmas = training_sigmas(artist.scheduler, len(rows), edits.grid.tokens, self.generator)
        measured = nft.kl > 0 and float(torch.rand((), generator=self.generator)) < measured_share
        ours = rows >= 0
        if not ours.any():
            if not is_sharded(artist.transformer):
                return torch.zeros(()), torch.zeros(())
            rows, ours[0] = rows.clamp(min=0), True  # a pass that needs every rank; it gets weight 0
        rows = rows[ours]
        clean, source, latent = edits.clean_BSC[rows], edits.source_BRC[rows], edits.latent[rows]
        noise, sigmas, advantages = noise[ours].to(clean), sigmas[ours].to(clean), advantages[rows].to(clean)
        noisy = interpolate(clean, noise, sigmas)

        def predict(adapter: str) -> Tensor:
            with torch.no_grad(), active_adapter(artist.transformer, adapter):
                return artist.velocity(noisy, source, sigmas, latent, edits.grid)

        velocity = artist.velocity(noisy, source, sigmas, latent, edits.grid)
        old_velocity = velocity.detach() if self.old_is_current else predict("old")
        loss = nft_loss(velocity, old_velocity, noisy, clean, sigmas, advantages, nft).mean()
        divergence = velocity.new_zeros(())
        if measured:
            divergence = reference_divergence(velocity, predict("reference")).mean() / measured_share  # unbiased
        return loss, divergence


def _in_parts(rows: Tensor, levels: Tensor | None, size: int) -> Iterator[tuple[Tensor, Tensor | None]]:
    """Rows in parts of a size, each with its levels."""
    for part in torch.arange(len(rows)).split(size):
        yield rows[part], None if levels is None else levels[part]
