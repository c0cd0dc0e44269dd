"""The section "nft" of `make benchmark-train`: the loss phase of a DiffusionNFT iteration against Edit-R1's.

Both compute the gradient of one update from the same edits, rewards, noise and noise levels: stage III with the very
method its loop calls, Edit-R1 as restated in `benchmarks.edit_r1`.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple
from unittest.mock import patch

import torch
from diffusers import QwenImageTransformer2DModel
from torch import Tensor

from benchmarks.edit_r1 import LossPass, counting, edit_r1_gradients
from benchmarks.main import BenchmarkRow
from components.metrics.full_reference import LPIPS_FILE, Lpips
from components.models.flow import training_sigmas
from components.models.lora import adapter_tensors
from components.reinforcement.artist_update import ArtistUpdate
from components.reinforcement.coordinated import load_modules
from components.reinforcement.judges.judge import AttributeJudge
from components.reinforcement.nft import NftSettings
from components.reinforcement.rollouts import ArtistExperience, RolloutSettings, reward, sample
from components.reinforcement.settings import ReinforceSettings
from components.training.batches import PairBatches

SMALLEST_DEVIATION = 0.05
"""Edit-R1's filter: `ban_std_thres` of its published configurations, ten times the product's own."""
CLOSE = 1e-5
_SETTINGS = ReinforceSettings(
    iterations=100,
    rollouts=RolloutSettings(photos=3),
    artist_updates=1,
    nft=NftSettings(timesteps=1),
    micro_batch=8,
)
_ALIKE = _SETTINGS.model_copy(update={"smallest_deviation": SMALLEST_DEVIATION})
"""With Edit-R1's filter in both loops, so that their gradients can be compared."""


class Cost(NamedTuple):
    """What one update took.

    Attributes:
        equivalents: forward passes of the transformer that it is worth, of single edits.
        gradients: (N,) of the trained adapter, in one vector.
    """

    equivalents: int
    seconds: float
    gradients: Tensor


class LossComparison(NamedTuple):
    """One update in three ways: stage III's, Edit-R1's, and Edit-R1's with activations kept."""

    ours: Cost
    published: Cost
    keeping: Cost

    @property
    def difference(self) -> float:
        """Largest difference of any gradient value between the loops."""
        return float((self.ours.gradients - self.published.gradients).abs().max())


class NftTrial:
    """An Artist in stage III with one round of experience, whose update can be computed again and again.

    Args:
        arguments: base, adapters and pairs, as `components.reinforcement.coordinated.reinforce` takes them.
    """

    def __init__(self, arguments: tuple[Path, Path, Path, Path], settings: ReinforceSettings = _SETTINGS) -> None:
        if settings.artist_updates != 1:
            raise ValueError(f"expected one update an iteration, as Edit-R1 makes, found {settings.artist_updates}")
        base, critic_adapter, artist_adapter, pairs = arguments
        critic, self.artist = load_modules(base, critic_adapter, artist_adapter, settings)
        generator = torch.Generator().manual_seed(settings.seed)
        self.settings, self.update = settings, ArtistUpdate(self.artist, settings, generator)
        batch = PairBatches(pairs, "train", ["enhancement"], self.artist).draw(settings.rollouts.photos, generator)
        samples = sample(critic, self.artist, batch, settings.rollouts, generator)
        judge, distance = AttributeJudge(settings.rollouts.artist), Lpips(base / LPIPS_FILE, self.artist.device)
        experience = reward(samples, batch, distance, judge, settings.rollouts)
        self.state = generator.get_state()
        self.use(experience.artist)

    def use(self, edits: ArtistExperience) -> None:
        """Take a round of experience: advantages, and which edits are judged and in a group that differs enough.

        Attributes:
            valid: by the stage's own rule; theirs: by Edit-R1's, which masks no less.
        """
        self.edits = edits
        self.advantages, self.informative = self.update.advantages(edits)
        self.valid = self.informative.bool()
        rule = self.settings.model_copy(update={"smallest_deviation": SMALLEST_DEVIATION})
        with patch.object(self.update, "settings", rule):
            self.theirs = self.update.advantages(edits)[1].bool()

    @property
    def masked(self) -> float:
        """Share of the edits that the filter masks."""
        return 1 - float(self.valid.float().mean())

    def passes(self) -> list[LossPass]:
        """The micro-batches that stage III goes through, then those of the masked edits with noise of their own."""
        settings, generator = self.settings, torch.Generator()
        generator.set_state(self.state)
        kept = self.valid.nonzero()[:, 0]
        kept = kept[torch.randperm(len(kept), generator=generator)]
        result = []
        for rows, draw in ((kept, generator), ((~self.valid).nonzero()[:, 0], torch.Generator().manual_seed(0))):
            for part in [part for _ in range(settings.nft.timesteps) for part in rows.split(settings.micro_batch)]:
                if not len(part):
                    continue
                noise = torch.randn(len(part), *self.edits.clean_BSC.shape[1:], generator=draw)
                sigmas = training_sigmas(self.artist.scheduler, len(part), self.edits.grid.tokens, draw)
                measured = settings.nft.kl > 0 and float(torch.rand((), generator=draw)) < settings.reference_share
                kl = settings.nft.kl / settings.reference_share if measured else 0.0
                result.append(LossPass(part, noise, sigmas, kl))
        return result

    def let_old_trail(self) -> None:
        """One real optimiser step, after which `old` follows as in the loop and is no longer the current policy."""
        self._learn()
        self.update.let_old_follow(0)

    def compare(self, nft: NftSettings | None = None, repeats: int = 2, recompute: bool = False) -> LossComparison:
        """Compute the update in each way, `repeats` times in turn; the shortest times count.

        Args:
            nft: other settings of the loss than the stage's.
            recompute: stage III computes activations again in the backward pass, as Edit-R1 always does.
        """
        self.settings = self.update.settings = self.settings.model_copy(update={"nft": nft or self.settings.nft})
        ways = {"ours": self._ours, "published": self._edit_r1, "keeping": self._edit_r1}
        costs: dict[str, list[Cost]] = {name: [] for name in ways}
        for _ in range(repeats):
            for name, way in ways.items():
                with _recomputing(self.artist.transformer, name == "published" or (name == "ours" and recompute)):
                    costs[name].append(self._cost(way))
        return LossComparison(**{name: min(found, key=lambda cost: cost.seconds) for name, found in costs.items()})

    def _ours(self) -> None:
        update, current = self.update, self.update.old_is_current
        optimiser, update.optimiser = update.optimiser, _LeaveGradients()
        try:
            self._learn()
        finally:
            update.optimiser, update.old_is_current = optimiser, current

    def _learn(self) -> None:
        self.update.generator.set_state(self.state)
        self.update.learn(self.edits, self.advantages, self.informative, 0)

    def _edit_r1(self) -> None:
        edit_r1_gradients(self.artist, self.edits, self.advantages, self.theirs, self.passes(), self.settings.nft)

    def _cost(self, way: Callable[[], None]) -> Cost:
        parameters = list(adapter_tensors(self.artist.transformer).values())
        for parameter in parameters:
            parameter.grad = None
        with counting(self.artist.transformer) as work:
            began = time.perf_counter()
            way()
            seconds = time.perf_counter() - began
        gradients = torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in parameters])
        return Cost(work.equivalents, seconds, gradients.clone())


class _LeaveGradients:
    """In the optimiser's place: the gradients of an update stay where they are."""

    def update(self, step: int) -> dict[str, float]:
        return {}


@contextmanager
def _recomputing(transformer: torch.nn.Module, wanted: bool) -> Iterator[None]:
    (model,) = (module for module in transformer.modules() if isinstance(module, QwenImageTransformer2DModel))
    if wanted:
        model.enable_gradient_checkpointing()
    try:
        yield
    finally:
        model.disable_gradient_checkpointing()


def nft_rows(arguments: tuple[Path, Path, Path, Path]) -> list[BenchmarkRow]:
    """Forward-equivalents, time and gradients: as most updates of a run are, then where the loops differ most.

    Most updates of a run of configs/gpu.yaml come when `old` trails, measure the divergence and compute activations
    again; each loop masks by its own rule, on the same rewards.
    """
    own = NftTrial(arguments)
    own.let_old_trail()
    of_a_run = f"nft as in a run ({own.masked:.0%} of {len(own.valid)} edits masked; by Edit-R1's rule {_masked(own)})"
    found = own.compare(recompute=True)
    rows = _against_edit_r1(of_a_run, found.ours, found.published, 0.6, 0.6)
    trial = NftTrial(arguments, _ALIKE)
    masked = f"{trial.masked:.0%} of {len(trial.valid)} edits masked"
    without = trial.settings.nft.model_copy(update={"kl": 0.0})
    whole = trial.settings.nft
    rows += _rows(f"nft, activations kept, old is current, no divergence, {masked}", trial.compare(without))
    rows += _rows("nft, activations kept, old is current, divergence on a share of micro-batches", trial.compare(whole))
    trial.let_old_trail()
    return rows + _rows("nft, activations kept, old trails, divergence on a share", trial.compare(whole))


def _masked(trial: NftTrial) -> str:
    return f"{1 - float(trial.theirs.float().mean()):.0%}"


def _against_edit_r1(name: str, ours: Cost, peer: Cost, work: float | None, time: float | None) -> list[BenchmarkRow]:
    """Work and time of an update beside Edit-R1's, with the highest ratios that were promised, if any."""
    return [
        BenchmarkRow(
            name=name,
            value=value,
            unit=unit,
            peer=other,
            ratio=value / other,
            target="for information" if most is None else f"ratio <= {most}",
            ok=most is None or value <= most * other,
        )
        for unit, value, other, most in (
            ("forward-equivalents", ours.equivalents, peer.equivalents, work),
            ("s", ours.seconds, peer.seconds, time),
        )
    ]


def _rows(name: str, found: LossComparison) -> list[BenchmarkRow]:
    ours, published, keeping = found
    rows = []
    for what, peer in (("Edit-R1", published), ("Edit-R1 with activations kept", keeping)):
        rows += _against_edit_r1(f"{name}: against {what}", ours, peer, None, None)
    largest = float(published.gradients.abs().max())
    rows.append(
        BenchmarkRow(
            name=f"{name}: largest difference of a gradient value (the largest is {largest:.3g})",
            value=found.difference,
            unit="",
            peer=None,
            ratio=None,
            target=f"< {CLOSE:g}",
            ok=found.difference < CLOSE,
        )
    )
    return rows
