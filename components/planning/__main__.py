"""Say what a profile needs on given GPUs, and whether it fits, before anything is launched.

    python -m components.planning --config configs/gpu.yaml --gpu H100-80G --count 8
    python -m components.planning --config configs/gpu.yaml --gpu A100-40G --sharding fsdp --json

Exit status: 0 everything fits, 1 something does not, 2 the question is wrong.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from components.models.published import PUBLISHED, read_configurations
from components.planning.gpus import GPUS
from components.planning.plan import PlanSettings, make_plan
from components.planning.stages import Workload
from components.planning.tables import show
from components.settings import SettingsError, load_settings

_WIDTH = 140
"""Columns when the output goes to a file or a pipe."""


def main(arguments: Sequence[str] | None = None, console: Console | None = None) -> int:
    """Print the plan; see the module for the exit status."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.gpu is None:
        parser.error(f"on which GPUs? Say so, such as --gpu H100-80G --count 8; known are {', '.join(GPUS)}")
    console = console or Console(width=None if sys.stdout.isatty() else _WIDTH)
    try:
        settings = load_settings(options.config, options.set)
        wanted = PlanSettings(
            gpu=options.gpu,
            count=options.count,
            shardings=("ddp", "fsdp") if options.sharding == "auto" else (options.sharding,),
            checkpointing={"auto": (False, True), "on": (True,), "off": (False,)}[options.checkpointing],
            mfu=options.mfu,
            mbu=options.mbu,
            reserve=options.reserve,
            workload=Workload(
                aspect=options.aspect,
                prompt_tokens=options.prompt_tokens,
                completion_tokens=options.completion_tokens,
                area=options.area,
            ),
        )
        with Console(stderr=True).status("Tracing the models without data ..."):
            plan = make_plan(settings, read_configurations(options.models), wanted)
    except (SettingsError, ValueError, FileNotFoundError) as error:
        print(error, file=sys.stderr)
        return 2
    if options.json:
        print(plan.model_dump_json(indent=2))
    else:
        show(plan, console)
    return 0 if plan.fits else 1


def _parser() -> argparse.ArgumentParser:
    defaults, workload = PlanSettings(gpu="H100-80G"), Workload()
    parser = argparse.ArgumentParser(
        prog="python -m components.planning", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--config", type=Path, required=True, help="profile, such as configs/gpu.yaml")
    add("--set", action="append", default=[], metavar="KEY=VALUE", help="replace a value of the profile")
    add("--models", type=Path, default=PUBLISHED, help="folder of base models; default: the published full-size ones")
    add("--gpu", help=f"one of {', '.join(GPUS)}")
    add("--count", type=int, default=1, help="number of GPUs (default: 1)")
    add("--sharding", choices=("auto", "ddp", "fsdp"), default="auto", help="auto: the faster of those that fit")
    add(
        "--checkpointing",
        choices=("auto", "on", "off"),
        default="auto",
        help="of gradients; auto: the faster of those that fit",
    )
    add("--mfu", type=float, default=defaults.mfu, help="assumed share of peak arithmetic (default: %(default)s)")
    add("--mbu", type=float, default=defaults.mbu, help="assumed share of memory bandwidth (default: %(default)s)")
    add("--reserve", type=float, default=defaults.reserve, help="share of memory left free (default: %(default)s)")
    add(
        "--aspect",
        type=float,
        default=workload.aspect,
        help="width of a photo divided by its height (default: %(default)s)",
    )
    add("--area", type=int, help="pixels of the Artist's working picture (default: the model's)")
    add(
        "--prompt-tokens",
        type=int,
        default=workload.prompt_tokens,
        help="tokens of the Critic's prompt without the photo (default: %(default)s)",
    )
    add(
        "--completion-tokens",
        type=int,
        default=workload.completion_tokens,
        help="tokens of an annotation in stage I (default: %(default)s); later stages: their longest text",
    )
    add("--json", action="store_true", help="print the plan as JSON, with every figure in bytes")
    return parser


if __name__ == "__main__":
    sys.exit(main())
