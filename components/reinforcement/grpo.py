"""Group-relative policy optimisation of the Critic (Shao et al. 2024), with the variants Dr. GRPO and DAPO.

All completions of one photo form a group; the advantage of a completion is its reward relative to its group, so no
value network is needed.
"""

from typing import Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor

from components.strict import Strict
from components.training.divergence import DivergenceError

LossType = Literal["grpo", "dr_grpo", "dapo"]


class GrpoSettings(Strict):
    """The policy loss."""

    loss_type: LossType = Field(
        default="dapo",
        description='How token losses are averaged. "grpo": over each completion, then over completions; "dr_grpo": '
        "over a constant length, with advantages that are not divided by the group's deviation (Liu et al. 2025); "
        '"dapo": over all tokens of the batch (Yu et al. 2025).',
    )
    clip_low: float = Field(default=0.2, gt=0, lt=1, description="The ratio is clipped from below at 1 - clip_low.")
    clip_high: float = Field(default=0.28, gt=0, description="The ratio is clipped from above at 1 + clip_high.")
    kl: float = Field(default=0.02, ge=0, description="Weight of the divergence from the reference policy.")
    max_completion: int = Field(
        default=200, gt=0, description="Longest completion, and the constant length of dr_grpo. Tokens."
    )


class PolicyLoss(NamedTuple):
    """Scalars of one loss: the loss itself, mean divergence from the reference, share of clipped tokens."""

    loss: Tensor
    kl: Tensor
    clip_fraction: Tensor


def group_advantages(rewards_PG: Tensor, loss_type: LossType = "grpo", epsilon: float = 1e-4) -> Tensor:
    """Advantages (P, G) of the rewards of P groups: (r - mean) / (std + epsilon), or r - mean for `dr_grpo`.

    A group whose rewards are all equal, or a group of one, gets advantages of 0.

    Raises:
        DivergenceError: a reward is not finite: something broke, and no update may come of it.
    """
    if not rewards_PG.isfinite().all():
        raise DivergenceError(f"rewards must be finite, found {int((~rewards_PG.isfinite()).sum())} that are not")
    centred = rewards_PG - rewards_PG.mean(dim=1, keepdim=True)
    if loss_type == "dr_grpo":
        return centred
    deviation = rewards_PG.std(dim=1, keepdim=True) if rewards_PG.shape[1] > 1 else torch.zeros_like(centred)
    return centred / (deviation + epsilon)


def policy_loss(
    log_p_BT: Tensor,
    old_log_p_BT: Tensor,
    reference_log_p_BT: Tensor | None,
    advantages_B: Tensor,
    mask_BT: Tensor,
    settings: GrpoSettings,
) -> PolicyLoss:
    """Clipped policy-gradient loss with the k3 estimator of the divergence: exp(d) - d - 1, d = log p_ref - log p.

    Args:
        log_p_BT: log-probabilities of the tokens under the policy being trained.
        old_log_p_BT: under the policy that sampled them.
        reference_log_p_BT: under the reference policy; needed when `settings.kl` is above 0.
        mask_BT: True where a token exists.
    """
    mask = mask_BT.to(log_p_BT.dtype)
    ratio = ((log_p_BT - old_log_p_BT) * mask).exp()
    clipped = ratio.clamp(1 - settings.clip_low, 1 + settings.clip_high)
    advantages = advantages_B[:, None]
    token_loss = -torch.minimum(ratio * advantages, clipped * advantages)
    kl = torch.zeros_like(token_loss)
    if settings.kl > 0:
        if reference_log_p_BT is None:
            raise ValueError("the divergence has a weight: pass the reference policy's log-probabilities")
        d = (reference_log_p_BT - log_p_BT) * mask
        kl = d.exp() - d - 1
        token_loss = token_loss + settings.kl * kl
    if settings.loss_type == "grpo":
        loss = ((token_loss * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1)).mean()
    elif settings.loss_type == "dr_grpo":
        loss = (token_loss * mask).sum() / (len(mask) * settings.max_completion)
    else:
        loss = (token_loss * mask).sum() / mask.sum().clamp(min=1)
    tokens = mask.sum().clamp(min=1)
    low = (ratio < 1 - settings.clip_low) & (advantages < 0)
    high = (ratio > 1 + settings.clip_high) & (advantages > 0)
    return PolicyLoss(loss, ((kl * mask).sum() / tokens).detach(), (((low | high) * mask).sum() / tokens).detach())
