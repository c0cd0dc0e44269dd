"""Advantages and policy loss against TRL's own loss and against a float64 re-derivation token by token."""

import math
from collections import defaultdict
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor
from trl.trainer.grpo_trainer import GRPOTrainer
from trl.trainer.utils import nanstd

from components.reinforcement.grpo import GrpoSettings, LossType, group_advantages, policy_loss

LOSSES: tuple[LossType, ...] = ("grpo", "dr_grpo", "dapo")
MAX_COMPLETION = 11


def case(seed: int = 0, batch: int = 6, length: int = 9) -> dict[str, Tensor]:
    """Log-probabilities far enough apart that ratios are clipped on both sides, completions of different lengths."""
    generator = torch.Generator().manual_seed(seed)
    log_p = -3 * torch.rand(batch, length, generator=generator, dtype=torch.float64)
    lengths = torch.randint(1, length + 1, (batch,), generator=generator)
    lengths[0] = length
    return {
        "log_p_BT": log_p.requires_grad_(),
        "old_log_p_BT": log_p.detach() + 0.4 * torch.randn(log_p.shape, generator=generator, dtype=torch.float64),
        "reference_log_p_BT": log_p.detach() + 0.4 * torch.randn(log_p.shape, generator=generator, dtype=torch.float64),
        "advantages_B": torch.randn(batch, generator=generator, dtype=torch.float64),
        "mask_BT": torch.arange(length) < lengths[:, None],
    }


def trl_loss(values: dict[str, Tensor], settings: GrpoSettings) -> tuple[Tensor, dict[str, list[float]]]:
    """`GRPOTrainer._compute_loss` of TRL on given log-probabilities: one process, one accumulation step."""
    mask = values["mask_BT"].to(torch.float64)
    batch = len(mask)
    metrics: dict[str, dict[str, list[float]]] = {"train": defaultdict(list)}
    trainer = SimpleNamespace(
        _get_per_token_logps_and_entropies=lambda *a, **k: (values["log_p_BT"], torch.zeros_like(mask), None),
        aux_loss_enabled=False,
        top_entropy_quantile=1.0,
        off_policy_mask_threshold=None,
        importance_sampling_level="token",
        beta=settings.kl,
        loss_type=settings.loss_type,
        epsilon_low=settings.clip_low,
        epsilon_high=settings.clip_high,
        args=SimpleNamespace(delta=None, use_bias_correction_kl=False, steps_per_generation=1),
        use_vllm=False,
        model=SimpleNamespace(training=True),
        current_gradient_accumulation_steps=1,
        max_completion_length=settings.max_completion,
        _entropy_bonus_enabled=False,
        accelerator=SimpleNamespace(num_processes=1, reduce=lambda x, reduction: x, gather=lambda x: x),
        _metrics=metrics,
    )
    inputs = {
        "prompt_ids": torch.zeros(batch, 1, dtype=torch.long),
        "prompt_mask": torch.ones(batch, 1, dtype=torch.long),
        "completion_ids": torch.zeros_like(mask, dtype=torch.long),
        "completion_mask": mask,
        "advantages": values["advantages_B"],
        "old_per_token_logps": values["old_log_p_BT"],
        "ref_per_token_logps": values["reference_log_p_BT"],
        "num_items_in_batch": mask.sum(),
    }
    return GRPOTrainer._compute_loss(trainer, None, inputs), metrics["train"]


def derived_loss(values: dict[str, Tensor], settings: GrpoSettings) -> float:
    """The loss from the formulas of the papers, one token at a time."""
    rows = []
    for log_p, old, reference, advantage, mask in zip(
        *(values[k].tolist() for k in ("log_p_BT", "old_log_p_BT", "reference_log_p_BT", "advantages_B", "mask_BT")),
        strict=True,
    ):
        tokens = []
        for p, o, r, exists in zip(log_p, old, reference, mask, strict=True):
            if exists:
                ratio = math.exp(p - o)
                clipped = min(max(ratio, 1 - settings.clip_low), 1 + settings.clip_high)
                k3 = math.exp(r - p) - (r - p) - 1
                tokens.append(-min(ratio * advantage, clipped * advantage) + settings.kl * k3)
        rows.append(tokens)
    if settings.loss_type == "grpo":
        return sum(sum(tokens) / len(tokens) for tokens in rows) / len(rows)
    total = sum(map(sum, rows))
    count = len(rows) * settings.max_completion if settings.loss_type == "dr_grpo" else sum(map(len, rows))
    return total / count


@pytest.mark.parametrize("loss_type", LOSSES)
@pytest.mark.parametrize("kl", [0.0, 0.05])
def test_the_loss_and_its_gradient_are_those_of_trl(loss_type: LossType, kl: float) -> None:
    settings = GrpoSettings(loss_type=loss_type, kl=kl, max_completion=MAX_COMPLETION)
    for seed in range(5):
        values = case(seed)
        found = policy_loss(**values, settings=settings)
        expected, metrics = trl_loss(values, settings)
        torch.testing.assert_close(found.loss, expected, atol=1e-12, rtol=1e-12)
        gradients = [torch.autograd.grad(loss, values["log_p_BT"])[0] for loss in (found.loss, expected)]
        torch.testing.assert_close(*gradients, atol=1e-12, rtol=1e-12)
        assert float(found.clip_fraction) == pytest.approx(metrics["clip_ratio/region_mean"][0])
        assert 0 < found.clip_fraction < 1
        if kl:
            assert float(found.kl) == pytest.approx(metrics["kl"][0])


@pytest.mark.parametrize("loss_type", LOSSES)
def test_the_loss_is_the_one_of_the_papers(loss_type: LossType) -> None:
    settings = GrpoSettings(loss_type=loss_type, kl=0.05, max_completion=MAX_COMPLETION)
    for seed in range(5):
        values = case(seed)
        loss = policy_loss(**values, settings=settings).loss
        assert float(loss.detach()) == pytest.approx(derived_loss(values, settings), rel=1e-12)


@pytest.mark.parametrize("loss_type", LOSSES)
def test_what_is_behind_the_end_of_a_completion_does_not_matter(loss_type: LossType) -> None:
    settings = GrpoSettings(loss_type=loss_type, kl=0.05)
    values = case()
    before = policy_loss(**values, settings=settings).loss
    garbage = {
        name: torch.where(values["mask_BT"], values[name].detach(), -500.0)
        for name in ("old_log_p_BT", "reference_log_p_BT")
    }
    torch.testing.assert_close(policy_loss(**(values | garbage), settings=settings).loss, before)
    (gradient,) = torch.autograd.grad(before, values["log_p_BT"])
    assert (gradient[~values["mask_BT"]] == 0).all()


def test_dr_grpo_and_dapo_weigh_tokens_alike_and_grpo_weighs_completions_alike() -> None:
    mask = torch.tensor([[True, True, True, True], [True, False, False, False]])
    log_p = torch.zeros(2, 4, dtype=torch.float64, requires_grad=True)
    for loss_type, share in (("grpo", 0.25), ("dapo", 1.0), ("dr_grpo", 1.0)):
        settings = GrpoSettings(loss_type=loss_type, kl=0.0)
        loss = policy_loss(log_p, log_p.detach(), None, torch.ones(2, dtype=torch.float64), mask, settings).loss
        (gradient,) = torch.autograd.grad(loss, log_p)
        assert float(gradient[0, 0] / gradient[1, 0]) == pytest.approx(share), loss_type


def test_a_divergence_with_a_weight_needs_its_reference() -> None:
    values = case() | {"reference_log_p_BT": None}
    with pytest.raises(ValueError, match="reference"):
        policy_loss(**values, settings=GrpoSettings(kl=0.1))
    assert policy_loss(**values, settings=GrpoSettings(kl=0.0)).kl == 0


def test_the_divergence_is_positive_and_vanishes_at_the_reference() -> None:
    settings = GrpoSettings(kl=0.1)
    values = case()
    assert policy_loss(**values, settings=settings).kl > 0
    at_reference = values | {"reference_log_p_BT": values["log_p_BT"].detach()}
    assert policy_loss(**at_reference, settings=settings).kl == 0


@pytest.mark.parametrize("loss_type", LOSSES)
def test_advantages_are_those_of_trl(loss_type: LossType) -> None:
    """`scale_rewards="group"` (grpo, dapo) and `"none"` (dr_grpo) of `_generate_and_score_completions`."""
    rewards = torch.randn(5, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    rewards[2] = 0.25
    flat = rewards.flatten()
    expected = flat - torch.nanmean(flat.view(-1, 6), dim=1).repeat_interleave(6)
    if loss_type != "dr_grpo":
        expected = expected / (nanstd(flat.view(-1, 6), dim=1).repeat_interleave(6) + 1e-4)
    torch.testing.assert_close(group_advantages(rewards, loss_type).flatten(), expected, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("loss_type", LOSSES)
def test_equal_rewards_and_lone_completions_teach_nothing(loss_type: LossType) -> None:
    assert (group_advantages(torch.full((2, 4), 0.7), loss_type).abs() < 1e-3).all()
    assert (group_advantages(torch.tensor([[0.2], [0.9]]), loss_type) == 0).all()


def test_advantages_are_relative_to_their_own_group() -> None:
    rewards = torch.tensor([[0.0, 1.0], [100.0, 101.0]])
    advantages = group_advantages(rewards)
    torch.testing.assert_close(advantages[0], advantages[1], atol=1e-3, rtol=1e-3)


def one_row(values: dict[str, Tensor], row: int) -> dict[str, Tensor]:
    return {name: tensor.detach()[row : row + 1] for name, tensor in values.items()}


@pytest.mark.parametrize("loss_type", LOSSES)
@pytest.mark.parametrize("length", [1, 9])
def test_one_completion_alone_has_the_loss_of_trl(loss_type: LossType, length: int) -> None:
    settings = GrpoSettings(loss_type=loss_type, kl=0.05, max_completion=MAX_COMPLETION)
    values = one_row(case(length=length), 0)
    values["log_p_BT"].requires_grad_()
    found, (expected, metrics) = policy_loss(**values, settings=settings), trl_loss(values, settings)
    torch.testing.assert_close(found.loss, expected, atol=1e-12, rtol=1e-12)
    assert float(found.kl) == pytest.approx(metrics["kl"][0])


@pytest.mark.parametrize("loss_type", LOSSES)
@pytest.mark.parametrize("reward", [0.0, 0.1, 0.7])
def test_a_group_that_all_failed_or_all_passed_pulls_nowhere(loss_type: LossType, reward: float) -> None:
    """Rewards without variance leave the gradient of the divergence alone, as in TRL."""
    values = case()
    group = torch.full((1, len(values["mask_BT"])), reward, dtype=torch.float64)
    flat = group.flatten()
    expected = flat - flat.mean()
    if loss_type != "dr_grpo":
        expected = expected / (nanstd(group, dim=1) + 1e-4)
    advantages = group_advantages(group, loss_type).flatten()
    torch.testing.assert_close(advantages, expected, atol=1e-11, rtol=0)
    values["advantages_B"] = advantages
    for kl in (0.0, 0.05):
        settings = GrpoSettings(loss_type=loss_type, kl=kl, max_completion=MAX_COMPLETION)
        ours, theirs = policy_loss(**values, settings=settings).loss, trl_loss(values, settings)[0]
        gradients = [torch.autograd.grad(loss, values["log_p_BT"])[0] for loss in (ours, theirs)]
        torch.testing.assert_close(*gradients, atol=1e-12, rtol=1e-12)
        assert (gradients[0].abs().max() > 1e-4) == (kl > 0)


@pytest.mark.parametrize("loss_type", LOSSES)
def test_a_completion_without_tokens_changes_nothing_but_a_mean_over_completions(loss_type: LossType) -> None:
    settings = GrpoSettings(loss_type=loss_type, kl=0.05, max_completion=MAX_COMPLETION)
    values = case()
    mask = values["mask_BT"].clone()
    mask[1] = False
    emptied = values | {"mask_BT": mask}
    found, (expected, _) = policy_loss(**emptied, settings=settings), trl_loss(emptied, settings)
    torch.testing.assert_close(found.loss, expected, atol=1e-12, rtol=1e-12)
    (gradient,) = torch.autograd.grad(found.loss, values["log_p_BT"])
    assert gradient.isfinite().all() and (gradient[1] == 0).all()


@pytest.mark.parametrize("loss_type", LOSSES)
def test_a_batch_without_any_token_has_a_loss_of_zero(loss_type: LossType) -> None:
    values = case() | {"mask_BT": torch.zeros(6, 9, dtype=torch.bool)}
    found = policy_loss(**values, settings=GrpoSettings(loss_type=loss_type, kl=0.05))
    assert found.loss.item() == found.kl.item() == float(found.clip_fraction) == 0


@pytest.mark.parametrize("broken", [math.nan, math.inf])
def test_no_update_comes_of_a_broken_reward(broken: float) -> None:
    with pytest.raises(ValueError, match="found 1 that are not"):
        group_advantages(torch.tensor([[0.1, broken], [0.5, 0.2]]))
