"""The plan of a profile on given GPUs: memory by part, time a stage, and whether it fits."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from components.models.published import Configurations, ModelSize, artist_on_meta, critic_on_meta, size_of
from components.planning.gpus import Gpu, gpu_named
from components.planning.memory import Tracer
from components.planning.settings import PlanSettings, Sharding
from components.planning.stages import STAGES, Phase, Stage, StagePlanner, Work
from components.settings import Settings
from components.strict import Strict

ADAPTER_BYTES = 4  # adapters, their gradients, AdamW's moments and averages are float32
GATHERED_BLOCKS = 2  # the block being computed and the one being fetched


class PhaseMemory(Strict):
    """Bytes of a phase beside the models."""

    name: str
    rows: int
    activations: int
    workspace: int
    cache: int


class Option(Strict):
    """A stage under one sharding, with or without gradient checkpointing; bytes are those of one GPU.

    Attributes:
        parts: memory that is held all the time, by what holds it.
        phases: memory of the phases beside that, one after another.
        capacity: bytes that may be used.
        seconds_per_step, validation_seconds: estimates at the assumed utilisation, of a step and of a validation.
        hours, hours_most: of all steps and validations, and where only `PlanSettings.mfu_low` is reached.
        largest_rows: samples at once that would fit into the phase that needs most; 0 if none.
    """

    sharding: Sharding
    checkpointing: bool
    parts: dict[str, int]
    phases: tuple[PhaseMemory, ...]
    peak_phase: str
    peak: int
    capacity: int
    fits: bool
    largest_rows: int
    flops_per_step: int
    seconds_per_step: float
    validation_seconds: float
    hours: float
    hours_most: float


class StagePlan(Strict):
    """A stage with all its options, the one to take first."""

    name: str
    steps: int
    samples_per_step: int
    validations: int
    trainable_parameters: int
    options: tuple[Option, ...]

    @property
    def best(self) -> Option:
        return self.options[0]


class ModelPlan(Strict):
    """Parameters of one model."""

    name: str
    parameters: int
    adapter_parameters: int


class Plan(Strict):
    """What `smartphotocrafter plan --json` prints."""

    gpu: str
    count: int
    memory_per_gpu: int
    mfu: float
    mfu_low: float
    mbu: float
    reserve: float
    working_size: tuple[int, int]
    models: tuple[ModelPlan, ...]
    stages: tuple[StagePlan, ...]
    fits: bool


@dataclass(frozen=True)
class _Sizes:
    critic: ModelSize
    artist: ModelSize
    vae: ModelSize


def make_plan(
    settings: Settings, configurations: Configurations, plan: PlanSettings, names: Sequence[str] = STAGES
) -> Plan:
    """Plan the training stages of a profile, all four or those that are named.

    Precision is the stages' `compute.dtype`; whether gradients are checkpointed is tried both ways, unless `plan` says.

    Raises:
        ValueError: the GPU is not known, a stage has fewer samples a step than there are GPUs, or it trains whole
            weights, which nothing here counts.
    """
    whole = [name for name in names if getattr(getattr(settings, name), "trainable", "lora") == "full"]
    if whole:
        raise ValueError(f"{whole[0]}.trainable is full: plans are for adapters (lora) only")
    gpu = gpu_named(plan.gpu)
    lora = settings.adapt_artist.lora
    artist = artist_on_meta(configurations, lora)
    artist.area = plan.workload.area or artist.area
    critic = critic_on_meta(configurations, settings.train_critic.lora)
    sizes = _Sizes(size_of(critic), size_of(artist.transformer), size_of(artist.vae))
    planners = {
        name: StagePlanner(settings, Tracer(configurations, getattr(torch, name)), artist, plan.workload, plan.count)
        for name in {getattr(settings, stage).compute.dtype for stage in names}
    }
    found: dict[str, list[tuple[Stage, Option]]] = {}
    for checkpointing in plan.checkpointing:
        for name in names:
            planner = planners[getattr(settings, name).compute.dtype]
            stage = planner.stage(name, checkpointing)
            for sharding in plan.shardings:
                option = _option(stage, sizes, sharding, checkpointing, planner.tracer.dtype.itemsize, gpu, plan)
                found.setdefault(name, []).append((stage, option))
    stages = tuple(_stage_plan(options, sizes) for options in found.values())
    return Plan(
        gpu=plan.gpu,
        count=plan.count,
        memory_per_gpu=gpu.memory,
        mfu=plan.mfu,
        mfu_low=min(plan.mfu, plan.mfu_low),
        mbu=plan.mbu,
        reserve=plan.reserve,
        working_size=next(iter(planners.values())).size,
        models=(
            _model_plan("critic", sizes.critic),
            _model_plan("artist", sizes.artist),
            _model_plan("autoencoder", sizes.vae),
        ),
        stages=stages,
        fits=all(stage.best.fits for stage in stages),
    )


def _stage_plan(options: Sequence[tuple[Stage, Option]], sizes: _Sizes) -> StagePlan:
    stage = options[0][0]
    # what fits comes first, and of that what takes least time; of what does not, what lacks least
    ranked = sorted(
        (option for _, option in options),
        key=lambda option: (not option.fits, option.hours if option.fits else option.peak - option.capacity),
    )
    return StagePlan(
        name=stage.name,
        steps=stage.work.steps,
        samples_per_step=stage.work.samples,
        validations=stage.validation.steps,
        trainable_parameters=sum(getattr(sizes, model).adapter for model in stage.trained),
        options=tuple(ranked),
    )


def _option(
    stage: Stage, sizes: _Sizes, sharding: Sharding, checkpointing: bool, itemsize: int, gpu: Gpu, plan: PlanSettings
) -> Option:
    parts = _parts(stage, sizes, sharding, itemsize, plan.count)
    held, capacity = sum(parts.values()), int(gpu.memory * (1 - plan.reserve))
    worst = max(stage.phases, key=lambda phase: phase.bytes)
    times = [
        [_seconds(work, sizes, sharding, itemsize, gpu, plan, mfu) for work in (stage.work, stage.validation)]
        for mfu in (plan.mfu, min(plan.mfu, plan.mfu_low))
    ]
    hours = [(step * stage.work.steps + check * stage.validation.steps) / 3600 for step, check in times]
    return Option(
        sharding=sharding,
        checkpointing=checkpointing,
        parts=parts,
        phases=tuple(_phase(phase) for phase in stage.phases),
        peak_phase=worst.name,
        peak=held + worst.bytes,
        capacity=capacity,
        fits=held + worst.bytes <= capacity,
        largest_rows=max(0, int((capacity - held) // (worst.bytes / worst.rows))),
        flops_per_step=stage.work.flops + stage.work.decoding_flops,
        seconds_per_step=times[0][0],
        validation_seconds=times[0][1],
        hours=hours[0],
        hours_most=hours[1],
    )


def _parts(stage: Stage, sizes: _Sizes, sharding: Sharding, itemsize: int, count: int) -> dict[str, int]:
    """Bytes on one GPU that models, gradients and the optimiser take."""
    share = count if sharding == "fsdp" else 1
    loaded = {"critic": stage.critic, "artist": stage.artist}
    parts, gathered = {}, 0
    for name, adapters in loaded.items():
        if adapters is None:
            continue
        size: ModelSize = getattr(sizes, name)
        parts[f"{name} weights"] = size.frozen * itemsize // share
        adapter = size.adapter * ADAPTER_BYTES // share
        for kind in ("adapter", "reference adapter", "old adapter")[:adapters]:
            parts[f"{name} {kind}"] = adapter
        gathered = max(gathered, size.largest_block * itemsize)
    if stage.artist is not None:
        parts["autoencoder"] = sizes.vae.total * itemsize
    if share > 1:
        parts["gathered blocks"] = GATHERED_BLOCKS * gathered
    trained = sum(getattr(sizes, name).adapter for name in stage.trained) * ADAPTER_BYTES // share
    parts["gradients"], parts["optimiser"] = trained, 2 * trained
    if stage.average:
        parts["moving average"] = trained
    return parts


def _seconds(
    work: Work, sizes: _Sizes, sharding: Sharding, itemsize: int, gpu: Gpu, plan: PlanSettings, mfu: float
) -> float:
    """Seconds of a step, or of a validation, on one GPU.

    Passes are limited by arithmetic or, sharded, by fetching the weights; decoding by arithmetic, by reading weights
    and caches, or, sharded, by fetching the weights for every token.
    """
    peak = mfu * (gpu.flops if itemsize == torch.bfloat16.itemsize else gpu.flops_float32)
    fetched = (plan.count - 1) / plan.count / gpu.interconnect if sharding == "fsdp" else 0.0
    critic, artist = sizes.critic.frozen * itemsize, sizes.artist.frozen * itemsize
    passes = work.critic_passes * critic + work.artist_passes * artist
    decoding = max(
        work.decoding_flops / peak,
        work.decoding_steps * (critic + work.decoding_cache) / (gpu.bandwidth * plan.mbu),
        work.decoding_steps * critic * fetched,
    )
    return max(work.flops / peak, passes * fetched) + decoding


def _phase(phase: Phase) -> PhaseMemory:
    return PhaseMemory(
        name=phase.name,
        rows=phase.rows,
        activations=phase.rows * phase.kept,
        workspace=phase.rows * phase.workspace,
        cache=phase.cache,
    )


def _model_plan(name: str, size: ModelSize) -> ModelPlan:
    return ModelPlan(name=name, parameters=size.total, adapter_parameters=size.adapter)
