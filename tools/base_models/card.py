"""The model card of the tiny base models: what they are, what they were trained on, how the training went."""

import json
from pathlib import Path

import matplotlib
from safetensors import safe_open

matplotlib.use("Agg")
from matplotlib import pyplot

CARD_FILE, CURVE_FILE = "MODEL_CARD.md", "training_curve.png"
PARTS = {
    "base_vae": "autoencoder",
    "tower": "Critic's vision tower",
    "base_critic": "Critic",
    "base_artist": "Artist, with the Critic's view of the photo",
    "base_artist_reasoning": "Artist, with the Critic's verdict",
}

CARD = """# Tiny base models

They stand in for Qwen2.5-VL-7B and Qwen-Image-Edit-2509 where those are out of reach: the same architecture classes in
the same on-disk formats, small enough to train and run on two CPU cores. They know tone and colour (exposure,
contrast, saturation, white balance) and nothing else: no blur, no noise, no objects, no language beyond the verdicts.

| part | class | parameters |
|---|---|---|
| `critic/` | `Qwen2_5_VLForConditionalGeneration` | {critic:,} |
| `artist/transformer/` | `QwenImageTransformer2DModel` | {transformer:,} |
| `artist/vae/` | `AutoencoderKLQwenImage`, 4 times smaller, 16 channels | {vae:,} |
| `lpips_alexnet_fp16.safetensors` | AlexNet convolutions of LPIPS v0.1, torchvision's weights | |

**Training data.** {photos} photographs: the project's own photos of the `train` split (CC0, CC BY, CC BY-SA or public
domain; see `photos/ATTRIBUTION.csv`) and nine in ten of those of the folders that `make base` was given, whose terms
hold for the models, too. No photo of the `validation` and `test` splits was seen. Crops were spoilt at random
(`tools/base_models/faults.py`), a quarter of them not at all; the Critic's texts come from the offline annotator
(`components/annotation/offline.py`).

**Procedure.** From random weights, Muon for matrices and AdamW for the rest, bfloat16 on float32 weights, stored in
half precision; `tools/base_models/` is the whole recipe and `make base` runs it. Last values of the training curve:

| part | steps | loss | photos or pairs per second, one core |
|---|---|---|---|
{rows}

![training curve](training_curve.png)

**Limits.** The Critic sees at most 2,464 pixels (56x40 of a photo of 3:2), and the Artist paints about 64x64; the
project carries the edit over to the full resolution as a field of colour maps. Their taste is that of the training
photos: what a photo should look like is what photographs on average look like.
"""
BATCH = {"base_vae": 16, "tower": 128, "base_critic": 32, "base_artist": 16, "base_artist_reasoning": 16}


def write_card(folder: Path, curve: Path, photos: int) -> None:
    """Write `MODEL_CARD.md` and `training_curve.png` into the folder of the base models.

    Args:
        curve: JSON Lines of scalars with their step, as the training recorded them.
        photos: how many photographs were trained on.
    """
    history = _read(curve)
    rows = []
    for name, title in PARTS.items():
        if name in history:
            steps, losses, seconds = zip(*history[name], strict=True)
            rate = BATCH[name] / sorted(seconds)[len(seconds) // 2]
            rows.append(f"| {title} | {steps[-1]:,} | {losses[-1]:.4f} | {rate:.0f} |")
    _draw(history, folder / CURVE_FILE)
    sizes = {
        "critic": _parameters(folder / "critic"),
        "transformer": _parameters(folder / "artist" / "transformer"),
        "vae": _parameters(folder / "artist" / "vae"),
    }
    (folder / CARD_FILE).write_text(CARD.format(photos=photos, rows="\n".join(rows), **sizes), encoding="utf-8")


def _read(curve: Path) -> dict[str, list[tuple[int, float, float]]]:
    """(step, loss, seconds per step) by part; a step that was repeated after an interruption counts as it came last."""
    history: dict[str, dict[int, tuple[int, float, float]]] = {}
    for line in curve.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        for name in PARTS:
            if f"{name}/loss" in row:
                values = (row["step"], row[f"{name}/loss"], row[f"{name}/seconds"])
                history.setdefault(name, {})[row["step"]] = values
    return {name: [points[step] for step in sorted(points)] for name, points in history.items()}


def _draw(history: dict[str, list[tuple[int, float, float]]], path: Path) -> None:
    figure, axes = pyplot.subplots(1, len(PARTS), figsize=(4 * len(PARTS), 3), constrained_layout=True)
    for axis, (name, title) in zip(axes, PARTS.items(), strict=True):
        if name in history:
            steps, losses, _ = zip(*history[name], strict=True)
            axis.plot(steps, losses)
            axis.set_yscale("log")
        axis.set_title(title, fontsize=9)
        axis.set_xlabel("optimiser step", fontsize=8)
        axis.set_ylabel("loss", fontsize=8)
        axis.grid(alpha=0.3)
    figure.savefig(path, dpi=80)
    pyplot.close(figure)


def _parameters(folder: Path) -> int:
    total = 0
    for file in folder.glob("*.safetensors"):
        with safe_open(file, "pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118  not a mapping
                size = 1
                for side in tensors.get_slice(name).get_shape():
                    size *= side
                total += size
    return total
