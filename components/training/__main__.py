"""One process of a training stage: what `accelerate launch`, `torchrun` and `components.training.launch` start.

    python -m components.training STAGE --job job.json
    accelerate launch --config_file components/training/accelerate/ddp.yaml -m components.training STAGE --job job.json
    torchrun --nproc-per-node 8 -m components.training STAGE --job job.json

The job is {"settings": {...}, "arguments": {"base": "data/base", "out": ..., "checkpoints": ..., ...}}: the section of
a profile, and the folders that the stage's function takes. The main rank writes result.json and events.jsonl beside it;
a rank that fails writes failure-<rank>.json.
"""

import importlib
import json
import logging
import os
import signal
import sys
import threading
import time
import traceback
from pathlib import Path

import click

from components import command_line
from components.command_line import PATH, Command, Option
from components.files import write_text
from components.parallel import ranks
from components.training.events import EventWriter
from components.training.job import RESULT_FILE, Failure, read_job
from components.training.launch import OWNER_FILE, owner_is_gone
from components.training.tracker import NullTracker

STAGES = {
    "train_critic": ("components.training.critic_sft", "CriticSftSettings"),
    "train_artist": ("components.training.artist_sft", "ArtistSftSettings"),
    "adapt_artist": ("components.training.artist_sft", "ArtistSftSettings"),
    "reinforce": ("components.reinforcement.coordinated", "ReinforceSettings"),
}
"""Module of each stage's function and the name of its settings there; only the one that is asked for is imported."""


def run(stage: str, job_file: Path) -> None:
    """Do this rank's part of a stage.

    Raises:
        pydantic.ValidationError: the job has an unknown key or a wrong value.
        ValueError: accelerate was configured to shard models and the stage's settings were not.
    """
    folder = job_file.resolve().parent
    try:
        module, settings_name = STAGES[stage]
        job = read_job(job_file)
        library = importlib.import_module(module)
        settings = getattr(library, settings_name).model_validate(job.settings)
        if os.environ.get("ACCELERATE_USE_FSDP") == "true" and settings.compute.sharding != "fsdp":
            raise ValueError(
                f"accelerate is configured for FSDP, and compute.sharding of the job is {settings.compute.sharding!r}: "
                'set it to "fsdp", or launch with components/training/accelerate/ddp.yaml'
            )
        with ranks.joined(settings.compute.device):
            tracker = EventWriter(folder) if ranks.is_main() else NullTracker()
            closing = getattr(library, stage)(settings=settings, tracker=tracker, **job.arguments)
            if ranks.is_main():
                write_text(folder / RESULT_FILE, json.dumps(closing))
    except Exception as error:
        rank = int(os.environ.get("RANK", 0))
        told = f"{type(error).__name__}: {error}"
        failure = Failure(rank=rank, time=time.time(), error=told, traceback=traceback.format_exc())
        write_text(folder / f"failure-{rank}.json", failure.model_dump_json())
        raise


def end_with_the_owner(lock: Path) -> None:
    """Kill this process when the one that started the stage is gone, or the launcher between them."""
    launcher = os.getppid()
    owner = lock.open() if lock.exists() else None

    def watch() -> None:
        while os.getppid() == launcher and not (owner and owner_is_gone(owner)):
            time.sleep(0.5)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, name="watch over the owner", daemon=True).start()


PARAMETERS: list[click.Parameter] = [
    click.Argument(["stage"], type=click.Choice(list(STAGES)), help="Stage to take part in."),
    Option(["--job"], type=PATH, required=True, help="JSON file with the settings and the arguments of the stage."),
]
"""What every process of a stage is told."""


@click.command(cls=Command, params=PARAMETERS)
def main(stage: str, job: Path) -> None:
    """Run one process of a training stage.

    Any failure is an exception, so that the launcher sees it.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s: %(message)s")
    end_with_the_owner(job.resolve().parent / OWNER_FILE)
    run(stage, job)


if __name__ == "__main__":
    sys.exit(command_line.run(main, program="python -m components.training"))
