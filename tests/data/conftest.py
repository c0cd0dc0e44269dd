"""A folder of synthetic photos with attribution, and its manifest, as the data stages meet them."""

from collections.abc import Callable
from pathlib import Path

import pytest
from torch import Tensor

from components.data.ingest import IngestSettings, build_manifest
from components.data.records import Manifest
from components.data.splits import SplitSettings
from components.imaging.photo import Photo, write_photo
from tests.data.builders import attribute, attribution_row


@pytest.fixture
def photos_dir(tmp_path: Path, photo_factory: Callable[..., Tensor]) -> Path:
    """Six different photos of 72x108 pixels, photo-0.jpg to photo-5.jpg, the first one rated; ATTRIBUTION.csv."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for index in range(6):
        pixels = photo_factory(72, 108, seed=index)
        write_photo(Photo(pixels), folder / f"photo-{index}.jpg")
    rows = [attribution_row(f"photo-{index}.jpg", mos="71.5" if index == 0 else "") for index in range(6)]
    attribute(folder / "ATTRIBUTION.csv", rows)
    return folder


@pytest.fixture
def manifest(photos_dir: Path, tmp_path: Path) -> Manifest:
    """The manifest of `photos_dir`, every split about a third."""
    settings = IngestSettings(splits=SplitSettings(train=0.4, validation=0.3, seed=1))
    return build_manifest(photos_dir, photos_dir / "ATTRIBUTION.csv", tmp_path / "manifest", settings)
