"""The DiffusionNFT loss against a float64 re-derivation number by number, and the properties it is built for."""

import pytest
import torch
from torch import Tensor

from components.models.flow import flow_matching_loss, interpolate
from components.reinforcement.nft import NftSettings, follow, nft_loss, old_decay, optimality, reference_divergence

CLIP = 5.0


def case(seed: int = 0, batch: int = 5) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    clean, noise, velocity, old = (torch.randn(batch, 4, 6, generator=generator, dtype=torch.float64) for _ in range(4))
    sigmas = torch.rand(batch, generator=generator, dtype=torch.float64) * 0.98 + 0.02
    return {
        "velocity": velocity.requires_grad_(),
        "old_velocity": old,
        "noisy": interpolate(clean, noise, sigmas),
        "clean": clean,
        "sigma_B": sigmas,
        "advantages_B": 4 * torch.randn(batch, generator=generator, dtype=torch.float64),
    }


def derived(values: dict[str, Tensor], beta: float, clip: float) -> list[float]:
    """The formulas of the specification on plain numbers."""
    losses = []
    for v, v_old, x_t, x_0, t, advantage in zip(*(values[k].tolist() for k in values), strict=True):
        v, v_old, x_t, x_0 = ([x for row in rows for x in row] for rows in (v, v_old, x_t, x_0))
        r = min(max(advantage, -clip), clip) / (2 * clip) + 0.5
        plus = [x - t * (beta * a + (1 - beta) * b) - c for x, a, b, c in zip(x_t, v, v_old, x_0, strict=True)]
        minus = [x - t * ((1 + beta) * b - beta * a) - c for x, a, b, c in zip(x_t, v, v_old, x_0, strict=True)]
        terms = []
        for errors in (plus, minus):
            weight = max(sum(map(abs, errors)) / len(errors), 1e-5)
            terms.append(sum(e * e for e in errors) / len(errors) / weight)
        losses.append(clip * (r * terms[0] + (1 - r) * terms[1]) / beta)
    return losses


@pytest.mark.parametrize("beta", [1.0, 0.5, 0.1])
@pytest.mark.parametrize("clip", [5.0, 1.0])
def test_the_loss_is_the_one_of_the_paper(beta: float, clip: float) -> None:
    for seed in range(3):
        values = case(seed)
        found = nft_loss(**values, settings=NftSettings(beta=beta, clip=clip))
        torch.testing.assert_close(found.tolist(), derived(values, beta, clip), rtol=1e-12, atol=0.0)


def test_weights_are_not_differentiated_through() -> None:
    values, settings = case(), NftSettings(beta=0.5)
    (found,) = torch.autograd.grad(nft_loss(**values, settings=settings).sum(), values["velocity"])
    sigma, r = values["sigma_B"].view(-1, 1, 1), optimality(values["advantages_B"], CLIP).view(-1, 1, 1)
    v, old = values["velocity"].detach(), values["old_velocity"]
    plus = values["noisy"] - sigma * (0.5 * v + 0.5 * old) - values["clean"]
    minus = values["noisy"] - sigma * (1.5 * old - 0.5 * v) - values["clean"]
    weights = [error.abs().mean(dim=(1, 2), keepdim=True) for error in (plus, minus)]
    expected = CLIP * 2 * sigma / v[0].numel() * ((1 - r) * minus / weights[1] - r * plus / weights[0])
    torch.testing.assert_close(found, expected)


def test_at_the_rollout_policy_the_gradient_is_flow_matching_scaled_by_the_advantage() -> None:
    """There v+ = v-, so the pull is (2 r - 1) = A / c of the flow-matching gradient: none at A = 0, away below it."""
    values = case()
    clean, sigma = values["clean"], values["sigma_B"].view(-1, 1, 1)
    noise = (values["noisy"] - (1 - sigma) * clean) / sigma
    for advantage in (-CLIP, -2.0, 0.0, 2.0, CLIP):
        velocity = values["old_velocity"].clone().requires_grad_()
        arguments = values | {"velocity": velocity, "advantages_B": torch.full((5,), advantage, dtype=torch.float64)}
        (found,) = torch.autograd.grad(nft_loss(**arguments, settings=NftSettings()).sum(), velocity)
        (plain,) = torch.autograd.grad(flow_matching_loss(velocity, clean, noise).sum(), velocity)
        error = values["noisy"] - sigma * velocity.detach() - clean
        scale = advantage * sigma**2 / error.abs().mean(dim=(1, 2), keepdim=True)
        torch.testing.assert_close(found, scale * plain, atol=1e-12, rtol=1e-9)


def test_a_step_goes_towards_good_edits_and_away_from_bad_ones() -> None:
    values = case()
    for advantage, closer in ((3.0, True), (-3.0, False)):
        velocity = values["old_velocity"].clone().requires_grad_()
        arguments = values | {"velocity": velocity, "advantages_B": torch.full((5,), advantage, dtype=torch.float64)}
        (gradient,) = torch.autograd.grad(nft_loss(**arguments, settings=NftSettings()).sum(), velocity)
        sigma = values["sigma_B"].view(-1, 1, 1)
        before, after = (
            (values["noisy"] - sigma * v - values["clean"]).square().sum(dim=(1, 2))
            for v in (velocity.detach(), velocity.detach() - 1e-3 * gradient)
        )
        assert ((after < before) == closer).all()


def test_the_rollout_policy_gets_no_gradient() -> None:
    values = case()
    values["old_velocity"].requires_grad_()
    nft_loss(**values, settings=NftSettings(beta=0.3)).sum().backward()
    assert values["velocity"].grad is not None and values["old_velocity"].grad is None


def test_a_perfect_prediction_divides_by_the_floor() -> None:
    values = case()
    sigma = values["sigma_B"].view(-1, 1, 1)
    exact = (values["noisy"] - values["clean"]) / sigma
    loss = nft_loss(**(values | {"velocity": exact, "old_velocity": exact}), settings=NftSettings())
    assert loss.isfinite().all() and (loss < 1e-9).all()


def test_optimality_is_a_probability() -> None:
    advantages = torch.tensor([-100.0, -5.0, 0.0, 2.5, 5.0, 100.0])
    assert optimality(advantages, CLIP).tolist() == [0, 0, 0.5, 0.75, 1, 1]


def test_the_divergence_is_a_mean_square_that_moves_only_the_policy() -> None:
    velocity = torch.randn(3, 4, 6, generator=torch.Generator().manual_seed(0), requires_grad=True)
    reference = (velocity.detach() + torch.tensor([0.0, 1.0, 2.0]).view(3, 1, 1)).requires_grad_()
    divergence = reference_divergence(velocity, reference)
    torch.testing.assert_close(divergence, torch.tensor([0.0, 1.0, 4.0]))
    divergence.sum().backward()
    assert reference.grad is None and velocity.grad is not None


def test_the_rollout_policy_follows_at_a_ramped_and_capped_rate() -> None:
    settings = NftSettings(decay_rate=0.01, decay_cap=0.05)
    assert [old_decay(update, settings) for update in (1, 2, 5, 6, 100)] == [0.01, 0.02, 0.05, 0.05, 0.05]
    old = {"a": torch.tensor([0.0, 1.0]), "b": torch.tensor([2.0])}
    kept = old["a"]
    current = {"a": torch.tensor([1.0, 1.0]), "b": torch.tensor([4.0])}
    follow(old, current, 0.75)
    assert old["a"] is kept
    torch.testing.assert_close(old["a"], torch.tensor([0.25, 1.0]))
    torch.testing.assert_close(old["b"], torch.tensor([2.5]))
    follow(old, current, 0.0)
    assert all(torch.equal(old[name], current[name]) for name in old)
