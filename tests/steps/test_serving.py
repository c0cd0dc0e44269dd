"""The registered model's interface, with a Crafter that only brightens in the place of the real one."""

import io
import json
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from components.critic.grammar import Verdict
from components.enhance import crafter
from components.images import Photo, UnreadablePhoto
from steps.serving import SIGNATURE, CrafterModel

VERDICT = Verdict(reasoning=("a", "b", "c", "d", "e"), suggestions=(), score=60.0)


@dataclass
class Result:
    photo: Photo
    text: str
    verdict: Verdict | None


class Brightener:
    """Adds ``strength`` tenths of full scale."""

    def enhance(self, photo: Photo, seed: int, strength: float) -> Result:
        brighter = photo.with_pixels((photo.pixels + strength / 10).clamp(0, 1))
        return Result(brighter, f"seed {seed}", VERDICT if seed else None)


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> CrafterModel:
    monkeypatch.setattr(crafter.Crafter, "load", lambda package: Brightener())
    model = CrafterModel()
    model.load_context(SimpleNamespace(artifacts={"package": str(tmp_path)}))
    return model


def picture(file_format: str) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.full((6, 9, 3), 100, np.uint8)).save(stream, file_format)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("file_format", "expected"), [("PNG", "PNG"), ("JPEG", "JPEG"), ("WEBP", "WEBP"), ("BMP", "PNG")]
)
def test_bytes_in_bytes_and_words_out(model: CrafterModel, file_format: str, expected: str) -> None:
    answer = model.predict(None, pd.DataFrame({"photo": [picture(file_format)]}), {"seed": 3, "strength": 2.0})
    image = Image.open(io.BytesIO(answer["photo"][0]))
    assert (image.format, image.size) == (expected, (9, 6))
    assert np.asarray(image.convert("RGB")).mean() == pytest.approx(100 + 51, abs=2)
    assert answer["text"][0] == "seed 3"
    assert Verdict.model_validate(json.loads(answer["verdict"][0])) == VERDICT


def test_defaults_and_a_verdict_that_does_not_parse(model: CrafterModel) -> None:
    answer = model.predict(None, pd.DataFrame({"photo": [picture("PNG")] * 2}))
    assert list(answer.columns) == SIGNATURE.outputs.input_names()
    assert list(answer["verdict"]) == ["null", "null"]


def test_what_is_no_picture_is_refused(model: CrafterModel) -> None:
    with pytest.raises(UnreadablePhoto):
        model.predict(None, pd.DataFrame({"photo": [b"not a picture"]}))
