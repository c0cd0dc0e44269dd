"""The plan as tables for a terminal."""

from rich.console import Console
from rich.table import Table

from components.planning.plan import Option, Plan, StagePlan

_GIB = 2**30


def show(plan: Plan, console: Console) -> None:
    """Print models, every stage with all its options, and the verdict."""
    height, width = plan.working_size
    console.print(
        f"[bold]{plan.count} x {plan.gpu}[/], {plan.memory_per_gpu / _GIB:.1f} GiB each, {plan.reserve:.0%} of it kept "
        f"free; the Artist works at {width} x {height}. Assumed: {plan.mfu:.0%} to {plan.mfu_low:.0%} of peak "
        f"arithmetic, {plan.mbu:.0%} of memory bandwidth while decoding; sharded weights are fetched at the "
        "interconnect's full rate.\n"
    )
    models = Table(title="Models", title_justify="left")
    models.add_column("model")
    models.add_column("parameters", justify="right")
    models.add_column("adapter", justify="right")
    for model in plan.models:
        models.add_row(model.name, f"{model.parameters:,}", f"{model.adapter_parameters:,}")
    console.print(models)
    for stage in plan.stages:
        console.print(_stage_table(stage))
    console.print(_verdict_table(plan))
    console.print("[green]It fits.[/]" if plan.fits else "[red]It does not fit.[/]")


def _stage_table(stage: StagePlan) -> Table:
    """Memory by part; one column an option, the one to take first."""
    table = Table(
        title=f"{stage.name}: {stage.steps:,} steps of {stage.samples_per_step} photos, "
        f"{stage.trainable_parameters:,} trainable parameters; GiB on one GPU",
        title_justify="left",
    )
    table.add_column("")
    for option in stage.options:
        table.add_column(_label(option), justify="right")
    names = list(dict.fromkeys(name for option in stage.options for name in option.parts))
    for name in names:
        table.add_row(name, *(_gib(option.parts[name]) if name in option.parts else "" for option in stage.options))
    table.add_section()
    for index, phase in enumerate(stage.best.phases):
        held = [option.phases[index] for option in stage.options]
        if any(one.activations for one in held):
            table.add_row(f"{phase.name}, {phase.rows} rows: activations", *(_gib(one.activations) for one in held))
            table.add_row("  and workspace", *(_gib(one.workspace) for one in held))
        else:
            table.add_row(f"{phase.name}, {phase.rows} rows", *(_gib(one.workspace) for one in held))
        if any(one.cache for one in held):
            table.add_row("  and key-value cache", *(_gib(one.cache) for one in held))
    table.add_section()
    table.add_row("most at once", *(_gib(option.peak) for option in stage.options))
    table.add_row("may be used", *(_gib(option.capacity) for option in stage.options))
    table.add_row("at", *(option.peak_phase for option in stage.options))
    table.add_row("rows that fit there", *(f"{option.largest_rows:,}" for option in stage.options))
    table.add_row("PFLOP a step", *(f"{option.flops_per_step / 1e15:,.2f}" for option in stage.options))
    table.add_row("seconds per step", *(f"{option.seconds_per_step:,.1f}" for option in stage.options))
    validations = "per validation" if stage.validations == 1 else f"per validation, of {stage.validations}"
    table.add_row(f"minutes {validations}", *(f"{option.validation_seconds / 60:,.1f}" for option in stage.options))
    table.add_row("fits", *("[green]yes[/]" if option.fits else "[red]no[/]" for option in stage.options))
    return table


def _verdict_table(plan: Plan) -> Table:
    table = Table(title="Verdict", title_justify="left")
    table.add_column("stage")
    table.add_column("setting")
    for column in ("GiB per GPU", "hours", "GPU hours"):
        table.add_column(column, justify="right")
    table.add_column("fits")
    for stage in plan.stages:
        best = stage.best
        table.add_row(
            stage.name,
            _label(best),
            f"{_gib(best.peak)} of {_gib(best.capacity)}",
            f"{best.hours:,.1f} to {best.hours_most:,.1f}",
            f"{best.hours * plan.count:,.0f} to {best.hours_most * plan.count:,.0f}",
            "[green]yes[/]" if best.fits else f"[red]no[/]: {best.peak_phase} holds at most {best.largest_rows} rows",
        )
    least, most = (sum(getattr(stage.best, name) for stage in plan.stages) for name in ("hours", "hours_most"))
    table.add_section()
    of_gpus = f"{least * plan.count:,.0f} to {most * plan.count:,.0f}"
    table.add_row("together", "", "", f"{least:,.1f} to {most:,.1f}", of_gpus, "")
    return table


def _label(option: Option) -> str:
    return f"{option.sharding.upper()}{', checkpointed' if option.checkpointing else ''}"


def _gib(size: int) -> str:
    return f"{size / _GIB:,.2f}"
