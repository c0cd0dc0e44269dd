"""The optimisation loop that every stage shares: schedule, clipping, logging, progress, resumable checkpoints."""

import logging
import math
import time
from collections.abc import Callable, Collection, Iterable, Iterator

import torch
from pydantic import Field
from torch import Tensor, nn
from tqdm import tqdm

from components.parallel.ranks import all_reduce, is_main, sum_gradients
from components.parallel.sharding import clip_gradients, like, on_main
from components.strict import Strict
from components.training.checkpoints import Checkpoint, CheckpointStore
from components.training.divergence import DivergenceError, require_finite
from components.training.observer import Observer, ObserverSettings
from components.training.throughput import Meter
from components.training.tracker import Tracker

log = logging.getLogger(__name__)
_MOMENTS = ("exp_avg", "exp_avg_sq", "momentum_buffer")  # of AdamW and of Muon, as torch names them


class OptimiserSettings(Strict):
    """AdamW with linear warm-up and cosine decay to `final_fraction` of the learning rate."""

    learning_rate: float = Field(gt=0, description="Highest rate, reached after the warm-up.")
    steps: int = Field(gt=0, description="Optimiser steps.")
    warmup_steps: int = Field(default=20, ge=0, description="Optimiser steps in which the rate rises linearly.")
    final_fraction: float = Field(default=0.05, ge=0, le=1, description="Share of the rate that is left at the end.")
    weight_decay: float = Field(default=0.01, ge=0, description="AdamW's decoupled weight decay.")
    beta_2: float = Field(default=0.99, gt=0, lt=1, description="AdamW's decay of the mean squared gradient.")
    max_grad_norm: float = Field(default=1.0, gt=0, description="Gradients with a larger norm are scaled down to it.")
    ema_decay: float = Field(default=0.0, ge=0, lt=1, description="Decay of the weights' moving average; 0 keeps none.")
    observer: ObserverSettings = Field(default_factory=ObserverSettings)


def learning_rate_at(step: int, settings: OptimiserSettings) -> float:
    """Learning rate of a 0-based optimiser step."""
    if step < settings.warmup_steps:
        return settings.learning_rate * (step + 1) / settings.warmup_steps
    progress = (step - settings.warmup_steps) / max(1, settings.steps - settings.warmup_steps)
    cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
    return settings.learning_rate * (settings.final_fraction + (1 - settings.final_fraction) * cosine)


class Optimiser:
    """AdamW over named parameters, whose whole state can be put into a checkpoint and back bit for bit.

    Args:
        orthogonalised: names of matrices that Muon updates instead: by their momentum, orthogonalised, at a step as
            large as AdamW's would be. Whole matrices only, not shards of them.
            Source: Jordan et al., Muon (2024); Liu et al., Muon is Scalable for LLM Training (2025) for the step.
    """

    def __init__(
        self,
        parameters: Iterable[tuple[str, nn.Parameter]],
        settings: OptimiserSettings,
        orthogonalised: Collection[str] = (),
    ):
        self.settings = settings
        self.parameters = dict(parameters)
        if not self.parameters:
            raise ValueError("nothing to train: no parameter requires a gradient")
        self._name = {id(parameter): name for name, parameter in self.parameters.items()}
        rest = [parameter for name, parameter in self.parameters.items() if name not in orthogonalised]
        decay = settings.weight_decay
        self._rules: list[torch.optim.Optimizer] = [
            torch.optim.AdamW(rest, lr=0.0, betas=(0.9, settings.beta_2), weight_decay=decay)
        ]
        if orthogonalised:
            matrices = [self.parameters[name] for name in orthogonalised]
            self._rules.append(torch.optim.Muon(matrices, lr=0.0, weight_decay=decay, adjust_lr_fn="match_rms_adamw"))
        self.average = {n: p.detach().clone() for n, p in self.parameters.items()} if settings.ema_decay else {}

    def update(self, step: int) -> dict[str, float]:
        """Apply the accumulated gradients as optimiser step `step`; returns the gradient norm and learning rate.

        The gradients are this rank's part of a sum over all ranks, which is formed here.
        """
        sum_gradients(self.parameters.values())
        norm = clip_gradients(self.parameters.values(), self.settings.max_grad_norm)
        if not torch.isfinite(norm):
            bad = [n for n, p in self.parameters.items() if p.grad is not None and not p.grad.isfinite().all()]
            raise DivergenceError(f"the gradient of step {step} is not finite, first in {bad[:3]}; lower learning_rate")
        rate = learning_rate_at(step, self.settings)
        for rule in self._rules:
            for group in rule.param_groups:
                group["lr"] = rate
            rule.step()
            rule.zero_grad(set_to_none=True)
        decay = min(self.settings.ema_decay, (step + 1) / (step + 10))
        for name, average in self.average.items():
            average.lerp_(self.parameters[name].detach(), 1 - decay)
        return {"gradient_norm": float(norm), "learning_rate": rate}

    def tensors(self, prefix: str = "") -> dict[str, Tensor]:
        """Parameters and moments by name, in full on the main rank; every rank must call it."""
        tensors = {}
        for rule, parameter in self._ruled():
            name = self._name[id(parameter)]
            tensors[f"{prefix}parameter.{name}"] = on_main(parameter.detach())
            for key, value in rule.state.get(parameter, {}).items():
                tensors[f"{prefix}{key}.{name}"] = on_main(value)
            if name in self.average:
                tensors[f"{prefix}average.{name}"] = on_main(self.average[name])
        return tensors

    def _ruled(self) -> Iterator[tuple[torch.optim.Optimizer, nn.Parameter]]:
        """Every parameter with the rule that updates it."""
        return (
            (rule, parameter) for rule in self._rules for group in rule.param_groups for parameter in group["params"]
        )

    @torch.no_grad()
    def use_average(self) -> None:
        """End of training: the moving average, where one is kept, becomes the weights."""
        for name, average in self.average.items():
            self.parameters[name].copy_(average)

    @torch.no_grad()
    def restore(self, tensors: dict[str, Tensor], prefix: str = "") -> None:
        """Put back what `tensors` returned. Raises KeyError when a parameter is missing."""
        for rule, parameter in self._ruled():
            name = self._name[id(parameter)]
            parameter.copy_(like(parameter, tensors[f"{prefix}parameter.{name}"]))
            if name in self.average:
                self.average[name] = like(parameter, tensors[f"{prefix}average.{name}"])
            if f"{prefix}step.{name}" in tensors:
                rule.state[parameter]["step"] = tensors[f"{prefix}step.{name}"].clone()
            for moment in _MOMENTS:
                if (value := tensors.get(f"{prefix}{moment}.{name}")) is not None:
                    rule.state[parameter][moment] = like(parameter, value)


def fit(
    name: str,
    parameters: Iterable[tuple[str, nn.Parameter]],
    losses: Callable[[int, torch.Generator], dict[str, Tensor]],
    settings: OptimiserSettings,
    tracker: Tracker,
    store: CheckpointStore,
    seed: int,
    checkpoint_every: int = 50,
    log_every: int = 5,
    after_step: Callable[[int], None] | None = None,
    meter: Meter | None = None,
    orthogonalised: Collection[str] = (),
) -> dict[str, float]:
    """Minimise `losses(step, generator)["loss"]`, resuming from the newest checkpoint of `store`.

    Of several ranks each returns its part of every value from `losses`: what is minimised and reported is their sum.

    Args:
        name: shown in the progress bar and prefixed to every metric.
        parameters: named parameters to train.
        losses: draws its own batch from the generator and returns scalar tensors; "loss" is minimised.
        seed: of the generator that `losses` draws from; a run that resumes continues its stream.
        after_step: called with the number of finished steps, for pictures and validation.
        meter: counts what passes through the models, for the rates under `<name>/throughput`; without one there is only
            the memory.
        orthogonalised: names of matrices that Muon updates (`Optimiser`).

    Returns:
        the mean of each reported value over the last tenth of the steps that this process ran.

    Raises:
        DivergenceError: the loss or the gradient is not finite, or the loss stayed out of its range.
    """
    generator = torch.Generator().manual_seed(seed)
    optimiser, meter = Optimiser(parameters, settings, orthogonalised), meter or Meter()
    start = 0
    if (checkpoint := store.latest()) is not None:
        optimiser.restore(checkpoint.tensors)
        generator.set_state(checkpoint.tensors["generator"])
        start = checkpoint.step
        log.info("%s: resuming at step %d of %d", name, start, settings.steps)
    if meter.hardware is not None:
        tracker.hardware(*meter.hardware)
    history: list[dict[str, float]] = []
    progress = tqdm(
        range(start, settings.steps),
        initial=start,
        total=settings.steps,
        desc=name,
        unit="step",
        disable=not is_main(),
    )
    with Observer(name, settings.observer, optimiser.parameters, store) as observer:
        for step in progress:
            began = time.perf_counter()
            with observer.during(f"step {step}"), meter.measuring():
                values = losses(step, generator)
                report = all_reduce({key: float(value.detach()) for key, value in values.items()})
                require_finite({"loss": report["loss"]})
                values["loss"].backward()
                report |= optimiser.update(step)
            report["seconds"] = time.perf_counter() - began
            history.append(report)
            observer.finished(step, report, losses=("loss",))
            last = step + 1 == settings.steps
            if (step + 1) % log_every == 0 or last:
                recent = history[-log_every:]
                means = {key: sum(row[key] for row in recent) / len(recent) for key in report}
                rates = {f"throughput/{key}": value for key, value in meter.report().items()}
                tracker.metrics({f"{name}/{key}": value for key, value in (means | rates).items()}, step + 1)
                progress.set_postfix(loss=f"{means['loss']:.4f}")
            if ((step + 1) % checkpoint_every == 0 and not observer.suspicious) or last:
                tensors = optimiser.tensors() | {"generator": generator.get_state()}
                store.save(Checkpoint(step + 1, tensors, {}))
            if after_step is not None:
                after_step(step + 1)
    optimiser.use_average()
    tail = history[-max(1, len(history) // 10) :] if history else []
    return {key: sum(row[key] for row in tail) / len(tail) for key in tail[0]} if tail else {}
