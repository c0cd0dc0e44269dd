"""`make benchmark-train`: what the training engines promise, each figure beside its peer in one run.

    python -m benchmarks.training              everything
    python -m benchmarks.training nft kills    these sections only

Runs on the laptop profile's models and photos (`make data`). Prints a table and writes reports/benchmarks/train.json in
the format of `benchmarks.main`. A figure that misses its target is shown as such and is no error.
`SECTIONS` is the list: a section is one function that takes `TrialInputs` and a folder to work in and gives rows.
"""

import logging
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import click
import torch
from rich.console import Console
from torch import Tensor

from benchmarks.main import ROOT, BenchmarkRow, publish, section_parameters
from benchmarks.nft import nft_rows
from benchmarks.training_kills import KillInputs, kill_rows, run_kill_trial
from components.annotation.annotations import AnnotationSettings, annotate, build_annotator
from components.command_line import Command, run
from components.data.ingest import IngestSettings, build_manifest
from components.data.records import Manifest
from components.data.synthesis import SynthesisSettings, synthesize
from components.models.artist import Artist
from components.models.critic import Critic, Prompts, ReasoningLatent
from components.models.lora import LoraSettings, adapter_tensors
from components.training.artist_sft import ArtistSftSettings, adapt_artist, train_artist
from components.training.batches import PairBatches
from components.training.loop import OptimiserSettings
from components.training.tracker import NullTracker

RESULT = ROOT / "reports" / "benchmarks" / "train.json"
KILLS = 10
_PHOTOS = {"train": 6, "validation": 1}
_SPREAD = 0.003
"""Of the fresh adapters' B, which is zero otherwise: it lets gradients reach A and leaves the models as good."""


class TrialInputs(NamedTuple):
    """Base models, adapters that change little, and pairs and annotated views of a few photos."""

    base: Path
    critic_adapter: Path
    artist_adapter: Path
    pairs: Path
    annotations: Path
    photos: Path


def prepare(folder: Path) -> TrialInputs:
    """Make the inputs of all sections from the repository's data.

    Raises:
        FileNotFoundError: the data has not been fetched.
    """
    base, photos = ROOT / "data" / "base", ROOT / "data" / "photos"
    if not (base / "critic").is_dir() or not photos.is_dir():
        raise FileNotFoundError(f"{base} and {photos}: expected the base models and the photos; run `make data`")
    everything = build_manifest(photos, photos / "ATTRIBUTION.csv", folder / "manifest", IngestSettings())
    chosen = [[record for record in everything if record.split == split][:n] for split, n in _PHOTOS.items()]
    manifest = Manifest.of([record for records in chosen for record in records])
    counts = SynthesisSettings(multi_edit=1, restoration=1, retouching=2, depth_of_field=0, rendered=0, stacked=0)
    synthesize(manifest, photos, folder / "pairs", counts)
    views = AnnotationSettings(faulty_views=3)
    annotate(manifest, photos, folder / "annotations", views, build_annotator(views, folder / "answers.jsonl"))
    generator = torch.Generator().manual_seed(0)
    for model, part in ((Critic.load(base / "critic"), "critic"), (Artist.load(base / "artist"), "artist")):
        model.add_adapter(LoraSettings())
        for name, tensor in adapter_tensors(model.model if part == "critic" else model.transformer).items():
            if "lora_B" in name:
                torch.nn.init.normal_(tensor, std=_SPREAD, generator=generator)
        model.save_adapter(folder / part)
    return TrialInputs(base, folder / "critic", folder / "artist", folder / "pairs", folder / "annotations", photos)


def nft(inputs: TrialInputs, work: Path) -> list[BenchmarkRow]:
    """The Artist's update in stage III against Edit-R1's."""
    return nft_rows((inputs.base, inputs.critic_adapter, inputs.artist_adapter, inputs.pairs))


def rollout(inputs: TrialInputs, work: Path, photos: int = 4, group: int = 4, repeats: int = 3) -> list[BenchmarkRow]:
    """Verdicts with H_c captured on the way, against generation by transformers and a second pass for H_c."""
    critic = Critic.load(inputs.base / "critic", inputs.critic_adapter)
    artist = Artist.load(inputs.base / "artist")
    pairs = PairBatches(inputs.pairs, "train", ["enhancement"], artist)
    views = pairs.draw(photos, torch.Generator().manual_seed(0)).views
    took: dict[str, list[float]] = {"ours": [], "theirs": [], "twice": []}
    for _ in range(repeats):
        began = time.perf_counter()
        written = critic.generate(views, group=group)
        took["ours"].append(time.perf_counter() - began)
        began = time.perf_counter()
        tokens, mask, latent = generate_then_forward(critic, views, group, written.tokens_BT.shape[1])
        took["theirs"].append(time.perf_counter() - began)
        began = time.perf_counter()
        prompts = critic.generate(views, group=group).prompts.repeat(group)
        critic.latent(prompts, written.tokens_BT, written.token_mask_BT)
        took["twice"].append(time.perf_counter() - began)
    if not torch.equal(mask, written.token_mask_BT) or not torch.equal(tokens[mask], written.tokens_BT[mask]):
        raise RuntimeError("the two ways wrote different tokens, so that their times cannot be compared")
    difference = float((latent.states_BLD - written.latent.states_BLD).abs().max())
    best = {name: min(seconds) for name, seconds in took.items()}
    what = f"rollout, {photos} photos x {group} verdicts of {written.tokens_BT.shape[1]} tokens"
    return [
        _ratio(f"{what}: against transformers' generate, then a pass for H_c", best["ours"], best["theirs"], 0.7),
        _ratio(f"{what}: against the same generation, then a pass for H_c", best["ours"], best["twice"]),
        BenchmarkRow(
            name=f"rollout: largest difference of H_c (its values reach {float(latent.states_BLD.abs().max()):.3g})",
            value=difference,
            unit="",
            peer=None,
            ratio=None,
            target="< 1e-4",
            ok=difference < 1e-4,
        ),
    ]


@torch.no_grad()
def generate_then_forward(
    critic: Critic, views: Sequence[Tensor], group: int, length: int
) -> tuple[Tensor, Tensor, ReasoningLatent]:
    """Greedy completions by transformers' own `generate`, each prompt as often as its group needs, and then H_c.

    Returns:
        tokens (B, T), their mask (B, T), and H_c of one teacher-forced pass over all of them.
    """
    prompts: Prompts = critic.prompts(views).repeat(group)
    model = critic.vision_language_model
    written = model.generate(
        input_ids=prompts.input_ids_BP,
        attention_mask=prompts.attention_mask_BP,
        mm_token_type_ids=prompts.mm_token_type_ids_BP,
        pixel_values=prompts.pixel_values,
        image_grid_thw=prompts.image_grid_thw_B3,
        do_sample=False,
        max_new_tokens=length,
        eos_token_id=critic.end_token,
        pad_token_id=critic.pad_token,
        suppress_tokens=[model.config.image_token_id, model.config.video_token_id],
    )
    tokens = written[:, prompts.input_ids_BP.shape[1] :]
    ended = (tokens == critic.end_token).cumsum(dim=1)
    mask = (ended == 0) | ((ended == 1) & (tokens == critic.end_token))
    return tokens, mask, critic.latent(prompts, tokens, mask)


def latents(inputs: TrialInputs, work: Path, steps: int = 12) -> list[BenchmarkRow]:
    """Stages I and II of the Artist with latents computed for every batch, being kept, and kept already."""
    rows = []
    for stage in ("stage I", "stage II"):
        curves, seconds = {}, {}
        for way in ("computed", "kept", "known"):
            settings = ArtistSftSettings(
                optimiser=OptimiserSettings(learning_rate=2e-4, steps=steps),
                kinds=("enhancement",),
                cache_latents=way != "computed",
                max_new_tokens=120,
            )
            curve, folder = _Curve(), work / stage
            rest = (inputs.pairs, folder / way, settings, curve, folder / f"checkpoints-{way}")
            if stage == "stage I":
                train_artist(inputs.base, *rest)
            else:
                adapt_artist(inputs.base, inputs.critic_adapter, inputs.artist_adapter, *rest)
            curves[way], seconds[way] = curve.losses, statistics.median(curve.seconds[1:])
        rows.append(_ratio(f"latents, {stage}: a step with kept latents", seconds["known"], seconds["computed"]))
        difference = max(
            abs(a - b) for one, other in pairwise(curves.values()) for a, b in zip(one, other, strict=True)
        )
        rows.append(
            BenchmarkRow(
                name=f"latents, {stage}: largest difference of the loss curves",
                value=difference,
                unit="",
                peer=None,
                ratio=None,
                target="0",
                ok=difference == 0,
            )
        )
    return rows


class _Curve(NullTracker):
    """Losses and seconds per step, in the order they are reported."""

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.seconds: list[float] = []

    def metrics(self, values: dict[str, float], step: int) -> None:
        for name, value in values.items():
            if name.endswith("/loss"):
                self.losses.append(value)
            elif name.endswith("/seconds"):
                self.seconds.append(value)


def kills(inputs: TrialInputs, work: Path) -> list[BenchmarkRow]:
    """Ten random SIGKILLs across the stages."""
    given = KillInputs(inputs.base, inputs.annotations, inputs.photos, inputs.pairs)
    return kill_rows(run_kill_trial(given, work, KILLS, seed=0))


SECTIONS: dict[str, Callable[[TrialInputs, Path], list[BenchmarkRow]]] = {
    "nft": nft,
    "rollout": rollout,
    "latents": latents,
    "kills": kills,
}


@click.command(cls=Command, params=section_parameters(SECTIONS, RESULT))
def main(sections: tuple[str, ...], out: Path) -> int:
    """Measure, print and write the figures."""
    console = Console()
    logging.getLogger("components").setLevel(logging.ERROR)
    rows = []
    with tempfile.TemporaryDirectory(prefix="spc-train-") as folder:
        inputs = prepare(Path(folder) / "inputs")
        for name in sections or SECTIONS:
            console.print(f"Measuring: {name} ...")
            rows += SECTIONS[name](inputs, Path(folder) / name)
    publish(rows, out, console)
    return 0


def _ratio(name: str, value: float, peer: float, most: float | None = None) -> BenchmarkRow:
    return BenchmarkRow(
        name=name,
        value=value,
        unit="s",
        peer=peer,
        ratio=value / peer,
        target="for information" if most is None else f"ratio <= {most}",
        ok=most is None or value <= most * peer,
    )


if __name__ == "__main__":
    sys.exit(run(main, program="python -m benchmarks.training"))
