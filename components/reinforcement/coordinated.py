"""Stage III: GRPO for the Critic and DiffusionNFT for the Artist in one loop over the same photos.

Each iteration gathers one round of experience, updates both modules from it, and lets the Artist's `old` policy, which
makes the edits, follow the current one. One checkpoint holds everything both need to go on.
"""

import logging
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from components.metrics.full_reference import LPIPS_FILE, Lpips
from components.models.artist import Artist
from components.models.critic import Critic
from components.models.flow import interpolate, training_sigmas
from components.models.lora import active_adapter, adapter_tensors, copy_adapter
from components.parallel.ranks import is_main, most, size, summed
from components.parallel.sharding import is_sharded, like, on_main, sum_now
from components.reinforcement.alarm import HackingAlarm
from components.reinforcement.comparison import log_policy, score_policy
from components.reinforcement.grpo import group_advantages, policy_loss
from components.reinforcement.judges.settings import journal_in, make_judge
from components.reinforcement.nft import follow, nft_loss, old_decay, reference_divergence
from components.reinforcement.policy_statistics import AdapterDrift, pass_rates
from components.reinforcement.rollouts import ArtistExperience, CriticExperience, gather
from components.reinforcement.settings import ReinforceSettings
from components.training.batches import PairBatches
from components.training.checkpoints import Checkpoint, CheckpointStore
from components.training.divergence import require_finite
from components.training.loop import Optimiser, OptimiserSettings
from components.training.observer import Observer
from components.training.passes import metered
from components.training.tracker import Tracker

log = logging.getLogger(__name__)
_VITAL = ("loss", "reward", "reward_total", "kl", "gradient_norm", "learning_rate")  # what a diagnosis shows


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
        DivergenceError: a loss, gradient or reward is not finite, or a loss stayed out of its range.
        RewardHackingError: `settings.alarm` is "stop", and it was raised.
        JudgeError: the judge `mllm` gave no judgement.
    """
    stage = _Stage(base, critic_adapter, artist_adapter, pairs_dir, settings, tracker, checkpoints)
    with stage.observer:
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
        if settings.compute.sharded and settings.rollouts.edit_batch and settings.rollouts.photos % size():
            raise ValueError(
                f"sharded models need as many passes on every rank: rollouts.photos is {settings.rollouts.photos}, and "
                f"must be a multiple of the {size()} processes where rollouts.edit_batch divides the edits"
            )
        placement = settings.compute.place()
        self.critic = Critic.load(base / "critic", critic_adapter, placement, trainable=True)
        self.artist = Artist.load(base / "artist", artist_adapter, placement, trainable=True)
        if settings.compute.gradient_checkpointing:
            self.critic.checkpoint_gradients()
            self.artist.checkpoint_gradients()
        copy_adapter(self.critic.model, "reference", critic_adapter)
        for name in ("old", "reference"):
            copy_adapter(self.artist.transformer, name, artist_adapter)
        settings.compute.settle(self.critic, self.artist)
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
        self.distance = Lpips(base / LPIPS_FILE, self.artist.device)
        self.judge = make_judge(settings.rollouts.judge, settings.rollouts.artist, journal_in(checkpoints))
        self.generator = torch.Generator().manual_seed(settings.seed)
        trained = self.critic_optimiser.parameters | self.artist_optimiser.parameters
        self.observer = Observer("stage III", settings.observer, trained, self.store)
        self.meter = metered(settings.rollouts.photos, self.critic, self.artist)
        self.drift = {"critic": AdapterDrift(self.critic.model), "artist": AdapterDrift(self.artist.transformer)}
        self.alarm = HackingAlarm(settings.alarm, settings.alarm_rule)

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
        progress = tqdm(
            range(start, iterations),
            initial=start,
            total=iterations,
            desc="stage III",
            unit="iteration",
            disable=not is_main(),
        )
        for iteration in progress:
            with self.meter.measuring():
                report = self._learn(iteration)
            for module, drift in self.drift.items():
                report |= {f"{module}/{name}": value for name, value in drift.measure().items()}
            report |= {f"throughput/{name}": value for name, value in self.meter.report().items()}
            self.tracker.metrics({f"reinforce/{name}": value for name, value in report.items()}, iteration + 1)
            progress.set_postfix(r_pa=f"{report['artist/reward_total']:.3f}", critic=f"{report['critic/reward']:.3f}")
            vital = {name: value for name, value in report.items() if name.endswith(_VITAL)}
            self.observer.finished(iteration + 1, vital, losses=("critic/loss", "artist/loss"))
            last = iteration + 1 == iterations
            if (iteration + 1) % self.settings.validate_every == 0 and not last:
                self.validate(iteration + 1)  # before the checkpoint, which keeps what the alarm has seen
            if ((iteration + 1) % self.settings.checkpoint_every == 0 and not self.observer.suspicious) or last:
                self._save(iteration + 1)

    def _learn(self, iteration: int) -> dict[str, float]:
        """One round of experience, and what both modules make of it."""
        during = f"iteration {iteration + 1}, "
        with self.observer.during(f"{during}gathering experience"):
            batch = self.batches.draw(self.settings.rollouts.photos, self.generator)
            experience = gather(
                self.critic, self.artist, batch, self.distance, self.settings.rollouts, self.generator, self.judge
            )
        with self.observer.during(f"{during}updating the Critic"):
            report = self._update_critic(experience.critic, experience.artist, iteration)
        with self.observer.during(f"{during}updating the Artist"):
            report |= self._update_artist(experience.artist, iteration)
        decay = old_decay(iteration + 1, self.settings.nft)
        follow(self.old, adapter_tensors(self.artist.transformer), decay)
        self.old_is_current = decay == 0
        return report | {"artist/old_decay": decay}

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
        report["critic/parse_rate"] = float((judged.terms["format"] > 0).float().mean())
        passed = judged.rewards_NG >= settings.pass_mark * settings.rollouts.critic.highest
        report |= {f"critic/{name}": value for name, value in pass_rates(passed).items()}
        report = summed({name: value * judged.share.weight for name, value in report.items()})
        kept = informative.nonzero()[:, 0]
        # What a completion weighs in the mean over the batch, so that the size of micro-batches changes nothing.
        weights = mask.sum(dim=1).float() if settings.grpo.loss_type == "dapo" else mask.new_ones(len(mask)).float()
        everything = torch.tensor(summed({"weight": float(weights[kept].sum())})["weight"])
        if not everything:
            return report
        parts = [
            (rows, float(weights[rows].sum() / everything)) for rows in kept.split(settings.micro_batch) if len(rows)
        ]
        if is_sharded(self.critic.model):  # whose passes need every rank: who has nothing left goes along with weight 0
            parts += [(torch.zeros(1, dtype=torch.long), 0.0)] * (most(len(parts)) - len(parts))
        for update in range(settings.critic_updates):
            totals = {"loss": 0.0, "kl": 0.0, "clip_fraction": 0.0, "entropy": 0.0}
            for number, (rows, share) in enumerate(parts, start=1):
                sum_now(self.critic.model, last=number == len(parts))
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
                require_finite({"the Critic's loss": float(loss.loss.detach()), "its divergence": float(loss.kl)})
                (loss.loss * share).backward()
                mean_entropy = float((entropy.detach() * mask[rows]).sum() / mask[rows].sum())
                scalars = (*(float(scalar.detach()) for scalar in loss), mean_entropy)
                for name, value in zip(totals, scalars, strict=True):
                    totals[name] += share * value
            norms = self.critic_optimiser.update(iteration * settings.critic_updates + update)
            report |= {f"critic/{name}": value for name, value in (summed(totals) | norms).items()}
        return report

    def _update_artist(self, edits: ArtistExperience, iteration: int) -> dict[str, float]:
        settings, group = self.settings, self.settings.rollouts.verdicts * self.settings.rollouts.edits
        judged, ours = edits.judged, edits.share
        part = int(judged.sum()) / max(1.0, summed({"judged": float(judged.sum())})["judged"])
        report = {
            f"artist/reward_{name}": float(values[judged].mean()) * part if judged.any() else 0.0
            for name, values in edits.terms.items()
        }
        report["artist/judged"] = float(judged.float().mean()) * ours.weight
        advantages, kept = torch.zeros(len(judged)), torch.zeros(len(judged))
        for start in range(0, len(judged), group):
            rows = torch.arange(start, start + group)[judged[start : start + group]]
            if len(rows) < 2 or float(edits.rewards_B[rows].std()) < settings.smallest_deviation:
                continue
            advantages[rows] = group_advantages(edits.rewards_B[rows][None])[0]
            kept[rows] = 1
        groups = int(kept.view(-1, group).any(dim=1).sum())
        report["artist/groups_kept"] = groups * group / len(judged) * ours.weight
        report["artist/clip_fraction"] = float((advantages.abs() > settings.nft.clip).float().mean()) * ours.weight
        passed = (judged & (edits.rewards_B >= settings.pass_mark)).view(-1, group)
        report |= {f"artist/{name}": value * ours.weight for name, value in pass_rates(passed).items()}
        report = summed(report)
        rows = ours.gather(kept).nonzero()[:, 0]  # of the edits of all ranks
        if not len(rows) or not settings.artist_updates:
            return report
        here = torch.full((ours.total,), -1)
        here[list(ours.rows)] = torch.arange(len(judged))
        rows = rows[torch.randperm(len(rows), generator=self.generator)]
        for update, chosen in enumerate(rows.tensor_split(min(settings.artist_updates, len(rows)))):
            totals = {"loss": 0.0, "kl": 0.0}
            passes = [part for _ in range(settings.nft.timesteps) for part in chosen.split(settings.micro_batch)]
            for number, part in enumerate(passes, start=1):
                sum_now(self.artist.transformer, last=number == len(passes))
                share = int((here[part] >= 0).sum()) / (len(chosen) * settings.nft.timesteps) / ours.copies
                loss, divergence = self._artist_loss(edits, here[part], advantages)
                terms = {"the Artist's loss": loss, "its divergence": divergence}
                require_finite({name: float(term.detach()) for name, term in terms.items()})
                if loss.requires_grad:
                    (share * (loss + settings.nft.kl * divergence)).backward()
                totals["loss"] += share * float(loss.detach())
                totals["kl"] += share * float(divergence.detach())
            norms = self.artist_optimiser.update(iteration * settings.artist_updates + update)
            self.old_is_current = False
            report |= {f"artist/{name}": value for name, value in (summed(totals) | norms).items()}
        return report

    def _artist_loss(self, edits: ArtistExperience, rows: Tensor, advantages: Tensor) -> tuple[Tensor, Tensor]:
        """DiffusionNFT loss and divergence from the reference, at one random noise level for each edit.

        Args:
            rows: of the edits of this rank; -1 for one of another rank, for which noise is drawn and nothing computed.
        """
        artist, nft, share = self.artist, self.settings.nft, self.settings.reference_share
        noise = torch.randn(len(rows), *edits.clean_BSC.shape[1:], generator=self.generator)
        sigmas = training_sigmas(artist.scheduler, len(rows), edits.grid.tokens, self.generator)
        measured = nft.kl > 0 and float(torch.rand((), generator=self.generator)) < share
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
            divergence = reference_divergence(velocity, predict("reference")).mean() / share  # unbiased
        return loss, divergence

    def validate(self, iteration: int) -> dict[str, float]:
        """Rewards on held-out photos, and what they do not pay for, over which the alarm on reward hacking watches."""
        scores = score_policy(
            self.critic,
            self.artist,
            self.held_out,
            self.distance,
            self.settings.rollouts,
            self.settings.comparison,
            self.judge,
            progress=lambda: self.observer.watchdog.progress(f"a batch of the validation after iteration {iteration}"),
        )
        means = log_policy(scores, self.tracker, "reinforce/validation", iteration)
        return means | self.alarm.watch(iteration, scores, self.tracker, self.store)

    def _save(self, iteration: int) -> None:
        tensors = self.critic_optimiser.tensors("critic.") | self.artist_optimiser.tensors("artist.")
        tensors |= {f"old.{name}": on_main(tensor) for name, tensor in self.old.items()}
        tensors["generator"] = self.generator.get_state()
        values = {"old_is_current": self.old_is_current, "validations": self.alarm.history}
        self.store.save(Checkpoint(iteration, tensors, values))

    def _restore(self) -> int:
        checkpoint = self.store.latest()
        if checkpoint is None:
            return 0
        self.critic_optimiser.restore(checkpoint.tensors, "critic.")
        self.artist_optimiser.restore(checkpoint.tensors, "artist.")
        for name, tensor in self.old.items():
            tensor.copy_(like(tensor, checkpoint.tensors[f"old.{name}"]))
        self.generator.set_state(checkpoint.tensors["generator"])
        self.old_is_current = checkpoint.values["old_is_current"]
        self.alarm.history = checkpoint.values["validations"]
        log.info("stage III: resuming at iteration %d of %d", checkpoint.step, self.settings.iterations)
        return checkpoint.step
