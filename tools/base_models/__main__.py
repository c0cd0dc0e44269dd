"""Train the tiny base models from scratch (`make base`): autoencoder, Critic, Artist, then the model card.

Every part resumes from its checkpoints after an interruption. Four to five hours on two cores.
"""

import argparse
import json
import logging
import shutil
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from components.models.critic import Critic
from tools.base_models.artist import train_artist
from tools.base_models.card import write_card
from tools.base_models.critic import train_critic
from tools.base_models.photos import PhotoBank
from tools.base_models.vae import train_vae

log = logging.getLogger(__name__)
STEPS = {"vae": 1000, "critic": 4650, "artist": 7600, "artist_reasoning": 450}


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


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tools.base_models", description=__doc__)
    parser.add_argument(
        "--photos", type=Path, default=Path("data/photos"), help="own photos: only the train split is used"
    )
    parser.add_argument("--further", type=Path, nargs="*", default=[], help="folders of further photos, all used")
    parser.add_argument("--like", type=Path, help="a trained autoencoder whose latents the new one shall share")
    parser.add_argument("--lpips", type=Path, help="LPIPS backbone to put beside the models")
    parser.add_argument("--out", type=Path, default=Path("data/base"), help="where the models go")
    parser.add_argument("--work", type=Path, default=Path(".spc/base"), help="checkpoints and curve")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="CPU threads")
    for part, steps in STEPS.items():
        parser.add_argument(f"--{part.replace('_', '-')}-steps", type=int, default=steps, help=f"default {steps}")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(arguments.threads)
    bank = PhotoBank(arguments.photos, arguments.further)
    tracker = CurveTracker(arguments.work / "curve.jsonl")
    out, work = arguments.out, arguments.work
    train_vae(bank, work / "vae", work, tracker, arguments.vae_steps, like=arguments.like)
    train_critic(bank, out / "critic", work, tracker, arguments.critic_steps)
    critic = Critic.load(out / "critic")
    train_artist(
        bank,
        critic,
        work / "vae",
        out / "artist",
        work,
        tracker,
        arguments.artist_steps,
        arguments.artist_reasoning_steps,
    )
    if arguments.lpips:
        shutil.copyfile(arguments.lpips, out / arguments.lpips.name)
    write_card(out, tracker.path, len(bank.photos))
    log.info("base models are in %s; put them under version control with `dvc add data`", out)


if __name__ == "__main__":
    main()
