"""The command `plan`: what a profile needs on given GPUs, and whether it fits, before anything is launched.

    smartphotocrafter plan --config configs/gpu.yaml --gpu H100-80G --count 8
    smartphotocrafter plan --config configs/gpu.yaml --gpu A100-40G --sharding fsdp --json

Exit status: 0 everything fits, 1 something does not, 2 the question is wrong.
"""

import sys
from pathlib import Path
from typing import Any, Literal

import click

from components.command_line import PATH, Command, CommandError, Number, Option
from components.planning.gpus import GPUS
from components.planning.settings import PlanSettings, Sharding, Workload

_WIDTH = 140
"""Columns when the output goes to a file or a pipe."""
_GPUS, _ASSUMED, _WORKLOAD = "The GPUs", "Assumptions", "Photos and texts"
_DEFAULTS, _PHOTOS = PlanSettings(gpu="H100-80G"), Workload()


def _of_plan(name: str, what: str) -> Option:
    return Option(
        [f"--{name.replace('_', '-')}"],
        section=_ASSUMED,
        type=Number(float),
        default=getattr(_DEFAULTS, name),
        help=what,
    )


def _of_workload(name: str, what: str, kind: type[int] | type[float] = int, **settings: Any) -> Option:
    default = getattr(_PHOTOS, name.replace("-", "_"))
    return Option([f"--{name}"], section=_WORKLOAD, type=Number(kind), default=default, help=what, **settings)


PARAMETERS: list[click.Parameter] = [
    Option(["--config"], type=PATH, required=True, help="Profile, such as configs/gpu.yaml."),
    Option(["--set"], multiple=True, metavar="KEY=VALUE", help="Replace a value of the profile; repeatable."),
    Option(["--models"], type=PATH, show_default="the published full-size ones", help="Folder of base models."),
    Option(["--json", "as_json"], is_flag=True, help="Print the plan as JSON, with every figure in bytes."),
    Option(["--gpu"], section=_GPUS, metavar="MODEL", help=f"One of {', '.join(GPUS)}."),
    Option(["--count"], section=_GPUS, type=Number(int), default=_DEFAULTS.count, help="Number of GPUs."),
    Option(
        ["--sharding"],
        section=_GPUS,
        type=click.Choice(("auto", "ddp", "fsdp")),
        default="auto",
        help="How the models are spread over the GPUs; auto: the faster of those that fit.",
    ),
    Option(
        ["--checkpointing"],
        section=_GPUS,
        type=click.Choice(("auto", "on", "off")),
        default="auto",
        help="Checkpointing of gradients; auto: the faster of those that fit.",
    ),
    _of_plan("mfu", "Share of the peak arithmetic that is reached, 0 to 1."),
    _of_plan("mfu_low", "The same where less is reached, for the upper end of the hours."),
    _of_plan("mbu", "Share of the memory bandwidth that is reached while decoding, 0 to 1."),
    _of_plan("reserve", "Share of the memory that is left free, 0 to 1."),
    _of_workload("aspect", "Width of a photo divided by its height.", float),
    _of_workload("area", "Area of the Artist's working picture in pixels.", show_default="the model's"),
    _of_workload("prompt-tokens", "Length of the Critic's prompt without the photo, in tokens."),
    _of_workload(
        "completion-tokens",
        "Length of an annotation in stage I, in tokens; later stages are planned with their longest text.",
    ),
]


@click.command(cls=Command, params=PARAMETERS)
def plan(
    config: Path,
    set: tuple[str, ...],
    models: Path | None,
    as_json: bool,
    gpu: str | None,
    sharding: Sharding | Literal["auto"],
    checkpointing: str,
    **given: Any,
) -> int:
    """Say what a profile needs on given GPUs, and whether it fits.

    Memory, operations and hours of every stage. The exit status is 0 if everything fits, 1 if something does not, 2 if
    the question is wrong.
    """
    if gpu is None:
        raise CommandError(f"on which GPUs? Say so, such as --gpu H100-80G --count 8; known are {', '.join(GPUS)}")

    from rich.console import Console

    from components.models.published import PUBLISHED, read_configurations
    from components.planning.plan import make_plan
    from components.planning.tables import show
    from components.settings import SettingsError, load_settings

    console = Console(width=None if sys.stdout.isatty() else _WIDTH)
    try:
        settings = load_settings(config, set)
        workload = Workload(**{name: given.pop(name) for name in Workload.model_fields})
        wanted = PlanSettings(
            gpu=gpu,
            shardings=("ddp", "fsdp") if sharding == "auto" else (sharding,),
            checkpointing={"auto": (False, True), "on": (True,), "off": (False,)}[checkpointing],
            workload=workload,
            **given,
        )
        with Console(stderr=True).status("Tracing the models without data ..."):
            made = make_plan(settings, read_configurations(models or PUBLISHED), wanted)
    except (SettingsError, ValueError, FileNotFoundError) as error:
        raise CommandError(str(error)) from error
    if as_json:
        print(made.model_dump_json(indent=2))
    else:
        show(made, console)
    return 0 if made.fits else 1
