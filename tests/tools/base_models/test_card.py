"""The model card: parameters counted as the models count them, and the last word of a training curve."""

import json
from pathlib import Path

import pytest
from PIL import Image

from components.models.artist import Artist
from components.models.critic import Critic
from tests.tiny_models import write_base
from tools.base_models.card import CARD_FILE, CURVE_FILE, write_card

pytestmark = pytest.mark.slow


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return write_base(tmp_path / "base")


def curve(path: Path, *rows: tuple[str, int, float, float]) -> Path:
    lines = [
        json.dumps({"step": step, f"{name}/loss": loss, f"{name}/seconds": seconds})
        for name, step, loss, seconds in rows
    ]
    path.write_text("".join(line + "\n" for line in lines))
    return path


def table_row(card: str, title: str) -> list[str]:
    (row,) = [line for line in card.splitlines() if line.startswith(f"| {title}")]
    return [cell.strip() for cell in row.strip("|").split("|")]


def test_the_card_counts_parameters_as_the_models_do(base: Path, tmp_path: Path) -> None:
    write_card(base, curve(tmp_path / "curve.jsonl", ("base_vae", 1, 0.5, 1.0)), photos=1234)
    card = (base / CARD_FILE).read_text(encoding="utf-8")
    critic, artist = Critic.load(base / "critic"), Artist.load(base / "artist")
    for part, model in (
        ("`critic/`", critic.model),
        ("`artist/transformer/`", artist.transformer),
        ("`artist/vae/`", artist.vae),
    ):
        assert table_row(card, part)[2] == f"{sum(p.numel() for p in model.parameters()):,}"
    assert "1234 photographs" in card
    assert "{" not in card.split("## ")[0].replace("{critic", ""), "nothing is left to fill in"


def test_the_table_has_the_last_loss_and_the_median_rate(base: Path, tmp_path: Path) -> None:
    rows = [("base_critic", step, 4.0 / step, seconds) for step, seconds in ((20, 2.0), (40, 1.0), (60, 9.0))]
    write_card(base, curve(tmp_path / "curve.jsonl", *rows), photos=1)
    card = (base / CARD_FILE).read_text(encoding="utf-8")
    assert table_row(card, "Critic") == ["Critic", "60", f"{4 / 60:.4f}", f"{32 / 2.0:.0f}"]
    assert "| autoencoder" not in card, "a part that was not trained has no row"


def test_a_step_repeated_after_an_interruption_counts_as_it_came_last(base: Path, tmp_path: Path) -> None:
    rows = [("base_artist", step, loss, 1.0) for step, loss in ((20, 0.9), (40, 0.8), (60, 0.7), (40, 0.6), (60, 0.5))]
    write_card(base, curve(tmp_path / "curve.jsonl", *rows), photos=1)
    card = (base / CARD_FILE).read_text(encoding="utf-8")
    assert table_row(card, "Artist, with the Critic's view of the photo")[1:3] == ["60", "0.5000"]


def test_the_curve_is_drawn(base: Path, tmp_path: Path) -> None:
    rows = [(name, step, 1 / step, 1.0) for name in ("base_vae", "base_critic") for step in (20, 40)]
    write_card(base, curve(tmp_path / "curve.jsonl", *rows), photos=1)
    with Image.open(base / CURVE_FILE) as picture:
        picture.load()
        assert picture.format == "PNG" and picture.width > 2 * picture.height
    assert f"({CURVE_FILE})" in (base / CARD_FILE).read_text(encoding="utf-8")
