"""Train the tiny base models from scratch (`make base`): autoencoder, Critic, Artist, then the model card.

Every part resumes from its checkpoints after an interruption. Hours on two cores.
"""

import json
import logging
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click
import torch
from torch import Tensor

from components.command_line import PATH, Command, Number, Option, run
from components.models.critic import Critic
from tools.base_models.artist import SHOWN_SIZES, SMALL_SIZES, train_artist
from tools.base_models.card import write_card
from tools.base_models.critic import train_critic
from tools.base_models.photos import PhotoBank
from tools.base_models.tiles import Tiles, held_out, own_photos, photos_in, source_of
from tools.base_models.tower import SIZES
from tools.base_models.vae import train_vae

log = logging.getLogger(__name__)
STEPS = {"vae": 1000, "tower": 16000, "critic": 3000, "artist": 7600, "artist_reasoning": 450}


class CurveTracker:
    """Appends scalars to a JSON Lines file, from which the card's curve is drawn."""

    def __init__(self, path: Path):
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)

    def params(self, values: dict[str, Any]) -> None:
        log.info("%s", values)

    def hardware(self, device: str, dtype: str, count: int) -> None:
        log.info("%d x %s, %s", count, device, dtype)

    def metrics(self, values: dict[str, float], step: int) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, **{name: round(value, 6) for name, value in values.items()}}) + "\n")

    def picture(self, name: str, image: Tensor, step: int) -> None:
        """Base training shows nothing but its curve."""

    def artifact(self, path: Path, name: str) -> None:
        """Base training keeps nothing but its curve."""

    def note(self, text: str) -> None:
        log.info("%s", text)


_PARAMETERS: list[click.Parameter] = [
    Option(["--photos"], type=PATH, default="data/photos", help="Folder of own photos: only the train split is used."),
    Option(
        ["--further"], type=PATH, multiple=True, help="Folder of further photos; one in ten is left out; repeatable."
    ),
    Option(["--validate"], type=PATH, multiple=True, help="Folder of photos for the curves alone; repeatable."),
    Option(["--like"], type=PATH, help="Folder of a trained autoencoder whose latents the new one shall share."),
    Option(["--start"], type=PATH, help="Folder of a trained transformer that the Artist goes on from."),
    Option(["--lpips"], type=PATH, help="File with the LPIPS backbone, to put beside the models."),
    Option(["--out"], type=PATH, default="data/base", help="Where the models go."),
    Option(["--work"], type=PATH, default=".spc/base", help="Where checkpoints and curve go."),
    Option(["--threads"], type=Number(int, 1), default=torch.get_num_threads(), help="Number of CPU threads."),
    *(
        Option(
            [f"--{part.replace('_', '-')}-steps"],
            type=Number(int, 0),
            default=steps,
            help=f"Training steps of `{part}`.",
        )
        for part, steps in STEPS.items()
    ),
]


@click.command(cls=Command, params=_PARAMETERS)
def main(
    photos: Path,
    further: tuple[Path, ...],
    validate: tuple[Path, ...],
    like: Path | None,
    start: Path | None,
    lpips: Path | None,
    out: Path,
    work: Path,
    threads: int,
    **steps: int,
) -> None:
    """Train the tiny base models from scratch.

    Every part resumes from its checkpoints after an interruption. Hours on two cores.
    """
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(threads)
    bank = PhotoBank(photos, list(further))
    learnt = _sources(photos, "train", further, kept=lambda path: not held_out(path))
    tiles = Tiles(learnt, (*SIZES, *SHOWN_SIZES, *SMALL_SIZES), cuts=3)
    judged = Tiles(_sources(photos, "validation", validate), SIZES[:1], cuts=1)
    tracker = CurveTracker(work / "curve.jsonl")
    train_vae(bank, work / "vae", work, tracker, steps["vae_steps"], like=like)
    train_critic(tiles, judged, out / "critic", work, tracker, steps["tower_steps"], steps["critic_steps"])
    critic = Critic.load(out / "critic")
    train_artist(
        tiles,
        critic,
        work / "vae",
        out / "artist",
        work,
        tracker,
        steps["artist_steps"],
        steps["artist_reasoning_steps"],
        start=start,
    )
    if lpips:
        shutil.copyfile(lpips, out / lpips.name)
    write_card(out, tracker.path, len(bank.photos))
    log.info("base models are in %s; put them under version control with `dvc add data`", out)


def _sources(
    own: Path, split: str, further: Sequence[Path], kept: Callable[[Path], bool] = lambda path: True
) -> list[tuple[Path, str]]:
    """Photos with the collections they are of: a split of the project's own, and those of further folders."""
    found = [(path, "own") for path in own_photos(own, split)]
    return found + [(path, source_of(path, root)) for root in further for path in photos_in(root) if kept(path)]


if __name__ == "__main__":
    sys.exit(run(main, program="python -m tools.base_models"))
