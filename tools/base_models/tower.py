"""Pretrain the vision tower of the tiny Critic: see a photo, guess the numbers that would mend it and how bad it is.

A word of a verdict teaches a tower little: hundreds of samples per second of a loss on the corrected colours teach it
what a language model then only has to put into words. The tower is the one of the Qwen2.5-VL that is shipped; the head
is thrown away. A quarter of the photos are intact, so that it learns to leave a good photo alone.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VisionTransformerPretrainedModel

from components.photometry.colour import delta_e_2000, srgb_to_lab
from components.training.checkpoints import CheckpointStore
from components.training.loop import OptimiserSettings, fit
from components.training.tracker import Tracker
from tools.base_models.correction import NUMBERS, correct, lab_error
from tools.base_models.faults import Spoilt, error_of, log_error, spoil
from tools.base_models.tiles import Size, Tiles

log = logging.getLogger(__name__)
SIZES: tuple[Size, ...] = ((40, 56), (56, 40), (48, 48), (32, 64))
"""Of the pictures, as the Critic's processor makes them of photos of the usual aspects."""
INTACT_WEIGHT = 2.0
ERROR_WEIGHT = 0.3
GATES = ((0.0, 0.0), (0.0, 4.0), (1.0, 4.0), (2.0, 4.0), (3.0, 4.0), (4.0, 4.0))
"""(lo, w) of strength = clip((expected error - lo) / w, 0, 1), CIELAB units; w of 0 is no gate."""

_USUAL_LOG_ERROR = 1.8
_MEAN, _STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)  # the processor's


class Guess(NamedTuple):
    """Numbers of a correction (B, 8) and log(1 + expected colour error) (B)."""

    numbers: Tensor
    log_error: Tensor


class Head(nn.Module):
    """Reads the correction and the expected error off the tower's tokens (B, N, D)."""

    def __init__(self, width: int):
        super().__init__()
        self.layers = nn.Sequential(nn.LayerNorm(2 * width), nn.Linear(2 * width, 256), nn.GELU())
        self.last = nn.Linear(256, NUMBERS + 1)
        nn.init.zeros_(self.last.weight)
        with torch.no_grad():
            self.last.bias.copy_(torch.tensor([0.0] * NUMBERS + [_USUAL_LOG_ERROR]))

    def forward(self, tokens: Tensor) -> Guess:
        out = self.last(self.layers(torch.cat([tokens.mean(1), tokens.amax(1)], dim=1))).float()
        return Guess(0.6 * out[:, :NUMBERS], out[:, NUMBERS])


def initialise(model: nn.Module) -> None:
    """Weights that keep the size of what passes through: those of the published width are too small for this one.

    With a standard deviation of 0.02 in layers of 128 the tower's tokens are near 0.
    """
    for name, parameter in model.named_parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5)
        elif name.endswith("bias"):
            nn.init.zeros_(parameter)


def look(tower: Qwen2_5_VisionTransformerPretrainedModel, pictures: Tensor) -> Tensor:
    """What the tower makes of pictures of one size: (B, N, D), N one for every merged patch.

    The same numbers as the tower's own forward pass, which packs pictures into one sequence and attends to each in
    turn; for many small pictures of one size a batch is ten times faster. Attention is written out because torch's
    fused kernel for processors is slow in the backward pass of short sequences.

    Args:
        pictures: (B, 3, H, W) sRGB in [0, 1]; both sides multiples of a merged patch and at most the tower's window.

    Raises:
        ValueError: a side is not such a multiple or longer than the window.
    """
    count, _, height, width = pictures.shape
    patch, merge = tower.patch_size, tower.spatial_merge_size
    if height % (patch * merge) or width % (patch * merge) or max(height, width) > tower.window_size:
        raise ValueError(
            f"expected sides in multiples of {patch * merge} up to {tower.window_size}, found {height}x{width}"
        )
    rows, columns = height // patch, width // patch
    normal = (pictures - pictures.new_tensor(_MEAN).view(3, 1, 1)) / pictures.new_tensor(_STD).view(3, 1, 1)
    cells = normal.view(count, 3, rows // merge, merge, patch, columns // merge, merge, patch)
    patches = cells.permute(0, 2, 5, 3, 6, 1, 4, 7).reshape(count, rows * columns, -1)
    # A still picture is a film of two equal frames: one projection with the sum of the kernels of both.
    kernel = tower.patch_embed.proj.weight.sum(dim=2).flatten(1)
    return _pass(tower, functional.linear(patches, kernel), rows, columns)


@contextmanager
def in_batches(tower: Qwen2_5_VisionTransformerPretrainedModel) -> Iterator[None]:
    """Within, the tower looks at pictures of one size together (`look`), at others in turn, and is not trained."""
    in_turn = tower.forward

    @torch.no_grad()
    def forward(hidden_states: Tensor, grid_thw: Tensor, **options: Any) -> BaseModelOutputWithPooling:
        (_, rows, columns), *others = grid_thw.unique(dim=0).tolist()
        if others or max(rows, columns) * tower.patch_size > tower.window_size:
            return in_turn(hidden_states, grid_thw=grid_thw, **options)
        patches = hidden_states.view(len(grid_thw), rows * columns, -1)
        embedded = functional.linear(patches, tower.patch_embed.proj.weight.flatten(1))
        tokens = _pass(tower, embedded, rows, columns)
        return BaseModelOutputWithPooling(pooler_output=tokens.flatten(0, 1))

    tower.forward = forward
    try:
        yield
    finally:
        del tower.forward


def _pass(tower: Qwen2_5_VisionTransformerPretrainedModel, hidden: Tensor, rows: int, columns: int) -> Tensor:
    """From embedded patches (B, rows * columns, d), merged patch by merged patch, to tokens (B, N, D)."""
    count = len(hidden)
    cos, sin = _rotations(tower, rows, columns, hidden)
    for block in tower.blocks:
        attention = block.attn
        qkv = attention.qkv(block.norm1(hidden)).view(count, rows * columns, 3, attention.num_heads, -1)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        query, key = _rotate(query, cos, sin).to(value.dtype), _rotate(key, cos, sin).to(value.dtype)
        weights = torch.softmax(query @ key.transpose(-1, -2) * attention.scaling, dim=-1)
        mixed = (weights.to(value.dtype) @ value).transpose(1, 2).reshape(count, rows * columns, -1)
        hidden = hidden + attention.proj(mixed)
        hidden = hidden + block.mlp(block.norm2(hidden))
    return tower.merger(hidden).view(count, -1, tower.config.out_hidden_size)


def _rotations(
    tower: Qwen2_5_VisionTransformerPretrainedModel, rows: int, columns: int, like: Tensor
) -> tuple[Tensor, Tensor]:
    merge = tower.spatial_merge_size
    shape = (rows // merge, columns // merge, merge, merge)
    y = torch.arange(rows).view(rows // merge, 1, merge, 1).expand(shape)
    x = torch.arange(columns).view(1, columns // merge, 1, merge).expand(shape)
    return tower.rotary_pos_emb(like, torch.stack([y.reshape(-1), x.reshape(-1)], dim=-1))


def _rotate(heads: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = heads.chunk(2, dim=-1)
    return heads * cos + torch.cat([-second, first], dim=-1) * sin


def train_tower(
    tower: Qwen2_5_VisionTransformerPretrainedModel,
    tiles: Tiles,
    held_out: Tiles,
    work: Path,
    tracker: Tracker,
    steps: int,
    batch: int = 128,
    learning_rate: float = 4e-3,
    look_every: int = 500,
) -> None:
    """Train a tower in place, from new weights; its average over the last steps is what stays.

    Args:
        tiles: to train on, of all `SIZES`.
        held_out: photos that are looked at now and then, for the curve.
        steps: in all, of ``batch`` samples.
    """
    torch.manual_seed(0)
    initialise(tower)
    head = Head(tower.config.out_hidden_size)

    @torch.compile(dynamic=False)
    def guess_about(pictures: Tensor) -> Guess:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return head(look(tower, pictures))

    def losses(step: int, generator: torch.Generator) -> dict[str, Tensor]:
        size = SIZES[int(torch.randint(len(SIZES), (), generator=generator))]
        intact = tiles.draw(batch, size, generator)
        spoilt = spoil(intact, generator)
        return guess_loss(guess_about(spoilt.pictures), spoilt, intact)

    def after_step(done: int) -> None:
        if done % look_every == 0 or done == steps:
            tracker.metrics({f"tower/held_out/{k}": v for k, v in judge(tower, head, held_out).items()}, done)

    settings = OptimiserSettings(
        learning_rate=learning_rate,
        steps=steps,
        warmup_steps=200,
        weight_decay=0.05,
        ema_decay=0.998,
        final_fraction=0.01,
    )
    parameters = [(f"tower.{n}", p) for n, p in tower.named_parameters()]
    parameters += [(f"head.{n}", p) for n, p in head.named_parameters()]
    matrices = [name for name, parameter in parameters if parameter.ndim == 2 and name != "head.last.weight"]
    store = CheckpointStore(work / "tower")
    fit("tower", parameters, losses, settings, tracker, store, 7, 250, 50, after_step, orthogonalised=matrices)
    tracker.metrics({f"tower/averaged/{k}": v for k, v in judge(tower, head, held_out).items()}, steps)


def guess_loss(guess: Guess, spoilt: Spoilt, intact: Tensor) -> dict[str, Tensor]:
    """The colour error that is left after a guessed correction, and how wrong the expected error is.

    Args:
        spoilt: what the guess is about, and which of it has a fault.
        intact: (B, 3, H, W) the same without faults.
    """
    every = max(1, min(intact.shape[-2:]) // 24)  # a correction acts on each pixel by itself: some of them will do
    truth, seen = srgb_to_lab(intact[:, :, ::every, ::every]), spoilt.pictures[:, :, ::every, ::every]
    after, before = lab_error(correct(seen, guess.numbers), truth), lab_error(srgb_to_lab(seen), truth)
    weight = torch.where(spoilt.faulty, 1.0, INTACT_WEIGHT)
    expected = functional.smooth_l1_loss(guess.log_error, log_error(before), beta=0.3)
    return {
        "loss": (after * weight).mean() + ERROR_WEIGHT * expected,
        "left": after[spoilt.faulty].mean() / before[spoilt.faulty].mean(),
        "intact": after[~spoilt.faulty].mean(),
        "expected": expected,
    }


@torch.no_grad()
def judge(
    tower: Qwen2_5_VisionTransformerPretrainedModel, head: Head, tiles: Tiles, size: Size = SIZES[0], seed: int = 3
) -> dict[str, float]:
    """CIEDE2000 left of faulty photos and change of intact ones, by gate, on the largest crop of every photo."""
    intact = tiles.whole(size)
    spoilt = spoil(intact, torch.Generator().manual_seed(seed), intact_share=0.0)
    truth = srgb_to_lab(intact)
    before = _distance(srgb_to_lab(spoilt.pictures), truth)
    found: dict[str, float] = {"before": float(before.mean())}
    faulty, whole = _guess(tower, head, spoilt.pictures), _guess(tower, head, intact)
    for low, width in GATES:
        after = _distance(correct(spoilt.pictures, _gated(faulty, low, width)), truth)
        change = _distance(correct(intact, _gated(whole, low, width)), truth)
        name = f"{low:g}-{low + width:g}" if width else "none"
        found[f"left_{name}"] = float(after.mean() / before.mean())
        found[f"intact_{name}"] = float(change.mean())
    return found


def _guess(tower: Qwen2_5_VisionTransformerPretrainedModel, head: Head, pictures: Tensor) -> Guess:
    parts = [head(look(tower, part)) for part in pictures.split(128)]
    return Guess(torch.cat([part.numbers for part in parts]), torch.cat([part.log_error for part in parts]))


def _gated(guess: Guess, low: float, width: float) -> Tensor:
    strength = ((error_of(guess.log_error) - low) / width).clamp(0, 1) if width else torch.ones(len(guess.log_error))
    return guess.numbers * strength[:, None]


def _distance(lab: Tensor, truth: Tensor) -> Tensor:
    return delta_e_2000(torch.cat([lab[:, :1].clamp(0, 100), lab[:, 1:]], dim=1), truth).mean((1, 2))
