"""A competitor that costs minutes: a small convolutional regression that guesses eight numbers of a correction.

Whoever wants a photo corrected without words could have this. It sees the photo at 64 pixels with its CIELAB values and
their histograms, is trained here and now on the photos that the models may train on, with faults of both training
families and a quarter of intact photos, and corrects at full size. A product that loses to it is not done.
"""

import itertools
import math
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm

from components.photometry.colour import lab_to_srgb, srgb_to_lab
from tools.base_models.correction import NUMBERS, correct
from tools.base_models.faults import spoil
from tools.base_models.tiles import Tiles, held_out, own_photos, photos_in, source_of
from tools.base_models.tower import Guess, guess_loss

SIDE = 64
_BATCH = 128
_RATE = 2e-3
_BINS = 24
_SCALE = (50.0, 40.0, 40.0)  # of L*, a*, b*


class Regression(nn.Module):
    """Four strided blocks with a residual one after each but the first, and a head that sees histograms too."""

    def __init__(self) -> None:
        super().__init__()
        widths = (6, 32, 64, 128, 256)
        self.strided = nn.ModuleList(
            nn.Sequential(nn.Conv2d(a, b, 3, 2, 1), nn.GroupNorm(8, b), nn.GELU())
            for a, b in itertools.pairwise(widths)
        )
        self.residual = nn.ModuleList(
            nn.Sequential(nn.Conv2d(c, c, 3, 1, 1), nn.GroupNorm(8, c), nn.GELU(), nn.Conv2d(c, c, 3, 1, 1))
            for c in widths[2:]
        )
        features = 2 * widths[-1] + 3 * _BINS + 4 * 3
        self.head = nn.Sequential(nn.Linear(features, 384), nn.GELU(), nn.Dropout(0.1))
        self.last = nn.Linear(384, NUMBERS + 1)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(self, pictures: Tensor) -> Guess:
        """The guess about pictures (B, 3, 64, 64) sRGB in [0, 1]."""
        lab = srgb_to_lab(pictures) / pictures.new_tensor(_SCALE).view(3, 1, 1)
        hidden = torch.cat([pictures - 0.5, lab], dim=1)
        for index, block in enumerate(self.strided):
            hidden = block(hidden)
            if index:
                hidden = hidden + self.residual[index - 1](hidden)
        values = lab.flatten(2)
        edges = torch.linspace(-1.2, 2.1, _BINS)
        histogram = torch.stack([torch.sigmoid((values[..., ::4] - edge) * 20).mean(2) for edge in edges], dim=2)
        statistics = [values.mean(2), values.std(2), values.amax(2), values.amin(2)]
        pooled = [hidden.mean((2, 3)), hidden.amax((2, 3))]
        out = self.last(self.head(torch.cat([*pooled, histogram.flatten(1), *statistics], dim=1)))
        return Guess(0.6 * out[:, :NUMBERS], out[:, NUMBERS])

    @torch.no_grad()
    def edit(self, photo: Tensor) -> Tensor:
        """The photo (3, H, W) sRGB in [0, 1], corrected at its own size."""
        small = functional.interpolate(photo[None], size=(SIDE, SIDE), mode="area")
        return lab_to_srgb(correct(photo[None], self(small).numbers))[0].clamp(0, 1)


def train_regression(photos: Path, further: Sequence[Path], minutes: float, seed: int = 0) -> Regression:
    """Train on the train split of ``photos`` and on folders of further photos, for so many minutes of wall time."""
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    learnt = [(path, "own") for path in own_photos(photos, "train")]
    learnt += [(path, source_of(path, root)) for root in further for path in photos_in(root) if not held_out(path)]
    tiles = Tiles(learnt, [(SIDE, SIDE)], cuts=4)
    net = Regression().train()
    optimiser = torch.optim.AdamW(net.parameters(), _RATE, weight_decay=0.02)
    average = {name: value.clone() for name, value in net.state_dict().items()}
    began, step = time.monotonic(), 0
    with tqdm(total=round(60 * minutes), desc="regression", unit="s") as progress:
        while (share := (time.monotonic() - began) / 60 / minutes) < 1:
            for group in optimiser.param_groups:
                group["lr"] = _RATE * min(1, (step + 1) / 200) * 0.5 * (1 + math.cos(math.pi * share))
            intact = tiles.draw(_BATCH, (SIDE, SIDE), generator)
            spoilt = spoil(intact, generator)
            loss = guess_loss(net(spoilt.pictures), spoilt, intact)["loss"]
            loss.backward()
            nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            optimiser.step()
            optimiser.zero_grad()
            step += 1
            keep = min(0.998, (1 + step) / (10 + step))
            for name, value in net.state_dict().items():
                average[name].lerp_(value, 1 - keep)
            progress.update(round(60 * minutes * share) - progress.n)
    net.load_state_dict(average)
    return net.eval()
