"""An Enhancer without models in the place of the champion's, and a photo for it."""

from pathlib import Path

import pytest
from PIL import ExifTags, Image

from components.imaging.originals import Original
from components.inference.enhancer import Critique, EditPlan, Enhancer
from components.verdict.grammar import Verdict, render, suggest
from tests.conftest import make_photo

VERDICT = Verdict(reasoning=("a", "b", "c", "d", "e"), suggestions=(suggest("exposure", -0.5),), score=55.0)


class HalvingEnhancer(Enhancer):
    """Halves every sample, and remembers how it was asked."""

    def __init__(self) -> None:
        super().__init__(critic=None, artist=None)
        self.asked: list[tuple[int, int | None]] = []

    def plan(self, original: Original, seed: int, draws: int | None) -> EditPlan:
        self.asked.append((seed, draws))
        (small,) = original.reduced([(16, 24)])
        return EditPlan(render(VERDICT), VERDICT, small, small / 2)

    def critique(self, photo: Original) -> Critique:
        return Critique("no verdict", None)


@pytest.fixture
def enhancer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> HalvingEnhancer:
    """In the place of the champion's."""
    halving = HalvingEnhancer()
    (tmp_path / "state" / "champion").mkdir(parents=True)
    monkeypatch.setenv("SPC_STATE", str(tmp_path / "state"))
    monkeypatch.setattr(Enhancer, "load", lambda folder, placement=None: halving)
    return halving


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "in.jpg"
    exif = Image.Exif()
    exif[ExifTags.Base.Make] = "Contax"
    samples = (make_photo(40, 60) * 255).byte().permute(1, 2, 0).numpy()
    Image.fromarray(samples).save(path, quality=95, exif=exif)
    return path
