"""Stage III: GRPO for the Critic and DiffusionNFT for the Artist in one loop over the same photos.

Each iteration gathers one round of experience, updates both modules from it, and lets the Artist's `old` policy, which
makes the edits, follow the current one. One checkpoint holds everything both need to go on.
"""

import logging
from pathlib import Path

import torch
from pydantic import Field
from torch import Tensor
from tqdm import tqdm

from components.artist.batches import PairBatches
from components.artist.flow import interpolate, training_sigmas
from components.artist.model import Artist
from components.artist.nft import NftSettings, follow, nft_loss, old_decay, reference_divergence
from components.compute import ComputeSettings
from components.critic.grpo import GrpoSettings, group_advantages, policy_loss
from components.critic.model import Critic
from components.evaluation.metrics import LPIPS_FILE, Lpips
from components.lora import active_adapter, adapter_tensors, copy_adapter
from components.strict import Strict
from components.training.checkpoints import Checkpoint, CheckpointStore
from components.training.comparison import ComparisonSettings, log_policy, score_policy
from components.training.loop import DivergenceError, Optimiser, OptimiserSettings
from components.training.rollouts import ArtistExperience, CriticExperience, RolloutSettings, gather
from components.training.tracker import Tracker

log = logging.getLogger(__name__)


class ReinforceSettings(Strict):
    """Coordinated reinforcement learning of both modules."""

    iterations: int = Field(gt=0)
    rollouts: RolloutSettings = Field(default_factory=RolloutSettings)
    grpo: GrpoSettings = Field(default_factory=GrpoSettings)
    nft: NftSettings = Field(default_factory=NftSettings)
    critic_learning_rate: float = Field(default=1e-5, gt=0)
    artist_learning_rate: float = Field(default=3e-4, gt=0)
    critic_updates: int = Field(default=1, ge=0, description="optimiser steps an iteration; 0 freezes the Critic")
    artist_updates: int = Field(default=2, ge=0, description="optimiser steps an iteration; 0 freezes the Artist")
    micro_batch: int = Field(default=16, gt=0, description="samples in one backward pass")
    feedback: float = Field(default=0.0, ge=0, description="weight of an edit's r_PA in the reward of its verdict")
    smallest_deviation: float = Field(
        default=0.005, ge=0, description="groups whose rewards deviate less are dropped: they say nothing"
    )
    reference_share: float = Field(
        default=0.25, gt=0, le=1, description="share of the micro-batches on which the divergence is measured"
    )
    validate_every: int = Field(default=10, gt=0, description="iterations")
    checkpoint_every: int = Field(default=1, gt=0, description="iterations")
    comparison: ComparisonSettings = Field(default_factory=ComparisonSettings)
    compute: ComputeSettings = Field(default_factory=ComputeSettings)
    seed: int = Field(default=0, ge=0)


def reinforce(
    base: Path,
    critic_adapter: Path,
    artist_adapter: Path,
    pairs_dir: Path,
    out: Path,
    settings: ReinforceSettings,
    tracker: Tracker,
    checkpoints: Path,
) -> dict[str, float]:
    """Reinforce both modules on enhancement pairs; writes PEFT adapters to `out/critic` and `out/artist`.

    Args:
        base: folder of the base models and of the LPIPS backbone.
        critic_adapter, artist_adapter: where stages I and II ended; also the reference policies.
        checkpoints: folder that outlives the process; a run that was killed continues from there.

    Returns:
        closing metrics of the validation split.

    Raises:
        DivergenceError: a loss, gradient or reward is not finite.
    """
    stage = _Stage(base, critic_adapter, artist_adapter, pairs_dir, settings, tracker, checkpoints)
    stage.run()
    closing = stage.validate(settings.iterations)
    stage.critic.save_adapter(out / "critic")
    stage.artist.save_adapter(out / "artist")
    return closing


class _Stage:
    """Both policies, their optimisers and the state of the loop."""

    def __init__(
        self,
        base: Path,
        critic_adapter: Path,
        artist_adapter: Path,
        pairs_dir: Path,
        settings: ReinforceSettings,
        tracker: Tracker,
        checkpoints: Path,
    ):
        self.settings, self.tracker, self.store = settings, tracker, CheckpointStore(checkpoints)
        placement = settings.compute.place()
        self.critic = Critic.load(base / "critic", critic_adapter, placement, trainable=True)
        self.artist = Artist.load(base / "artist", artist_adapter, placement, trainable=True)
        if settings.compute.gradient_checkpointing:
            self.critic.checkpoint_gradients()
            self.artist.checkpoint_gradients()
        copy_adapter(self.critic.model, "reference", critic_adapter)
        for name in ("old", "reference"):
            copy_adapter(self.artist.transformer, name, artist_adapter)
        self.old = {name: tensor.detach() for name, tensor in adapter_tensors(self.artist.transformer, "old").items()}
        self.old_is_current = True
        self.critic_optimiser = self._optimiser(
            self.critic.model, settings.critic_learning_rate, settings.critic_updates
        )
        self.artist_optimiser = self._optimiser(
            self.artist.transformer, settings.artist_learning_rate, settings.artist_updates
        )
        self.batches = PairBatches(pairs_dir, "train", ["enhancement"], self.artist)
        self.held_out = PairBatches(pairs_dir, "validation", ["enhancement"], self.artist)
        self.distance = Lpips(base / LPIPS_FILE, placement.device)
        self.generator = torch.Generator().manual_seed(settings.seed)

    def _optimiser(self, model: torch.nn.Module, learning_rate: float, updates: int) -> Optimiser:
        schedule = OptimiserSettings(
            learning_rate=learning_rate,
            steps=max(1, self.settings.iterations * updates),
            warmup_steps=min(5, self.settings.iterations),
            final_fraction=1.0,
            weight_decay=0.0,
        )
        return Optimiser(adapter_tensors(model).items(), schedule)

    def run(self) -> None:
        start = self._restore()
        if start == 0:
            self.validate(0)
        iterations = self.settings.iterations
        progress = tqdm(range(start, iterations), initial=start, total=iterations, desc="stage III", unit="iteration")
        for iteration in progress:
            batch = self.batches.draw(self.settings.rollouts.photos, self.generator)
            experience = gather(self.critic, self.artist, batch, self.distance, self.settings.rollouts, self.generator)
            report = self._update_critic(experience.critic, experience.artist, iteration)
            report |= self._update_artist(experience.artist, iteration)
            decay = old_decay(iteration + 1, self.settings.nft)
            follow(self.old, adapter_tensors(self.artist.transformer), decay)
            self.old_is_current = decay == 0
            report["artist/old_decay"] = decay
            self.tracker.metrics({f"reinforce/{name}": value for name, value in report.items()}, iteration + 1)
            progress.set_postfix(r_pa=f"{report['artist/reward_total']:.3f}", critic=f"{report['critic/reward']:.3f}")
            if (iteration + 1) % self.settings.checkpoint_every == 0 or iteration + 1 == iterations:
                self._save(iteration + 1)
            if (iteration + 1) % self.settings.validate_every == 0 and iteration + 1 < iterations:
                self.validate(iteration + 1)

    def _update_critic(self, judged: CriticExperience, edits: ArtistExperience, iteration: int) -> dict[str, float]:
        settings, rewards = self.settings, judged.rewards_NG.clone()
        if settings.feedback:
            photos, group = len(rewards) // 2, rewards.shape[1]
            rewards[:photos] += settings.feedback * edits.rewards_B.view(photos, group, -1).mean(dim=2)
        report = {f"critic/reward_{name}": float(values.mean()) for name, values in judged.terms.items()}
        report |= {"critic/reward": float(rewards.mean()), "critic/reward_deviation": float(rewards.std(dim=1).mean())}
        advantages = group_advantages(rewards, settings.grpo.loss_type).flatten()
        informative = (rewards.std(dim=1) >= settings.smallest_deviation).repeat_interleave(rewards.shape[1])
        report["critic/groups_kept"] = float(informative.float().mean())
        rollout, mask = judged.rollout, judged.rollout.token_mask_BT
        report["critic/completion_tokens"] = float(mask.sum(dim=1).float().mean())
        kept = informative.nonzero()[:, 0]
        # What a completion weighs in the mean over the batch, so that the size of micro-batches changes nothing.
        weights = mask.sum(dim=1).float() if settings.grpo.loss_type == "dapo" else mask.new_ones(len(mask)).float()
        if not len(kept):
            return report
        for update in range(settings.critic_updates):
            totals = {"loss": 0.0, "kl": 0.0, "clip_fraction": 0.0, "entropy": 0.0}
            for rows in kept.split(settings.micro_batch):
                prompts = judged.prompts[rows]
                reference = None
                if settings.grpo.kl > 0:
                    with torch.no_grad(), active_adapter(self.critic.model, "reference"):
                        reference, _ = self.critic.log_probabilities(prompts, rollout.tokens_BT[rows], mask[rows])
                log_p, entropy = self.critic.log_probabilities(prompts, rollout.tokens_BT[rows], mask[rows])
                gain = advantages[rows].to(log_p)
                loss = policy_loss(
                    log_p, rollout.log_probabilities_BT[rows], reference, gain, mask[rows], settings.grpo
                )
                share = float(weights[rows].sum() / weights[kept].sum())
                _check(loss.loss, "the Critic's loss", iteration)
                (loss.loss * share).backward()
                mean_entropy = float((entropy.detach() * mask[rows]).sum() / mask[rows].sum())
                scalars = (*(float(scalar.detach()) for scalar in loss), mean_entropy)
                for name, value in zip(totals, scalars, strict=True):
                    totals[name] += share * value
            norms = self.critic_optimiser.update(iteration * settings.critic_updates + update)
            report |= {f"critic/{name}": value for name, value in (totals | norms).items()}
        return report

    def _update_artist(self, edits: ArtistExperience, iteration: int) -> dict[str, float]:
        settings, group = self.settings, self.settings.rollouts.verdicts * self.settings.rollouts.edits
        judged = edits.judged
        report = {
            f"artist/reward_{name}": float(values[judged].mean()) if judged.any() else 0.0
            for name, values in edits.terms.items()
        }
        report["artist/judged"] = float(judged.float().mean())
        advantages, kept = torch.zeros(len(judged)), []
        for start in range(0, len(judged), group):
            rows = torch.arange(start, start + group)[judged[start : start + group]]
            if len(rows) < 2 or float(edits.rewards_B[rows].std()) < settings.smallest_deviation:
                continue
            advantages[rows] = group_advantages(edits.rewards_B[rows][None])[0]
            kept.append(rows)
        report["artist/groups_kept"] = len(kept) * group / len(judged)
        if not kept or not settings.artist_updates:
            return report
        rows = torch.cat(kept)
        rows = rows[torch.randperm(len(rows), generator=self.generator)]
        for update, chosen in enumerate(rows.tensor_split(min(settings.artist_updates, len(rows)))):
            totals = {"loss": 0.0, "kl": 0.0}
            passes = [part for _ in range(settings.nft.timesteps) for part in chosen.split(settings.micro_batch)]
            for part in passes:
                share = len(part) / (len(chosen) * settings.nft.timesteps)
                loss, divergence = self._artist_loss(edits, part, advantages[part])
                _check(loss, "the Artist's loss", iteration)
                (share * (loss + settings.nft.kl * divergence)).backward()
                totals["loss"] += share * float(loss.detach())
                totals["kl"] += share * float(divergence.detach())
            norms = self.artist_optimiser.update(iteration * settings.artist_updates + update)
            self.old_is_current = False
            report |= {f"artist/{name}": value for name, value in (totals | norms).items()}
        return report

    def _artist_loss(self, edits: ArtistExperience, rows: Tensor, advantages: Tensor) -> tuple[Tensor, Tensor]:
        """DiffusionNFT loss and divergence from the reference, at one random noise level for each edit."""
        artist, nft = self.artist, self.settings.nft
        clean, source, latent = edits.clean_BSC[rows], edits.source_BRC[rows], edits.latent[rows]
        noise = torch.randn(clean.shape, generator=self.generator).to(clean)
        sigmas = training_sigmas(artist.scheduler, len(rows), edits.grid.tokens, self.generator).to(clean)
        advantages = advantages.to(clean)
        noisy = interpolate(clean, noise, sigmas)

        def predict(adapter: str) -> Tensor:
            with torch.no_grad(), active_adapter(artist.transformer, adapter):
                return artist.velocity(noisy, source, sigmas, latent, edits.grid)

        velocity = artist.velocity(noisy, source, sigmas, latent, edits.grid)
        old_velocity = velocity.detach() if self.old_is_current else predict("old")
        loss = nft_loss(velocity, old_velocity, noisy, clean, sigmas, advantages, nft).mean()
        divergence = velocity.new_zeros(())
        share = self.settings.reference_share
        if nft.kl > 0 and float(torch.rand((), generator=self.generator)) < share:
            divergence = reference_divergence(velocity, predict("reference")).mean() / share  # unbiased
        return loss, divergence

    def validate(self, iteration: int) -> dict[str, float]:
        """Reward and colour error on held-out photos; the error is not in the reward, so it shows reward hacking."""
        scores = score_policy(
            self.critic, self.artist, self.held_out, self.distance, self.settings.rollouts, self.settings.comparison
        )
        return log_policy(scores, self.tracker, "reinforce/validation", iteration)

    def _save(self, iteration: int) -> None:
        tensors = self.critic_optimiser.tensors("critic.") | self.artist_optimiser.tensors("artist.")
        tensors |= {f"old.{name}": tensor for name, tensor in self.old.items()}
        tensors["generator"] = self.generator.get_state()
        self.store.save(Checkpoint(iteration, tensors, {"old_is_current": self.old_is_current}))

    def _restore(self) -> int:
        checkpoint = self.store.latest()
        if checkpoint is None:
            return 0
        self.critic_optimiser.restore(checkpoint.tensors, "critic.")
        self.artist_optimiser.restore(checkpoint.tensors, "artist.")
        for name, tensor in self.old.items():
            tensor.copy_(checkpoint.tensors[f"old.{name}"])
        self.generator.set_state(checkpoint.tensors["generator"])
        self.old_is_current = checkpoint.values["old_is_current"]
        log.info("stage III: resuming at iteration %d of %d", checkpoint.step, self.settings.iterations)
        return checkpoint.step


def _check(loss: Tensor, what: str, iteration: int) -> None:
    if not torch.isfinite(loss):
        raise DivergenceError(f"{what} is {float(loss.detach())} in iteration {iteration}; lower its learning rate")
