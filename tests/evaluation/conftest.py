"""A small held-out set on disk, LPIPS with random weights, and an enhancer whose edits and words are known."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from torch import Tensor

from components.data.records import Manifest, PhotoRecord
from components.imaging.photo import Photo, write_photo
from components.inference.enhancer import Enhanced, EnhancerSettings
from components.metrics import learned
from components.metrics.full_reference import LPIPS_FILE
from components.verdict.grammar import Verdict, render, suggest
from tests.conftest import make_photo
from tests.tiny_models import write_lpips


@pytest.fixture(scope="session")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random AlexNet convolutions under the name of the shipped file."""
    return write_lpips(tmp_path_factory.mktemp("base") / LPIPS_FILE)


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Manifest]:
    """Three test photos and one train photo, with their manifest."""
    folder = tmp_path_factory.mktemp("photos")
    records = []
    for index, split in enumerate(("test", "train", "test", "test")):
        pixels = make_photo(60 + 8 * index, 90, seed=index)
        write_photo(Photo(pixels), folder / f"{index}.png")
        records.append(
            PhotoRecord(
                id=f"sample/{index}.png",
                path=f"{index}.png",
                sha256=f"{index:064x}",
                perceptual_hash="0" * 16,
                width=90,
                height=60 + 8 * index,
                bit_depth=8,
                mode="RGB",
                dataset="sample",
                split=split,
                licence="CC0",
                author="A. <b>Photographer</b>",
            )
        )
    return folder, Manifest.of(records)


@contextmanager
def without_weights(folder: Path) -> Iterator[None]:
    """Caches in ``folder``, in which nothing has been fetched, whatever this machine has."""
    from pyiqa.utils import download_util

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(download_util, "DEFAULT_CACHE_DIR", str(folder / "pyiqa"))
        patch.setattr(torch.hub, "get_dir", lambda: str(folder))
        patch.setattr(learned, "try_to_load_from_cache", lambda *_: None)
        yield


@pytest.fixture
def no_weights(tmp_path: Path) -> Iterator[Path]:
    """The folder of `without_weights`."""
    with without_weights(tmp_path):
        yield tmp_path


class KnowingEnhancer:
    """Knows the originals: goes ``share`` of the way back, and says what the faults do to brightness."""

    def __init__(self, folder: Path, share: float, text: str | None = None):
        self.critic = self.artist = None
        self.folder, self.share, self.text, self.settings = folder, share, text, EnhancerSettings()

    def enhance_many(self, photos: list[Photo], seed: int) -> list[Enhanced]:
        intact = photos[0].pixels
        return [self._enhance(photo.pixels, intact) for photo in photos]

    def _enhance(self, faulty: Tensor, intact: Tensor) -> Enhanced:
        change = float(intact.mean() - faulty.mean())
        suggestions = (suggest("exposure", 5 * change),) if abs(change) > 1e-3 else ()
        score = 100 - 100 * float((intact - faulty).abs().mean())
        verdict = Verdict(reasoning=("a", "b", "c", "d", "e"), suggestions=suggestions, score=score)
        text = self.text or render(verdict)
        edited = faulty + self.share * (intact - faulty)
        return Enhanced(Photo(edited), text, None if self.text else verdict, faulty, edited, 1.0)
