"""The Critic's part of stage III: GRPO on the completions of a round."""

from typing import NamedTuple

import torch
from torch import Tensor

from components.models.critic import Critic
from components.models.lora import active_adapter, adapter_tensors
from components.parallel.ranks import all_reduce, all_reduce_max
from components.parallel.sharding import is_sharded, sum_now
from components.reinforcement.grpo import PolicyLoss, group_advantages, policy_loss
from components.reinforcement.optimisers import adapter_optimiser
from components.reinforcement.policy_statistics import pass_rates
from components.reinforcement.rollouts import ArtistExperience, CriticExperience
from components.reinforcement.settings import ReinforceSettings
from components.training.divergence import require_finite


class MicroBatch(NamedTuple):
    """Completions of one pass, by their indices, and what they weigh in the mean over those of all ranks."""

    rows: Tensor
    weight: float


class CriticUpdate:
    """The Critic's optimiser, and what it does with a round of experience.

    Args:
        critic: with the adapter that is trained, and the adapter `reference`.
    """

    def __init__(self, critic: Critic, settings: ReinforceSettings):
        self.critic, self.settings = critic, settings
        self.optimiser = adapter_optimiser(
            adapter_tensors(critic.model),
            settings.critic_learning_rate,
            settings.critic_updates,
            settings.iterations,
            settings.average_decay,
        )

    def rewards(self, completions: CriticExperience, edits: ArtistExperience) -> Tensor:
        """Rewards (N, G) with the feedback of the edits that were made for the verdicts."""
        return completions.rewards_NG + self.settings.feedback * _feedback(completions, edits)

    def advantages(self, rewards_NG: Tensor) -> tuple[Tensor, Tensor]:
        """Advantages (B,) of all completions, and which of them (B,) are in a group whose rewards differ enough."""
        informative = rewards_NG.std(dim=1) >= self.settings.smallest_deviation
        advantages = group_advantages(rewards_NG, self.settings.grpo.loss_type)
        return advantages.flatten(), informative.repeat_interleave(rewards_NG.shape[1])

    def report(
        self, completions: CriticExperience, edits: ArtistExperience, rewards_NG: Tensor, informative: Tensor
    ) -> dict[str, float]:
        """What a round says about the Critic, of all ranks together."""
        settings = self.settings
        report = {f"reward_{name}": float(values.mean()) for name, values in completions.terms.items()}
        report |= {"reward": float(rewards_NG.mean()), "reward_deviation": float(rewards_NG.std(dim=1).mean())}
        report["groups_kept"] = float(informative.float().mean())
        report["completion_tokens"] = float(completions.rollout.token_mask_BT.sum(dim=1).float().mean())
        report["parse_rate"] = float((completions.terms["format"] > 0).float().mean())
        report |= pass_rates(completions.rewards_NG >= settings.pass_mark * settings.rollouts.critic.highest)
        if settings.feedback:
            about_photos = len(rewards_NG) // 2
            report["reward_feedback"] = float(_feedback(completions, edits)[:about_photos].mean())
        return all_reduce({name: value * completions.share.weight for name, value in report.items()})

    def learn(
        self, completions: CriticExperience, advantages: Tensor, informative: Tensor, iteration: int
    ) -> dict[str, float]:
        """Take the optimiser steps of an iteration; reports those of the last one, nothing where nothing is learnt."""
        report: dict[str, float] = {}
        micro_batches = self._micro_batches(completions, informative)
        if micro_batches is None:
            return report
        for update in range(self.settings.critic_updates):
            means = {"loss": 0.0, "kl": 0.0, "clip_fraction": 0.0, "entropy": 0.0}
            for number, (rows, weight) in enumerate(micro_batches, start=1):
                sum_now(self.critic.model, last=number == len(micro_batches))
                loss, entropy = self._loss(completions, advantages, rows)
                require_finite({"the Critic's loss": float(loss.loss.detach()), "its divergence": float(loss.kl)})
                (loss.loss * weight).backward()
                scalars = (*(float(scalar.detach()) for scalar in loss), entropy)
                for name, value in zip(means, scalars, strict=True):
                    means[name] += weight * value
            norms = self.optimiser.update(iteration * self.settings.critic_updates + update)
            report = all_reduce(means) | norms
        return report

    def _micro_batches(self, completions: CriticExperience, informative: Tensor) -> list[MicroBatch] | None:
        """This rank's informative completions, in parts whose size changes nothing but memory.

        Returns:
            None where no rank has any; nothing in the list where others have, whose optimiser steps this rank shares.
        """
        mask, kept = completions.rollout.token_mask_BT, informative.nonzero()[:, 0]
        by_tokens = self.settings.grpo.loss_type == "dapo"
        weights = mask.sum(dim=1).float() if by_tokens else mask.new_ones(len(mask)).float()
        of_all_ranks = torch.tensor(all_reduce({"weight": float(weights[kept].sum())})["weight"])
        if not of_all_ranks:
            return None
        micro_batches = [
            MicroBatch(rows, float(weights[rows].sum() / of_all_ranks))
            for rows in kept.split(self.settings.micro_batch)
            if len(rows)
        ]
        if is_sharded(self.critic.model):  # whose passes need every rank: who has nothing left goes along with weight 0
            idle = MicroBatch(torch.zeros(1, dtype=torch.long), 0.0)
            micro_batches += [idle] * (all_reduce_max(len(micro_batches)) - len(micro_batches))
        return micro_batches

    def _loss(self, completions: CriticExperience, advantages: Tensor, rows: Tensor) -> tuple[PolicyLoss, float]:
        """GRPO's loss of some completions, and the mean entropy of what their tokens were drawn from."""
        rollout, grpo = completions.rollout, self.settings.grpo
        prompts, tokens, mask = completions.prompts[rows], rollout.tokens_BT[rows], rollout.token_mask_BT[rows]
        reference = None
        if grpo.kl > 0:
            with torch.no_grad(), active_adapter(self.critic.model, "reference"):
                reference, _ = self.critic.log_probabilities(prompts, tokens, mask)
        log_p, entropy = self.critic.log_probabilities(prompts, tokens, mask)
        loss = policy_loss(log_p, rollout.log_probabilities_BT[rows], reference, advantages[rows].to(log_p), mask, grpo)
        return loss, float((entropy * mask).sum() / mask.sum())


def _feedback(completions: CriticExperience, edits: ArtistExperience) -> Tensor:
    """(N, G): the mean r_PA of the edits that each verdict about a photo led to; 0 of those about better versions."""
    feedback = torch.zeros_like(completions.rewards_NG)
    photos, group_size = len(feedback) // 2, feedback.shape[1]
    feedback[:photos] = edits.rewards_B.view(photos, group_size, -1).mean(dim=2)
    return feedback
